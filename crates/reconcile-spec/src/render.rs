//! The way back: a validated specification as the file that says all of it.
//!
//! Everything is destructured without `..`, so that a new field cannot be forgotten. Reading the
//! result again gives an equal specification; a test holds that.

use std::collections::BTreeMap;

use crate::v1alpha1 as out;
use crate::v1alpha1::Scalar;
use crate::valid;
use crate::valid::ClusterSpec;

/// The specification as YAML with every default said, such that a user could have written it.
pub fn to_yaml(spec: &ClusterSpec) -> String {
    let document = document(spec);
    // The types hold text, numbers and booleans only, which YAML can always say.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = String::new();
    match serde_saphyr::to_fmt_writer_with_options(&mut text, &document, options) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

fn document(spec: &ClusterSpec) -> out::PostgresCluster {
    let ClusterSpec {
        name,
        labels,
        secrets,
        hosts,
        packages: valid::Packages { source },
        etcd,
        patroni,
        postgresql,
        pgbouncer,
        haproxy,
        swarm,
        policy,
    } = spec;
    out::PostgresCluster {
        api_version: out::ApiVersion::V1alpha1,
        kind: out::Kind::PostgresCluster,
        metadata: out::Metadata { name: name.to_string(), labels: labels.clone() },
        spec: out::Spec {
            secrets: Some(secrets_of(secrets)),
            ssh: None, // Said at each host.
            hosts: hosts.iter().map(host).collect(),
            packages: Some(out::Packages {
                source: Some(match source {
                    valid::PackageSource::Apt => out::PackageSource::Apt,
                    valid::PackageSource::Preinstalled => out::PackageSource::Preinstalled,
                }),
            }),
            etcd: Some(etcd_of(etcd)),
            patroni: Some(patroni_of(patroni)),
            postgresql: Some(postgresql_of(postgresql)),
            pgbouncer: Some(pgbouncer_of(pgbouncer)),
            haproxy: Some(haproxy_of(haproxy)),
            swarm: Some(swarm_of(swarm)),
            policy: Some(policy_of(policy)),
        },
    }
}

fn secrets_of(secrets: &valid::SecretsSource) -> out::Secrets {
    let mut said = out::Secrets::default();
    match secrets {
        valid::SecretsSource::File(path) => said.file = Some(path.clone()),
        valid::SecretsSource::Env(prefix) => said.env = Some(prefix.clone()),
        valid::SecretsSource::Exec(command) => said.exec = Some(command.clone()),
    }
    said
}

fn host(host: &valid::Host) -> out::Host {
    let valid::Host { name, address, ssh, labels, components, swarm, advertise_address, leaving } =
        host;
    let valid::Ssh { user, port, identity_file, agent, jump, host_key, known_hosts, sudo } = ssh;
    out::Host {
        name: name.to_string(),
        address: address.to_string(),
        host_key: host_key.clone(),
        ssh: Some(out::Ssh {
            user: Some(user.clone()),
            port: Some(*port),
            identity_file: identity_file.clone(),
            agent: Some(*agent),
            jump: jump.as_ref().map(|valid::Jump { host, port, user, host_key: _ }| {
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                format!("{user}@{host}:{port}")
            }),
            jump_host_key: jump.as_ref().and_then(|jump| jump.host_key.clone()),
            known_hosts: known_hosts.clone(),
            sudo: Some(*sudo),
        }),
        labels: labels.clone(),
        components: Some(
            components
                .iter()
                .map(|component| match component {
                    valid::Component::Etcd => out::Component::Etcd,
                    valid::Component::Patroni => out::Component::Patroni,
                })
                .collect(),
        ),
        swarm: Some(out::HostSwarm {
            role: Some(match swarm {
                valid::SwarmRole::Manager => out::SwarmRole::Manager,
                valid::SwarmRole::Worker => out::SwarmRole::Worker,
                valid::SwarmRole::None => out::SwarmRole::None,
            }),
            advertise_address: Some(advertise_address.to_string()),
        }),
        leaving: Some(*leaving),
    }
}

fn etcd_of(etcd: &valid::Etcd) -> out::Etcd {
    let valid::Etcd {
        client_port,
        peer_port,
        data_dir,
        token: _, // Made from the cluster's name.
        heartbeat_ms,
        election_ms,
        auto_compaction_retention,
        quota_backend,
        version,
    } = etcd;
    out::Etcd {
        client_port: Some(*client_port),
        peer_port: Some(*peer_port),
        data_dir: Some(data_dir.clone()),
        heartbeat_interval: Some(valid::Millis(*heartbeat_ms).to_string()),
        election_timeout: Some(valid::Millis(*election_ms).to_string()),
        auto_compaction_retention: Some(auto_compaction_retention.to_string()),
        quota_backend: Some(quota_backend.to_string()),
        version: version.clone(),
    }
}

fn patroni_of(patroni: &valid::Patroni) -> out::Patroni {
    let valid::Patroni {
        profile,
        ttl,
        loop_wait,
        retry_timeout,
        primary_start_timeout,
        maximum_lag_on_failover,
        failsafe_mode,
        use_pg_rewind,
        synchronous: valid::Synchronous { mode, strict, node_count },
        rest_api_port,
        watchdog,
        version,
    } = patroni;
    out::Patroni {
        profile: Some(match profile {
            valid::Profile::Fast => out::Profile::Fast,
            valid::Profile::Norm => out::Profile::Norm,
            valid::Profile::Safe => out::Profile::Safe,
        }),
        ttl: Some(*ttl),
        loop_wait: Some(*loop_wait),
        retry_timeout: Some(*retry_timeout),
        primary_start_timeout: Some(*primary_start_timeout),
        maximum_lag_on_failover: Some(maximum_lag_on_failover.to_string()),
        failsafe_mode: Some(*failsafe_mode),
        use_pg_rewind: Some(*use_pg_rewind),
        synchronous: Some(out::Synchronous {
            mode: Some(match mode {
                valid::SynchronousMode::Off => out::SynchronousMode::Off,
                valid::SynchronousMode::On => out::SynchronousMode::On,
                valid::SynchronousMode::Quorum => out::SynchronousMode::Quorum,
            }),
            strict: Some(*strict),
            node_count: Some(*node_count),
        }),
        rest_api_port: Some(*rest_api_port),
        watchdog: Some(match watchdog {
            valid::Watchdog::Off => out::Watchdog::Off,
            valid::Watchdog::Automatic => out::Watchdog::Automatic,
            valid::Watchdog::Required => out::Watchdog::Required,
        }),
        version: version.clone(),
    }
}

fn scalars(map: &BTreeMap<String, String>) -> BTreeMap<String, Scalar> {
    map.iter().map(|(name, value)| (name.clone(), Scalar(value.clone()))).collect()
}

fn names<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn postgresql_of(postgresql: &valid::Postgresql) -> out::Postgresql {
    let valid::Postgresql {
        version,
        package_version,
        port,
        data_dir,
        bin_dir,
        listen,
        initdb: valid::Initdb { data_checksums, encoding, locale },
        parameters,
        hba,
        roles,
        databases,
    } = postgresql;
    out::Postgresql {
        version: Some(*version),
        package_version: package_version.clone(),
        port: Some(*port),
        data_dir: Some(data_dir.clone()),
        bin_dir: Some(bin_dir.clone()),
        listen: Some(match listen {
            valid::Listen::NodeAddress => out::Listen::NodeAddress,
            valid::Listen::All => out::Listen::All,
        }),
        initdb: Some(out::Initdb {
            data_checksums: Some(*data_checksums),
            encoding: Some(encoding.clone()),
            locale: Some(locale.clone()),
        }),
        parameters: scalars(parameters),
        hba: hba.iter().map(hba_rule).collect(),
        roles: roles.iter().map(role).collect(),
        databases: databases.iter().map(database).collect(),
    }
}

fn hba_rule(rule: &valid::HbaRule) -> out::HbaRule {
    let valid::HbaRule { kind, database, user, address, method, options, deliberate } = rule;
    out::HbaRule {
        kind: Some(match kind {
            valid::HbaType::Local => out::HbaType::Local,
            valid::HbaType::Host => out::HbaType::Host,
            valid::HbaType::Hostssl => out::HbaType::Hostssl,
            valid::HbaType::Hostnossl => out::HbaType::Hostnossl,
        }),
        database: database.clone(),
        user: user.clone(),
        address: address.clone(),
        method: Some(method.as_str().to_owned()),
        options: scalars(options),
        deliberate: Some(*deliberate),
    }
}

fn role(role: &valid::Role) -> out::Role {
    let valid::Role {
        name,
        password,
        login,
        superuser,
        createdb,
        createrole,
        replication,
        inherit,
        connection_limit,
        member_of,
    } = role;
    out::Role {
        name: name.to_string(),
        password: password
            .as_ref()
            .map(|valid::SecretRef { name }| out::PasswordRef { secret: name.to_string() }),
        login: Some(*login),
        superuser: Some(*superuser),
        createdb: Some(*createdb),
        createrole: Some(*createrole),
        replication: Some(*replication),
        inherit: Some(*inherit),
        connection_limit: *connection_limit,
        member_of: names(member_of),
    }
}

fn database(database: &valid::Database) -> out::Database {
    let valid::Database { name, owner, encoding, locale, template, extensions, schemas } = database;
    out::Database {
        name: name.to_string(),
        owner: Some(owner.to_string()),
        encoding: encoding.clone(),
        locale: locale.clone(),
        template: Some(template.clone()),
        extensions: names(extensions),
        schemas: names(schemas),
    }
}

fn runtime(runtime: valid::Runtime) -> out::Runtime {
    match runtime {
        valid::Runtime::Swarm => out::Runtime::Swarm,
        valid::Runtime::Systemd => out::Runtime::Systemd,
    }
}

fn pgbouncer_of(pgbouncer: &valid::Pgbouncer) -> out::Pgbouncer {
    let valid::Pgbouncer {
        runtime: by,
        image,
        ports: valid::PoolerPorts { write, read },
        pool_mode,
        max_client_conn,
        default_pool_size,
        parameters,
    } = pgbouncer;
    out::Pgbouncer {
        runtime: Some(runtime(*by)),
        image: Some(image.to_string()),
        ports: Some(out::PoolerPorts { write: Some(*write), read: Some(*read) }),
        pool_mode: Some(match pool_mode {
            valid::PoolMode::Transaction => out::PoolMode::Transaction,
            valid::PoolMode::Session => out::PoolMode::Session,
            valid::PoolMode::Statement => out::PoolMode::Statement,
        }),
        max_client_conn: Some(*max_client_conn),
        default_pool_size: Some(*default_pool_size),
        parameters: scalars(parameters),
    }
}

fn haproxy_of(haproxy: &valid::Haproxy) -> out::Haproxy {
    let valid::Haproxy {
        runtime: by,
        image,
        ports: front,
        router_ports: valid::RouterPorts { primary, replicas, health, stats: router_stats },
        publish: valid::Publish { write, read, stats },
        read_fallback,
        max_lag,
        maxconn,
        timeouts: valid::Timeouts { connect, client, server, check },
        checks: valid::Checks { inter, fastinter, downinter, rise, fall },
    } = haproxy;
    let valid::FrontPorts { write: front_write, read: front_read, stats: front_stats } = front;
    out::Haproxy {
        runtime: Some(runtime(*by)),
        image: Some(image.to_string()),
        ports: Some(out::FrontPorts {
            write: Some(*front_write),
            read: Some(*front_read),
            stats: Some(*front_stats),
        }),
        router_ports: Some(out::RouterPorts {
            primary: Some(*primary),
            replicas: Some(*replicas),
            health: Some(*health),
            stats: Some(*router_stats),
        }),
        publish: Some(out::Publish {
            write: Some(write.unwrap_or(0)),
            read: Some(read.unwrap_or(0)),
            stats: Some(stats.unwrap_or(0)),
        }),
        read_fallback: Some(match read_fallback {
            valid::ReadFallback::Primary => out::ReadFallback::Primary,
            valid::ReadFallback::None => out::ReadFallback::None,
        }),
        max_lag: Some(max_lag.to_string()),
        maxconn: Some(*maxconn),
        timeouts: Some(out::Timeouts {
            connect: Some(connect.to_string()),
            client: Some(client.to_string()),
            server: Some(server.to_string()),
            check: Some(check.to_string()),
        }),
        checks: Some(out::Checks {
            inter: Some(inter.to_string()),
            fastinter: Some(fastinter.to_string()),
            downinter: Some(downinter.to_string()),
            rise: Some(*rise),
            fall: Some(*fall),
        }),
    }
}

fn swarm_of(swarm: &valid::Swarm) -> out::Swarm {
    let valid::Swarm {
        stack,
        network,
        network_subnet,
        attachable,
        encrypted,
        config_retention,
        deploy: valid::DeployRules { update, restart_delay, stop_grace },
    } = swarm;
    let valid::UpdateRules { parallelism, delay, monitor, failure_action, order } = update;
    out::Swarm {
        stack: Some(stack.to_string()),
        network: Some(network.to_string()),
        network_subnet: network_subnet.clone(),
        attachable: Some(*attachable),
        encrypted: Some(*encrypted),
        managers: None, // Said at each host.
        config_retention: Some(*config_retention),
        deploy: Some(out::Deploy {
            update: Some(out::Update {
                parallelism: Some(*parallelism),
                delay: Some(delay.to_string()),
                monitor: Some(monitor.to_string()),
                failure_action: Some(match failure_action {
                    valid::FailureAction::Rollback => out::FailureAction::Rollback,
                    valid::FailureAction::Pause => out::FailureAction::Pause,
                    valid::FailureAction::Continue => out::FailureAction::Continue,
                }),
                order: Some(match order {
                    valid::UpdateOrder::StopFirst => out::UpdateOrder::StopFirst,
                }),
            }),
            restart_delay: Some(restart_delay.to_string()),
            stop_grace_period: Some(stop_grace.to_string()),
        }),
    }
}

fn policy_of(policy: &valid::Policy) -> out::Policy {
    let valid::Policy { drift, prune, pause, switchover, restart, windows } = policy;
    let valid::DriftModes { packages, files, units, postgresql, swarm } = drift;
    let mode = |mode: &valid::Drift| match mode {
        valid::Drift::Heal => out::Drift::Heal,
        valid::Drift::Report => out::Drift::Report,
    };
    let permission = |permission: &valid::Permission| match permission {
        valid::Permission::Allowed => out::Permission::Allowed,
        valid::Permission::InWindow => out::Permission::InWindow,
        valid::Permission::Never => out::Permission::Never,
    };
    out::Policy {
        drift: None,
        drift_by_class: Some(out::DriftByClass {
            packages: Some(mode(packages)),
            files: Some(mode(files)),
            units: Some(mode(units)),
            postgresql: Some(mode(postgresql)),
            swarm: Some(mode(swarm)),
        }),
        prune: Some(*prune),
        pause: Some(*pause),
        switchover: Some(permission(switchover)),
        restart: Some(permission(restart)),
        windows: windows
            .iter()
            .map(|valid::Window { cron, duration_s, timezone }| out::Window {
                cron: cron.to_string(),
                duration: valid::Millis::from_secs(*duration_s).to_string(),
                timezone: Some(timezone.clone()),
            })
            .collect(),
    }
}

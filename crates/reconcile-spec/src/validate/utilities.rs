//! Rules and defaults of PgBouncer, HAProxy and the Swarm that runs them.

use std::collections::BTreeMap;

use super::Rules;
use super::text::{self, ImageFault};
use crate::fault::Fault;
use crate::names::{NetworkName, StackName};
use crate::quantity::{Bytes, Millis};
use crate::v1alpha1::{self, Scalar};
use crate::valid::{
    Checks, DeployRules, FailureAction, FrontPorts, Haproxy, ImageRef, Pgbouncer, PoolMode,
    PoolerPorts, Publish, ReadFallback, RouterPorts, Runtime, Swarm, Timeouts, UpdateOrder,
    UpdateRules,
};

/// The release line that messages speak of.
const RELEASE: &str = "0.1";
/// There is no official image of PgBouncer; this one is maintained and has versioned tags.
const PGBOUNCER_IMAGE: &str = "edoburu/pgbouncer:v1.25.2-p0";
/// An official image.
const HAPROXY_IMAGE: &str = "haproxy:3.3-alpine";
/// Applications keep idle connections in their pools for hours; dead peers are found by TCP
/// keepalive, not by this.
const IDLE: Millis = Millis::from_secs(24 * 3_600);
/// Below this, idle pooled connections of applications get cut.
const SHORT_IDLE: Millis = Millis::from_secs(3_600);
/// Durations of zero turn things off in HAProxy or Docker, or spin.
const SOME: Millis = Millis(1);

/// Settings of pgbouncer.ini that reconcile makes unless the user does.
const PGBOUNCER_PARAMETERS: &[(&str, &str)] = &[
    // JDBC sends it with every connection.
    ("ignore_startup_parameters", "extra_float_digits"),
    // After a failover the next try comes after 1 s instead of 15 s.
    ("server_login_retry", "1"),
    ("tcp_keepalive", "1"),
    ("tcp_keepcnt", "3"),
    // A host that died without a word is noticed in about five and a half minutes.
    ("tcp_keepidle", "300"),
    ("tcp_keepintvl", "10"),
];

/// Prepared statements in transaction pooling; older versions refuse to start with an unknown
/// setting, so it is made only where the image's tag tells of 1.21 or later.
const PREPARED_STATEMENTS: (&str, &str) = ("max_prepared_statements", "200");

/// Settings of pgbouncer.ini that are not for `parameters`, and what is.
const PGBOUNCER_OWNED: &[(&str, &str)] = &[
    ("admin_users", "reconcile pauses and resumes poolers through the admin console"),
    ("auth_dbname", "passwords are looked up through `auth_query`"),
    ("auth_file", "it is a Swarm secret made from the secrets source"),
    ("auth_hba_file", "passwords are looked up through `auth_query`"),
    ("auth_query", "passwords are looked up by the role pgbouncer"),
    ("auth_type", "it is scram-sha-256"),
    ("auth_user", "it is the role pgbouncer"),
    ("conffile", "reconcile writes the configuration"),
    ("default_pool_size", "set `spec.pgbouncer.defaultPoolSize`"),
    ("listen_addr", "poolers listen on every Swarm node"),
    ("listen_port", "set `spec.pgbouncer.ports`"),
    ("logfile", "containers log to standard output: `docker service logs`"),
    ("max_client_conn", "set `spec.pgbouncer.maxClientConn`"),
    ("pidfile", "a container needs none"),
    ("pool_mode", "set `spec.pgbouncer.poolMode`"),
    ("stats_users", "reconcile reads statistics through the admin console"),
    ("unix_socket_dir", "poolers listen on TCP only"),
    ("user", "a container runs as its user already"),
];

fn runtime(rules: &mut Rules<'_>, component: &str, runtime: Option<v1alpha1::Runtime>) -> Runtime {
    match runtime {
        None | Some(v1alpha1::Runtime::Swarm) => Runtime::Swarm,
        Some(v1alpha1::Runtime::Systemd) => {
            rules.push(
                Fault::error(
                    format!("spec.{component}.runtime"),
                    format!("`runtime: systemd` is not supported by reconcile {RELEASE}"),
                )
                .help("write `runtime: swarm`, or leave the line out; the core (etcd, Patroni, PostgreSQL) is always run by systemd"),
            );
            Runtime::Systemd
        }
    }
}

fn image(rules: &mut Rules<'_>, path: &str, said: Option<&String>, default: &str) -> ImageRef {
    let text = said.map_or(default, String::as_str);
    let fault = match text::image(text) {
        Ok(image) => return image,
        Err(ImageFault::Form(message)) => Fault::error(path, message)
            .help(format!("for example `{default}`, or a repository with `@sha256:…`")),
        Err(ImageFault::Moving(message)) => {
            let unofficial = text.split([':', '@']).next() == Some("pgbouncer/pgbouncer");
            let note = if unofficial {
                "\nPgBouncer has no official image; this one is not maintained by its authors"
            } else {
                ""
            };
            Fault::error(path, message).help(format!(
                "what a moving tag means changes without a change of this file, so it is never converged;\n\
                 name a version, such as `{default}`, or a digest{note}"
            ))
        }
    };
    rules.push(fault);
    ImageRef { repository: String::new(), tag: None, digest: None }
}

pub(super) fn pgbouncer(
    rules: &mut Rules<'_>,
    pgbouncer: Option<&v1alpha1::Pgbouncer>,
) -> Pgbouncer {
    let none = v1alpha1::Pgbouncer::default();
    let v1alpha1::Pgbouncer {
        runtime: said_runtime,
        image: said_image,
        ports,
        pool_mode,
        max_client_conn,
        default_pool_size,
        parameters,
    } = pgbouncer.unwrap_or(&none);
    let no_ports = v1alpha1::PoolerPorts::default();
    let v1alpha1::PoolerPorts { write, read } = ports.as_ref().unwrap_or(&no_ports);
    let image = image(rules, "spec.pgbouncer.image", said_image.as_ref(), PGBOUNCER_IMAGE);
    Pgbouncer {
        runtime: runtime(rules, "pgbouncer", *said_runtime),
        ports: PoolerPorts { write: write.unwrap_or(6432), read: read.unwrap_or(6433) },
        pool_mode: match pool_mode {
            None | Some(v1alpha1::PoolMode::Transaction) => PoolMode::Transaction,
            Some(v1alpha1::PoolMode::Session) => PoolMode::Session,
            Some(v1alpha1::PoolMode::Statement) => PoolMode::Statement,
        },
        max_client_conn: max_client_conn.unwrap_or(10_000),
        default_pool_size: default_pool_size.unwrap_or(25),
        parameters: pooler_parameters(rules, parameters, &image),
        image,
    }
}

/// Whether the tag names a version of PgBouncer that knows prepared statements: `v1.25.2-p0`.
fn knows_prepared_statements(image: &ImageRef) -> bool {
    let tag = image.tag.as_deref().unwrap_or("");
    let mut numbers = tag.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    let major = numbers.next().and_then(|n| n.parse::<u32>().ok());
    let minor = numbers.next().and_then(|n| n.parse::<u32>().ok());
    major.zip(minor).is_some_and(|version| version >= (1, 21))
}

fn pooler_parameters(
    rules: &mut Rules<'_>,
    own: &BTreeMap<String, Scalar>,
    image: &ImageRef,
) -> BTreeMap<String, String> {
    let prepared = knows_prepared_statements(image).then_some(&PREPARED_STATEMENTS);
    let mut out: BTreeMap<String, String> = PGBOUNCER_PARAMETERS
        .iter()
        .chain(prepared)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    for (name, value) in own {
        let path = format!("spec.pgbouncer.parameters.{name}");
        if let Some((_, instead)) = PGBOUNCER_OWNED.iter().find(|(owned, _)| owned == name) {
            rules.push(
                Fault::error(path, format!("`{name}` is not for `parameters`: reconcile sets it"))
                    .at_key()
                    .help(*instead),
            );
        } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            || name.is_empty()
        {
            rules.push(
                Fault::error(path, format!("{name:?} is no setting of pgbouncer.ini")).at_key(),
            );
        } else {
            let value = match value.0.as_str() {
                "true" => "1".to_owned(),
                "false" => "0".to_owned(),
                other => other.to_owned(),
            };
            out.insert(name.clone(), value);
        }
    }
    out
}

pub(super) fn haproxy(rules: &mut Rules<'_>, haproxy: Option<&v1alpha1::Haproxy>) -> Haproxy {
    let none = v1alpha1::Haproxy::default();
    let v1alpha1::Haproxy {
        runtime: said_runtime,
        image: said_image,
        ports,
        router_ports,
        publish,
        read_fallback,
        max_lag,
        maxconn,
        timeouts,
        checks,
    } = haproxy.unwrap_or(&none);
    let no_ports = v1alpha1::FrontPorts::default();
    let v1alpha1::FrontPorts { write, read, stats } = ports.as_ref().unwrap_or(&no_ports);
    let front = FrontPorts {
        write: write.unwrap_or(5432),
        read: read.unwrap_or(5433),
        stats: stats.unwrap_or(7000),
    };
    let no_router = v1alpha1::RouterPorts::default();
    let v1alpha1::RouterPorts { primary, replicas, health, stats } =
        router_ports.as_ref().unwrap_or(&no_router);
    let router_ports = RouterPorts {
        primary: primary.unwrap_or(5442),
        replicas: replicas.unwrap_or(5443),
        health: health.unwrap_or(5444),
        stats: stats.unwrap_or(5445),
    };
    let no_publish = v1alpha1::Publish::default();
    let v1alpha1::Publish { write, read, stats } = publish.as_ref().unwrap_or(&no_publish);
    let port =
        |said: Option<u16>, default: u16| Some(said.unwrap_or(default)).filter(|port| *port != 0);
    let publish =
        Publish { write: port(*write, 15432), read: port(*read, 5433), stats: port(*stats, 7000) };
    Haproxy {
        runtime: runtime(rules, "haproxy", *said_runtime),
        image: image(rules, "spec.haproxy.image", said_image.as_ref(), HAPROXY_IMAGE),
        ports: front,
        router_ports,
        publish,
        read_fallback: match read_fallback {
            None | Some(v1alpha1::ReadFallback::Primary) => ReadFallback::Primary,
            Some(v1alpha1::ReadFallback::None) => ReadFallback::None,
        },
        max_lag: rules.bytes("spec.haproxy.maxLag", max_lag.as_ref(), Bytes(16 << 20)),
        maxconn: maxconn.unwrap_or(10_000),
        timeouts: timeouts_of(rules, timeouts.as_ref()),
        checks: checks_of(rules, checks.as_ref()),
    }
}

fn timeouts_of(rules: &mut Rules<'_>, timeouts: Option<&v1alpha1::Timeouts>) -> Timeouts {
    let none = v1alpha1::Timeouts::default();
    let v1alpha1::Timeouts { connect, client, server, check } = timeouts.unwrap_or(&none);
    let mut time = |field: &str, said: &Option<String>, default| {
        rules.duration(&format!("spec.haproxy.timeouts.{field}"), said.as_ref(), default, SOME)
    };
    let out = Timeouts {
        connect: time("connect", connect, Millis::from_secs(4)),
        client: time("client", client, IDLE),
        server: time("server", server, IDLE),
        check: time("check", check, Millis::from_secs(2)),
    };
    for (field, value) in [("client", out.client), ("server", out.server)] {
        if value < SHORT_IDLE {
            rules.push(
                Fault::warning(
                    format!("spec.haproxy.timeouts.{field}"),
                    format!("applications lose connections that are idle for {value}"),
                )
                .help("connection pools keep idle connections for hours; the default is 24h"),
            );
        }
    }
    out
}

fn checks_of(rules: &mut Rules<'_>, checks: Option<&v1alpha1::Checks>) -> Checks {
    let none = v1alpha1::Checks::default();
    let v1alpha1::Checks { inter, fastinter, downinter, rise, fall } = checks.unwrap_or(&none);
    let mut time = |field: &str, said: &Option<String>, default| {
        rules.duration(&format!("spec.haproxy.checks.{field}"), said.as_ref(), default, Millis(100))
    };
    Checks {
        inter: time("inter", inter, Millis::from_secs(1)),
        fastinter: time("fastinter", fastinter, Millis(500)),
        downinter: time("downinter", downinter, Millis::from_secs(1)),
        rise: rise.unwrap_or(2),
        fall: fall.unwrap_or(2),
    }
}

pub(super) fn swarm(rules: &mut Rules<'_>, swarm: Option<&v1alpha1::Swarm>) -> Swarm {
    let none = v1alpha1::Swarm::default();
    let v1alpha1::Swarm {
        stack,
        network,
        network_subnet,
        attachable,
        encrypted,
        managers: _, // The rules of hosts have them.
        config_retention,
        deploy,
    } = swarm.unwrap_or(&none);
    let network_path = "spec.swarm.network";
    let network = network.as_deref().unwrap_or("saasodoo-network");
    if matches!(network, "host" | "bridge" | "none" | "ingress" | "docker_gwbridge") {
        let mut help = "the name of an overlay network that applications share with HAProxy, such as `saasodoo-network`".to_owned();
        if network == "host" {
            help.push_str(".\nNobody could resolve `haproxy` on the hosts' own network; for programs outside of Docker there is `haproxy.publish`");
        }
        rules.push(
            Fault::error(network_path, format!("`{network}` is a network of Docker's own"))
                .help(help),
        );
    }
    if let Some(subnet) = network_subnet
        && let Err(message) = text::network(subnet)
    {
        rules.push(Fault::error("spec.swarm.networkSubnet", message));
    }
    let stack = stack.as_deref().unwrap_or("db-utils");
    Swarm {
        stack: rules
            .name("spec.swarm.stack", stack, StackName::new)
            .unwrap_or_else(StackName::placeholder),
        network: rules
            .name(network_path, network, NetworkName::new)
            .unwrap_or_else(NetworkName::placeholder),
        network_subnet: network_subnet.clone(),
        attachable: attachable.unwrap_or(true),
        encrypted: encrypted.unwrap_or(false),
        config_retention: config_retention.unwrap_or(3),
        deploy: deploy_of(rules, deploy.as_ref()),
    }
}

fn deploy_of(rules: &mut Rules<'_>, deploy: Option<&v1alpha1::Deploy>) -> DeployRules {
    let none = v1alpha1::Deploy::default();
    let v1alpha1::Deploy { update, restart_delay, stop_grace_period } = deploy.unwrap_or(&none);
    let no_update = v1alpha1::Update::default();
    let v1alpha1::Update { parallelism, delay, monitor, failure_action, order } =
        update.as_ref().unwrap_or(&no_update);
    if *order == Some(v1alpha1::UpdateOrder::StartFirst) {
        rules.push(
            Fault::error("spec.swarm.deploy.update.order", "`start-first` cannot work here")
                .help("the new task would need the host ports that the old one still holds; write `stop-first`, or leave the line out"),
        );
    }
    let mut time = |field: &str, said: &Option<String>, default, least| {
        rules.duration(&format!("spec.swarm.deploy.{field}"), said.as_ref(), default, least)
    };
    DeployRules {
        update: UpdateRules {
            parallelism: parallelism.unwrap_or(1),
            // Time for the other nodes' fronts to see the new pooler up before the next goes.
            delay: time("update.delay", delay, Millis::from_secs(10), Millis(0)),
            monitor: time("update.monitor", monitor, Millis::from_secs(20), SOME),
            failure_action: match failure_action {
                None | Some(v1alpha1::FailureAction::Rollback) => FailureAction::Rollback,
                Some(v1alpha1::FailureAction::Pause) => FailureAction::Pause,
                Some(v1alpha1::FailureAction::Continue) => FailureAction::Continue,
            },
            order: UpdateOrder::StopFirst,
        },
        restart_delay: time("restartDelay", restart_delay, Millis::from_secs(5), Millis(0)),
        stop_grace: time("stopGracePeriod", stop_grace_period, Millis::from_secs(30), SOME),
    }
}

//! Patroni: its file on each host, its unit, and the dynamic configuration that lives in etcd.

use std::collections::BTreeMap;

use reconcile_spec::{
    ClusterSpec, secrets,
    valid::{Component, Host, Listen, SynchronousMode, Watchdog},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{DesiredAccess, SecretValues, access, bracketed, etcd, header, line, yaml};
use crate::model::HostName;

/// systemd unit.
pub const UNIT: &str = "patroni.service";
/// Settings; the seeds' path.
pub const CONFIG: &str = "/etc/patroni/patroni.yml";
/// The unit's file.
pub const UNIT_FILE: &str = "/etc/systemd/system/patroni.service";
/// Where PostgreSQL's Unix socket lives on Debian.
pub const SOCKET_DIR: &str = "/var/run/postgresql";
/// PostgreSQL's first superuser.
pub const SUPERUSER: &str = "postgres";
/// Replication role.
pub const REPLICATION_ROLE: &str = "replicator";
/// `pg_rewind`'s role.
pub const REWIND_ROLE: &str = "rewind";
/// User of the REST interface's unsafe verbs.
pub const REST_USER: &str = "patroni";
/// Where Patroni keeps its clusters in etcd.
pub const NAMESPACE: &str = "/service/";
/// Keys of a cluster that change when something was decided, and not with every round of its loop.
pub const LEADING_KEYS: [&str; 5] = ["leader", "config", "failover", "sync", "initialize"];
/// Patroni in Debian needs python3-etcd, and only recommends it.
pub const PACKAGES: [&str; 2] = ["patroni", "python3-etcd"];

/// Patroni's cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredPatroni {
    /// Scope.
    pub scope: String,
    /// Members by host.
    pub members: BTreeMap<HostName, PatroniMember>,
    /// The host that initialises the database if there is none: the first in the file.
    pub bootstrap: Option<HostName>,
    /// PostgreSQL's major version.
    pub version: u16,
    /// PostgreSQL's data directory.
    pub data_dir: String,
    /// PostgreSQL's programs.
    pub bin_dir: String,
    /// Dynamic configuration, as `PATCH /config` takes it.
    pub config: Value,
    /// Who gets in.
    pub access: DesiredAccess,
}

/// A member's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PatroniMember {
    /// REST URL.
    pub rest_url: String,
    /// Address and ports: PostgreSQL, REST.
    pub address: String,
    /// PostgreSQL's port.
    pub postgresql_port: u16,
    /// REST port.
    pub rest_port: u16,
}

impl DesiredPatroni {
    /// Directory of this cluster's keys in etcd.
    pub fn directory(&self) -> String {
        format!("{NAMESPACE}{}", self.scope)
    }
}

/// The desired cluster.
pub(super) fn cluster(spec: &ClusterSpec) -> DesiredPatroni {
    let leaving = spec.leaving().filter(|host| host.components.contains(&Component::Patroni));
    let members: BTreeMap<_, _> = spec
        .hosts_with(Component::Patroni)
        .chain(leaving)
        .map(|host| {
            let member = PatroniMember {
                rest_url: format!(
                    "http://{}:{}",
                    bracketed(host.address),
                    spec.patroni.rest_api_port
                ),
                address: host.address.to_string(),
                postgresql_port: spec.postgresql.port,
                rest_port: spec.patroni.rest_api_port,
            };
            (HostName::new(host.name.as_str()), member)
        })
        .collect();
    DesiredPatroni {
        scope: spec.name.to_string(),
        bootstrap: spec
            .hosts_with(Component::Patroni)
            .next()
            .map(|host| HostName::new(host.name.as_str())),
        members,
        version: spec.postgresql.version,
        data_dir: spec.postgresql.data_dir.clone(),
        bin_dir: spec.postgresql.bin_dir.clone(),
        config: dynamic(spec),
        access: access::access(spec),
    }
}

/// The dynamic configuration: what `bootstrap.dcs` starts with and `PATCH /config` keeps so.
pub fn dynamic(spec: &ClusterSpec) -> Value {
    let patroni = &spec.patroni;
    let parameters: Map<String, Value> = spec
        .postgresql
        .parameters
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "ttl": patroni.ttl,
        "loop_wait": patroni.loop_wait,
        "retry_timeout": patroni.retry_timeout,
        "primary_start_timeout": patroni.primary_start_timeout,
        "maximum_lag_on_failover": patroni.maximum_lag_on_failover.0,
        "failsafe_mode": patroni.failsafe_mode,
        "synchronous_mode": match patroni.synchronous.mode {
            SynchronousMode::Off => json!(false),
            SynchronousMode::On => json!(true),
            SynchronousMode::Quorum => json!("quorum"),
        },
        "synchronous_mode_strict": patroni.synchronous.strict,
        "synchronous_node_count": patroni.synchronous.node_count,
        "postgresql": {
            "use_pg_rewind": patroni.use_pg_rewind,
            "use_slots": true,
            "parameters": parameters,
        },
    })
}

/// `/etc/patroni/patroni.yml` of a host; it holds passwords.
pub(super) fn config(spec: &ClusterSpec, host: &Host, values: &SecretValues<'_>) -> String {
    let address = bracketed(host.address);
    let postgresql = &spec.postgresql;
    let listen = match postgresql.listen {
        Listen::NodeAddress => format!("{},127.0.0.1:{}", host.address, postgresql.port),
        Listen::All => format!("0.0.0.0:{}", postgresql.port),
    };
    let etcd_hosts: Vec<String> = spec
        .hosts_with(Component::Etcd)
        .map(|member| format!("{}:{}", bracketed(member.address), spec.etcd.client_port))
        .collect();
    let mut initdb = vec![
        json!({ "encoding": postgresql.initdb.encoding }),
        json!({ "locale": postgresql.initdb.locale }),
    ];
    if postgresql.initdb.data_checksums {
        initdb.push(json!("data-checksums"));
    }
    let login = |user: &str, secret: &str| json!({ "username": user, "password": values.get(secret).expose() });
    let document = json!({
        "scope": spec.name.as_str(),
        "namespace": NAMESPACE,
        "name": host.name.as_str(),
        "restapi": {
            "listen": format!("{address}:{}", spec.patroni.rest_api_port),
            "connect_address": format!("{address}:{}", spec.patroni.rest_api_port),
            "authentication": login(REST_USER, secrets::PATRONI_RESTAPI),
        },
        // etcd's older interface. Through v3, Patroni before 3.0.3 (Debian 12 has 3.0.2) writes its
        // name over another's leader key once its own lease has run out (patroni/patroni#2689): a
        // primary that comes back from behind a cut takes the lead from the one that was promoted
        // meanwhile, whose writes are lost. Through v2 it compares before it writes.
        "etcd": { "hosts": etcd_hosts },
        "bootstrap": { "dcs": dynamic(spec), "initdb": initdb },
        "postgresql": {
            "listen": listen,
            "connect_address": format!("{address}:{}", postgresql.port),
            "data_dir": postgresql.data_dir,
            "bin_dir": postgresql.bin_dir,
            "pgpass": "/var/lib/postgresql/.pgpass_patroni",
            "use_unix_socket": true,
            // Otherwise a replica's copy waits for a checkpoint that the primary spreads over minutes.
            "basebackup": [{ "checkpoint": "fast" }],
            "authentication": {
                "superuser": login("postgres", secrets::POSTGRES_SUPERUSER),
                "replication": login(REPLICATION_ROLE, secrets::POSTGRES_REPLICATION),
                "rewind": login(REWIND_ROLE, secrets::POSTGRES_REWIND),
            },
            "parameters": { "unix_socket_directories": SOCKET_DIR },
            "pg_hba": access::lines(spec),
        },
        "watchdog": {
            "mode": match spec.patroni.watchdog {
                Watchdog::Off => "off",
                Watchdog::Automatic => "automatic",
                Watchdog::Required => "required",
            },
            "device": "/dev/watchdog",
            "safety_margin": 5,
        },
    });
    let mut text = header("#", spec.name.as_str());
    text.push_str(&yaml::document(&document));
    text
}

/// The systemd unit, after upstream's own: only Patroni itself gets the stop signal, and it
/// brings PostgreSQL down in order.
pub fn unit(spec: &ClusterSpec) -> String {
    let mut text = header("#", spec.name.as_str());
    line(&mut text, format_args!("[Unit]"));
    line(&mut text, format_args!("Description=Patroni and PostgreSQL of cluster {}", spec.name));
    text.push_str("Documentation=man:patroni(1)\n");
    line(&mut text, format_args!("After=network-online.target {}", etcd::UNIT));
    text.push_str(
        "Wants=network-online.target
",
    );
    // A volume that is not mounted looks like an empty data directory.
    line(&mut text, format_args!("RequiresMountsFor={}", spec.postgresql.data_dir));
    text.push_str(
        "
[Service]
Type=simple
User=postgres
Group=postgres
",
    );
    line(&mut text, format_args!("ExecStart=/usr/bin/patroni {CONFIG}"));
    text.push_str(
        "ExecReload=/bin/kill -s HUP $MAINPID
KillMode=process
TimeoutStopSec=60
Restart=always
RestartSec=2
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
",
    );
    text
}

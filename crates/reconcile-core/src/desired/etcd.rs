//! etcd: one member a host, settings by environment, state always `existing`.
//!
//! `initial-cluster-state=new` left in a configuration is a documented way to lose data
//! (etcd-io/etcd#12227), so it is never in a file that stays: the first start of a member reads it
//! from [`BOOTSTRAP_ENV`], which lives in memory and is removed once the cluster has formed.

use std::collections::BTreeMap;

use reconcile_spec::{
    ClusterSpec,
    valid::{Component, Host},
};
use serde::Serialize;

use super::{bracketed, header, line};
use crate::model::HostName;

/// systemd unit.
pub const UNIT: &str = "etcd.service";
/// Settings.
pub const ENV: &str = "/etc/default/etcd";
/// Volatile settings of a member's first start.
pub const BOOTSTRAP_ENV: &str = "/run/reconcile/etcd-bootstrap.env";
/// The unit's file.
pub const UNIT_FILE: &str = "/etc/systemd/system/etcd.service";
/// Packages, as Debian names them.
pub const PACKAGES: [&str; 2] = ["etcd-server", "etcd-client"];

/// The cluster of etcd members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredEtcd {
    /// `initial-cluster-token`.
    pub token: String,
    /// Data directory of every member.
    pub data_dir: String,
    /// Members by host.
    pub members: BTreeMap<HostName, EtcdMember>,
}

/// A member's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// Client URL.
    pub client_url: String,
    /// Peer URL.
    pub peer_url: String,
    /// Ports: client, peer.
    pub ports: [u16; 2],
}

/// The desired etcd cluster.
pub(super) fn cluster(spec: &ClusterSpec) -> DesiredEtcd {
    let leaving = spec.leaving().filter(|host| host.components.contains(&Component::Etcd));
    let members = spec
        .hosts_with(Component::Etcd)
        .chain(leaving)
        .map(|host| {
            let member = EtcdMember {
                client_url: url(host, spec.etcd.client_port),
                peer_url: url(host, spec.etcd.peer_port),
                ports: [spec.etcd.client_port, spec.etcd.peer_port],
            };
            (HostName::new(host.name.as_str()), member)
        })
        .collect();
    DesiredEtcd { token: spec.etcd.token.clone(), data_dir: spec.etcd.data_dir.clone(), members }
}

fn url(host: &Host, port: u16) -> String {
    format!("http://{}:{port}", bracketed(host.address))
}

/// `/etc/default/etcd` of a host.
pub fn environment(spec: &ClusterSpec, host: &Host) -> String {
    let etcd = &spec.etcd;
    let peers: Vec<_> = spec
        .hosts_with(Component::Etcd)
        .map(|peer| format!("{}={}", peer.name, url(peer, etcd.peer_port)))
        .collect();
    let mut text = header("#", spec.name.as_str());
    let settings = [
        ("NAME", host.name.to_string()),
        ("DATA_DIR", etcd.data_dir.clone()),
        ("LISTEN_PEER_URLS", url(host, etcd.peer_port)),
        (
            "LISTEN_CLIENT_URLS",
            format!("{},http://127.0.0.1:{}", url(host, etcd.client_port), etcd.client_port),
        ),
        ("INITIAL_ADVERTISE_PEER_URLS", url(host, etcd.peer_port)),
        ("ADVERTISE_CLIENT_URLS", url(host, etcd.client_port)),
        ("INITIAL_CLUSTER", peers.join(",")),
        ("INITIAL_CLUSTER_STATE", "existing".to_owned()),
        ("INITIAL_CLUSTER_TOKEN", etcd.token.clone()),
        ("HEARTBEAT_INTERVAL", etcd.heartbeat_ms.to_string()),
        ("ELECTION_TIMEOUT", etcd.election_ms.to_string()),
        ("AUTO_COMPACTION_MODE", "periodic".to_owned()),
        (
            "AUTO_COMPACTION_RETENTION",
            format!("{}s", etcd.auto_compaction_retention.as_secs_ceil()),
        ),
        ("QUOTA_BACKEND_BYTES", etcd.quota_backend.0.to_string()),
        // Patroni's way in; see `desired/patroni.rs`.
        ("ENABLE_V2", "true".to_owned()),
    ];
    for (name, value) in settings {
        line(&mut text, format_args!("ETCD_{name}=\"{value}\""));
    }
    text
}

/// The systemd unit. It waits without end for its peers, since a member that is killed for being
/// alone can never form a quorum with one that boots later.
pub fn unit(spec: &ClusterSpec) -> String {
    format!(
        "{}[Unit]
Description=etcd of PostgreSQL cluster {}
Documentation=man:etcd(1)
After=network-online.target
Wants=network-online.target
RequiresMountsFor={}

[Service]
Type=notify
User=etcd
Group=etcd
EnvironmentFile={ENV}
EnvironmentFile=-{BOOTSTRAP_ENV}
ExecStart=/usr/bin/etcd
TimeoutStartSec=infinity
Restart=always
RestartSec=2
LimitNOFILE=65536

[Install]
WantedBy=multi-user.target
",
        header("#", spec.name.as_str()),
        spec.name,
        spec.etcd.data_dir
    )
}

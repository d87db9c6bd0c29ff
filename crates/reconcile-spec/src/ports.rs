//! Who listens where: the plan of addresses and ports of every host.
//!
//! The front's own ports are absent: it listens in its own network namespace on the overlay.
//! What it publishes on the nodes is here.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::names::HostName;
use crate::valid::{ClusterSpec, Component, Host, Listen, Publish, Runtime, SwarmRole};

/// Port of the Swarm's managers; Docker fixes it.
pub const SWARM_CONTROL: u16 = 2377;
/// Port of the Swarm's gossip, TCP and UDP; Docker fixes it.
pub const SWARM_GOSSIP: u16 = 7946;
/// Port of the overlay networks' VXLAN; Docker's default.
pub const SWARM_VXLAN: u16 = 4789;

/// One listening socket that the specification implies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortClaim {
    /// The host whose port is claimed.
    pub host: HostName,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The address.
    pub address: BindAddress,
    /// Who claims it.
    pub claimant: Claimant,
}

impl PortClaim {
    /// Whether the two sockets cannot both be bound.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.host == other.host
            && self.protocol == other.protocol
            && self.port == other.port
            && match (self.address, other.address) {
                (BindAddress::Ip(a), BindAddress::Ip(b)) => a == b,
                _ => true,
            }
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The address that a socket is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BindAddress {
    /// All addresses of the host.
    Any,
    /// This one.
    Ip(IpAddr),
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("0.0.0.0"),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Claimant {
    /// The host's sshd.
    Ssh,
    /// etcd for clients.
    EtcdClient,
    /// etcd for members.
    EtcdPeer,
    /// Patroni's REST API.
    PatroniRestApi,
    /// PostgreSQL.
    Postgresql,
    /// The pooler for writes.
    PgbouncerWrite,
    /// The pooler for reads.
    PgbouncerRead,
    /// The router's way to the primary.
    RouterPrimary,
    /// The router's way to the replicas.
    RouterReplicas,
    /// The router's answer to the front's checks.
    RouterHealth,
    /// The router's statistics.
    RouterStats,
    /// The front's write port, where systemd runs the front.
    FrontWrite,
    /// The front's read port, where systemd runs the front.
    FrontRead,
    /// The front's statistics page, where systemd runs the front.
    FrontStats,
    /// The front's write port, published.
    PublishWrite,
    /// The front's read port, published.
    PublishRead,
    /// The front's statistics page, published.
    PublishStats,
    /// The Swarm's managers.
    SwarmControl,
    /// The Swarm's gossip.
    SwarmGossip,
    /// The overlay networks.
    SwarmVxlan,
}

impl Claimant {
    /// Path of the field that decides the port, in the specification's document; none where
    /// Docker fixes it or (for SSH) the field is the host's own.
    pub const fn path(self) -> Option<&'static str> {
        Some(match self {
            Self::EtcdClient => "spec.etcd.clientPort",
            Self::EtcdPeer => "spec.etcd.peerPort",
            Self::PatroniRestApi => "spec.patroni.restApiPort",
            Self::Postgresql => "spec.postgresql.port",
            Self::PgbouncerWrite => "spec.pgbouncer.ports.write",
            Self::PgbouncerRead => "spec.pgbouncer.ports.read",
            Self::RouterPrimary => "spec.haproxy.routerPorts.primary",
            Self::RouterReplicas => "spec.haproxy.routerPorts.replicas",
            Self::RouterHealth => "spec.haproxy.routerPorts.health",
            Self::RouterStats => "spec.haproxy.routerPorts.stats",
            Self::FrontWrite => "spec.haproxy.ports.write",
            Self::FrontRead => "spec.haproxy.ports.read",
            Self::FrontStats => "spec.haproxy.ports.stats",
            Self::PublishWrite => "spec.haproxy.publish.write",
            Self::PublishRead => "spec.haproxy.publish.read",
            Self::PublishStats => "spec.haproxy.publish.stats",
            Self::Ssh | Self::SwarmControl | Self::SwarmGossip | Self::SwarmVxlan => return None,
        })
    }
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "sshd",
            Self::EtcdClient => "etcd (clients)",
            Self::EtcdPeer => "etcd (peers)",
            Self::PatroniRestApi => "Patroni's REST API",
            Self::Postgresql => "PostgreSQL",
            Self::PgbouncerWrite => "PgBouncer (writes)",
            Self::PgbouncerRead => "PgBouncer (reads)",
            Self::RouterPrimary => "the router (primary)",
            Self::RouterReplicas => "the router (replicas)",
            Self::RouterHealth => "the router (health)",
            Self::RouterStats => "the router (stats)",
            Self::FrontWrite => "HAProxy (writes)",
            Self::FrontRead => "HAProxy (reads)",
            Self::FrontStats => "HAProxy (stats)",
            Self::PublishWrite => "HAProxy's published write port",
            Self::PublishRead => "HAProxy's published read port",
            Self::PublishStats => "HAProxy's published stats port",
            Self::SwarmControl => "Docker Swarm (managers)",
            Self::SwarmGossip => "Docker Swarm (gossip)",
            Self::SwarmVxlan => "Docker Swarm (overlay networks)",
        })
    }
}

/// Every port that the specification claims, sorted by host (in the order of the file), then by
/// protocol, port, address and claimant.
pub fn port_claims(spec: &ClusterSpec) -> Vec<PortClaim> {
    spec.hosts.iter().flat_map(|host| host_claims(spec, host)).collect()
}

fn host_claims(spec: &ClusterSpec, host: &Host) -> Vec<PortClaim> {
    let mut claims = Vec::new();
    let mut claim = |protocol, address, port, claimant| {
        claims.push(PortClaim { host: host.name.clone(), protocol, port, address, claimant });
    };
    let node = BindAddress::Ip(host.address);
    let loopback = BindAddress::Ip(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    let any = BindAddress::Any;
    let tcp = Protocol::Tcp;

    claim(tcp, any, host.ssh.port, Claimant::Ssh);
    if host.components.contains(&Component::Etcd) {
        claim(tcp, node, spec.etcd.client_port, Claimant::EtcdClient);
        claim(tcp, loopback, spec.etcd.client_port, Claimant::EtcdClient);
        claim(tcp, node, spec.etcd.peer_port, Claimant::EtcdPeer);
    }
    if host.components.contains(&Component::Patroni) {
        claim(tcp, node, spec.patroni.rest_api_port, Claimant::PatroniRestApi);
        match spec.postgresql.listen {
            Listen::All => claim(tcp, any, spec.postgresql.port, Claimant::Postgresql),
            Listen::NodeAddress => {
                claim(tcp, node, spec.postgresql.port, Claimant::Postgresql);
                claim(tcp, loopback, spec.postgresql.port, Claimant::Postgresql);
            }
        }
    }
    let front = spec.haproxy.ports;
    if spec.haproxy.runtime == Runtime::Systemd && host.components.contains(&Component::Patroni) {
        claim(tcp, any, front.write, Claimant::FrontWrite);
        claim(tcp, any, front.read, Claimant::FrontRead);
        claim(tcp, any, front.stats, Claimant::FrontStats);
    }
    if host.swarm != SwarmRole::None {
        let (poolers, router) = (spec.pgbouncer.ports, spec.haproxy.router_ports);
        claim(tcp, any, poolers.write, Claimant::PgbouncerWrite);
        claim(tcp, any, poolers.read, Claimant::PgbouncerRead);
        claim(tcp, loopback, router.primary, Claimant::RouterPrimary);
        claim(tcp, loopback, router.replicas, Claimant::RouterReplicas);
        claim(tcp, any, router.health, Claimant::RouterHealth);
        claim(tcp, loopback, router.stats, Claimant::RouterStats);
        let publish = match spec.haproxy.runtime {
            Runtime::Swarm => spec.haproxy.publish,
            Runtime::Systemd => Publish { write: None, read: None, stats: None },
        };
        for (port, claimant) in [
            (publish.write, Claimant::PublishWrite),
            (publish.read, Claimant::PublishRead),
            (publish.stats, Claimant::PublishStats),
        ] {
            if let Some(port) = port {
                claim(tcp, any, port, claimant);
            }
        }
        if host.swarm == SwarmRole::Manager {
            claim(tcp, any, SWARM_CONTROL, Claimant::SwarmControl);
        }
        claim(tcp, any, SWARM_GOSSIP, Claimant::SwarmGossip);
        claim(Protocol::Udp, any, SWARM_GOSSIP, Claimant::SwarmGossip);
        claim(Protocol::Udp, any, SWARM_VXLAN, Claimant::SwarmVxlan);
    }
    claims.sort();
    claims
}

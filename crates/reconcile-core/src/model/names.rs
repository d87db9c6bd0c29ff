//! Names of servers and of everything that a plan can talk about.

use std::fmt;

use serde::Serialize;

/// A server's name in the desired state. Never an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HostName(String);

impl HostName {
    /// Takes an already validated name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl From<&str> for HostName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// The thing that a step changes or a hold is about. Its order is the tie-break of plans.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectId {
    /// A server as a whole.
    Host(HostName),
    /// All packages of a server; apt takes one lock, so they are one object.
    Packages(HostName),
    /// The versions of the packages that the file pins on a server.
    Upgrade(HostName),
    /// A file on a server.
    File(HostName, String),
    /// A systemd unit on a server.
    Unit(HostName, String),
    /// The etcd member on a server.
    EtcdMember(HostName),
    /// The etcd cluster as a whole.
    EtcdCluster,
    /// The Patroni member (and its PostgreSQL) on a server.
    PatroniMember(HostName),
    /// Patroni's dynamic configuration in etcd.
    PatroniConfig,
    /// The PostgreSQL that Patroni runs on a server.
    Postgresql(HostName),
    /// A PostgreSQL role.
    Role(String),
    /// A PostgreSQL database.
    Database(String),
    /// An extension in a database.
    Extension(String, String),
    /// The poolers' password look-up function in a database.
    PoolerLookup(String),
    /// The table that the service probe writes to.
    ProbeTable,
    /// A parameter set by `ALTER SYSTEM` on a server, which overrides the file there.
    AlterSystem(HostName, String),
    /// The pooler for writes on a server.
    Pooler(HostName),
    /// The Swarm as a whole.
    Swarm,
    /// A server's membership in the Swarm.
    SwarmNode(HostName),
    /// A Docker network.
    Network(String),
    /// A Swarm config, by its full content-hashed name.
    Config(String),
    /// A Swarm secret, by its full content-hashed name.
    Secret(String),
    /// A Swarm service, by its full name with the stack in front.
    Service(String),
}

impl ObjectId {
    /// The server that the object lives on, if it lives on one.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Host(host)
            | Self::Packages(host)
            | Self::Upgrade(host)
            | Self::File(host, _)
            | Self::Unit(host, _)
            | Self::EtcdMember(host)
            | Self::PatroniMember(host)
            | Self::Postgresql(host)
            | Self::Pooler(host)
            | Self::AlterSystem(host, _)
            | Self::SwarmNode(host) => Some(host),
            Self::EtcdCluster
            | Self::PatroniConfig
            | Self::Role(_)
            | Self::Database(_)
            | Self::Extension(..)
            | Self::PoolerLookup(_)
            | Self::ProbeTable
            | Self::Swarm
            | Self::Network(_)
            | Self::Config(_)
            | Self::Secret(_)
            | Self::Service(_) => None,
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "host/{host}"),
            Self::Packages(host) => write!(f, "{host}/packages"),
            Self::Upgrade(host) => write!(f, "{host}/upgrade"),
            Self::File(host, path) => write!(f, "{host}:{path}"),
            Self::Unit(host, unit) => write!(f, "{host}/{unit}"),
            Self::EtcdMember(host) => write!(f, "{host}/etcd-member"),
            Self::EtcdCluster => f.write_str("etcd"),
            Self::PatroniMember(host) => write!(f, "{host}/patroni-member"),
            Self::Postgresql(host) => write!(f, "{host}/postgresql"),
            Self::Pooler(host) => write!(f, "{host}/pooler"),
            Self::PatroniConfig => f.write_str("patroni/config"),
            Self::Role(name) => write!(f, "role/{name}"),
            Self::Database(name) => write!(f, "database/{name}"),
            Self::Extension(database, name) => write!(f, "database/{database}/extension/{name}"),
            Self::PoolerLookup(database) => write!(f, "database/{database}/pooler-lookup"),
            Self::ProbeTable => f.write_str("database/postgres/probe-table"),
            Self::AlterSystem(host, name) => write!(f, "{host}/alter-system/{name}"),
            Self::Swarm => f.write_str("swarm"),
            Self::SwarmNode(host) => write!(f, "swarm/node/{host}"),
            Self::Network(name) => write!(f, "swarm/network/{name}"),
            Self::Config(name) => write!(f, "swarm/config/{name}"),
            Self::Secret(name) => write!(f, "swarm/secret/{name}"),
            Self::Service(name) => write!(f, "swarm/service/{name}"),
        }
    }
}

impl Serialize for ObjectId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

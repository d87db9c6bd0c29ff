//! What must be, to the last byte: files with content, mode and owner, units, services, SQL
//! objects. Made from the validated specification and the secrets' values; nothing observed
//! flows in, so the same file gives the same desired state wherever it is read.

pub mod access;
pub mod etcd;
pub mod haproxy;
pub mod patroni;
pub mod pgbouncer;
pub mod postgresql;
pub mod server;
pub mod swarm;
mod yaml;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use reconcile_spec::ClusterSpec;
use serde::Serialize;

pub use access::{DesiredAccess, Login};
pub use etcd::DesiredEtcd;
pub use patroni::DesiredPatroni;
pub use postgresql::DesiredSql;
pub use server::{DesiredPackage, DesiredServer, ManagedFile, ManagedUnit};
pub use swarm::DesiredSwarm;

use crate::model::{HostName, SecretText, sha256_hex};

/// Values of secrets by name.
pub type Secrets = BTreeMap<String, SecretText>;

/// The desired state of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Desired {
    /// Name of the cluster.
    pub cluster: String,
    /// The servers, those that leave among them.
    pub servers: BTreeMap<HostName, DesiredServer>,
    /// Servers that are to leave. They are still named among the members, so that what runs there is
    /// seen and counts; no other server's files name them.
    pub leaving: BTreeSet<HostName>,
    /// The etcd cluster.
    pub etcd: DesiredEtcd,
    /// Patroni's cluster.
    pub patroni: DesiredPatroni,
    /// Roles, databases and what is in them.
    pub sql: DesiredSql,
    /// The Swarm, its network, configs, secrets and services.
    pub swarm: DesiredSwarm,
    /// What may be done by itself.
    pub policy: reconcile_spec::valid::Policy,
    /// Why its operator only looks, where it does: this may be far behind the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_looks: Option<String>,
}

/// A secret that the specification refers to and the source does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("secret `{name}` is missing; it is used by {}", used_by.join(" and "))]
pub struct MissingSecret {
    /// Its name.
    pub name: String,
    /// What needs it.
    pub used_by: Vec<String>,
}

impl Desired {
    /// Whether a server is to leave.
    pub fn leaves(&self, host: &HostName) -> bool {
        self.leaving.contains(host)
    }

    /// Digest of all that is desired, secrets included by their digests.
    pub fn digest(&self) -> String {
        // Plain data with string keys always serialises.
        sha256_hex(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The desired state, or every secret that is missing for it.
pub fn desired(spec: &ClusterSpec, secrets: &Secrets) -> Result<Desired, Vec<MissingSecret>> {
    let missing: Vec<_> = reconcile_spec::secrets::required_secrets(spec)
        .into_iter()
        .filter(|need| !secrets.contains_key(need.name.as_str()))
        .map(|need| MissingSecret { name: need.name.to_string(), used_by: need.used_by })
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let values = SecretValues(secrets);
    let servers = spec
        .hosts
        .iter()
        .map(|host| (HostName::new(host.name.as_str()), server::server(spec, host, &values)))
        .collect();
    Ok(Desired {
        cluster: spec.name.to_string(),
        servers,
        leaving: spec.leaving().map(|host| HostName::new(host.name.as_str())).collect(),
        etcd: etcd::cluster(spec),
        patroni: patroni::cluster(spec),
        sql: postgresql::sql(spec, &values),
        swarm: swarm::swarm(spec, &values),
        policy: spec.policy.clone(),
        only_looks: None,
    })
}

/// Secrets of which every required one is there.
pub(crate) struct SecretValues<'a>(&'a Secrets);

impl SecretValues<'_> {
    /// The value. [`desired`] has checked that it is there.
    pub(crate) fn get(&self, name: &str) -> SecretText {
        self.0.get(name).cloned().unwrap_or_else(|| SecretText::new(""))
    }
}

/// The line that every rendered text file starts with.
pub(crate) fn header(comment: &str, cluster: &str) -> String {
    format!("{comment} Written by reconcile for cluster {cluster}; changes by hand are undone.\n")
}

/// An address as it stands in a URL or before a port.
pub(crate) fn bracketed(address: std::net::IpAddr) -> String {
    match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Appends a line; writing to a String cannot fail.
pub(crate) fn line(text: &mut String, args: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(args);
    text.push('\n');
}

/// A set of owned strings.
pub(crate) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

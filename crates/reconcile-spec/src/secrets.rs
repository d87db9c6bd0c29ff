//! Which secrets a cluster needs, by name. Values never come near this crate.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::valid::{ClusterSpec, SecretName};

/// The superuser of PostgreSQL.
pub const POSTGRES_SUPERUSER: &str = "postgres-superuser";
/// The role by which replicas follow.
pub const POSTGRES_REPLICATION: &str = "postgres-replication";
/// The role of `pg_rewind`.
pub const POSTGRES_REWIND: &str = "postgres-rewind";
/// Basic authentication of Patroni's REST API.
pub const PATRONI_RESTAPI: &str = "patroni-restapi";
/// The role by which PgBouncer looks up passwords.
pub const PGBOUNCER_AUTH: &str = "pgbouncer-auth";
/// The user of PgBouncer's admin console.
pub const PGBOUNCER_ADMIN: &str = "pgbouncer-admin";
/// The role with which reconcile measures writes, reads and lag.
pub const RECONCILE_PROBE: &str = "reconcile-probe";

/// The secrets of the system itself and what each is for.
pub const SYSTEM_SECRETS: &[(&str, &str)] = &[
    (POSTGRES_SUPERUSER, "PostgreSQL role postgres"),
    (POSTGRES_REPLICATION, "PostgreSQL role replicator"),
    (POSTGRES_REWIND, "PostgreSQL role rewind"),
    (PATRONI_RESTAPI, "Patroni REST API"),
    (PGBOUNCER_AUTH, "PostgreSQL role pgbouncer"),
    (PGBOUNCER_ADMIN, "PgBouncer admin console"),
    (RECONCILE_PROBE, "PostgreSQL role reconcile_probe"),
];

/// A secret that must be found before anything is applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRequirement {
    /// Its name in the secrets source.
    pub name: SecretName,
    /// What needs it, for people.
    pub used_by: Vec<String>,
}

/// Every secret that the cluster needs: those of the system and those that its roles refer to,
/// sorted by name, each once.
pub fn required_secrets(spec: &ClusterSpec) -> Vec<SecretRequirement> {
    let mut needs: BTreeMap<SecretName, Vec<String>> = BTreeMap::new();
    for (name, used_by) in SYSTEM_SECRETS {
        if let Ok(name) = SecretName::new(*name) {
            needs.entry(name).or_default().push((*used_by).to_owned());
        }
    }
    for role in &spec.postgresql.roles {
        if let Some(secret) = &role.password {
            needs
                .entry(secret.name.clone())
                .or_default()
                .push(format!("PostgreSQL role {}", role.name));
        }
    }
    needs.into_iter().map(|(name, used_by)| SecretRequirement { name, used_by }).collect()
}

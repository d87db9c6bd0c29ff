//! What etcd, Patroni and PostgreSQL say of themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// The local etcd member's answers (`/v3/maintenance/status`, `/v3/cluster/member/list`, `/health`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdFact {
    /// Version, such as `3.4.23`.
    pub version: String,
    /// Cluster id, decimal as the gateway prints it.
    pub cluster_id: String,
    /// This member's id, decimal.
    pub member_id: String,
    /// The leader's member id; empty when there is none.
    pub leader_id: String,
    /// `/health` answered true, which needs quorum.
    pub healthy: bool,
    /// Membership by a linearizable list; empty when there was no quorum to answer.
    pub members: Vec<EtcdMemberFact>,
    /// Size of the backend in bytes.
    pub db_size_bytes: u64,
}

/// One member as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMemberFact {
    /// Member id, decimal.
    pub id: String,
    /// Name; empty for a member that never started.
    pub name: String,
    /// Peer URLs.
    pub peer_urls: Vec<String>,
    /// Client URLs; empty for a member that never started.
    pub client_urls: Vec<String>,
    /// A learner does not vote yet.
    pub learner: bool,
}

/// The local Patroni's answers (`GET /patroni`, `GET /config`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PatroniFact {
    /// Patroni's version.
    pub version: String,
    /// Scope, Patroni's word for the cluster's name.
    pub scope: String,
    /// Role by its own word.
    pub role: PatroniRole,
    /// `state`: `running`, `starting`, `creating replica`, `start failed`, …
    pub state: String,
    /// Timeline, 0 when not running.
    pub timeline: u64,
    /// PostgreSQL's system identifier; empty before there is one.
    pub system_identifier: String,
    /// `server_version`, such as 150018; 0 when not running.
    pub server_version: u64,
    /// A parameter waits for a restart.
    pub pending_restart: bool,
    /// The process of a PostgreSQL whose program was replaced since it started.
    pub replaced: Option<u32>,
    /// Cluster management is paused.
    pub paused: bool,
    /// A replica streams from the primary (`replication_state` of a replica is `streaming`, or,
    /// with Patroni before 3.1, its WAL receiver is connected).
    pub streaming: bool,
    /// WAL position in bytes: written (primary) or replayed (replica).
    pub wal_position: Option<u64>,
    /// Replica's distance to the leader in bytes, by `/cluster`; up to `loop_wait` old.
    pub lag_bytes: Option<u64>,
    /// Names of all members that Patroni lists (`GET /cluster`); empty when it did not tell.
    pub members: BTreeSet<String>,
    /// Standbys connected to a primary.
    pub replication: Vec<ReplicationFact>,
    /// Dynamic configuration (`GET /config`) as canonical JSON text; None when it did not answer.
    pub config: Option<String>,
    /// Parameters that take effect only with a restart, as PostgreSQL runs with them now, by name;
    /// None when PostgreSQL could not be asked.
    pub settings: Option<BTreeMap<String, SettingFact>>,
    /// What a replica's own `postgresql.auto.conf` (`ALTER SYSTEM`) sets, name → value: by hand, or with the
    /// copy of the primary that it was made from. The primary's is in [`SqlFacts::altered`].
    pub altered: BTreeMap<String, String>,
}

/// A parameter as PostgreSQL runs with it (`pg_settings`), whatever its files say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingFact {
    /// Value, counted in `unit`.
    pub value: String,
    /// Unit, such as `8kB`; empty for none.
    pub unit: String,
    /// `bool`, `enum`, `integer`, `real` or `string`.
    pub kind: String,
    /// `ALTER SYSTEM` has set it, so that Patroni's value has no effect.
    pub altered: bool,
}

/// Patroni's role of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PatroniRole {
    /// Read-write leader (`master` before Patroni 4, `primary` since).
    Primary,
    /// Streaming standby.
    Replica,
    /// Leader of a standby cluster.
    StandbyLeader,
    /// No role yet or any other word.
    Other,
}

/// One standby as the primary sees it (`pg_stat_replication`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationFact {
    /// `application_name`: the member's name.
    pub application_name: String,
    /// Client address.
    pub address: String,
    /// `streaming`, `catchup`, …
    pub state: String,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
}

/// Roles and databases as the primary has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct SqlFacts {
    /// Roles by name, `pg_*` left out.
    pub roles: BTreeMap<String, RoleFact>,
    /// Databases by name, templates included.
    pub databases: BTreeMap<String, DatabaseFact>,
    /// Parameters in force that did not come from Patroni: name → value, from
    /// `postgresql.auto.conf` (`ALTER SYSTEM`).
    pub altered: BTreeMap<String, String>,
    /// The probe table exists in database `postgres`.
    pub probe_table: bool,
    /// How WAL is archived; None where `archive_mode` is off.
    pub archiver: Option<ArchiverFact>,
}

/// The archiver's own word (`pg_stat_archiver`), in seconds since 1970; None: never, as far as its
/// statistics reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiverFact {
    /// When it last archived a file.
    pub archived_at: Option<u64>,
    /// When it last failed to.
    pub failed_at: Option<u64>,
}

/// A role's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "PostgreSQL's own role attributes")]
pub struct RoleFact {
    /// `rolcanlogin`
    pub login: bool,
    /// `rolsuper`
    pub superuser: bool,
    /// `rolcreatedb`
    pub createdb: bool,
    /// `rolcreaterole`
    pub createrole: bool,
    /// `rolreplication`
    pub replication: bool,
    /// `rolinherit`
    pub inherit: bool,
    /// `rolconnlimit`, -1 for none.
    pub connection_limit: i64,
    /// Roles that it is a member of.
    pub member_of: BTreeSet<String>,
    /// SHA-256 in hexadecimal of `rolpassword` (itself a SCRAM verifier); None without a password.
    pub password_digest: Option<String>,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseFact {
    /// Owner.
    pub owner: String,
    /// Encoding, such as `UTF8`.
    pub encoding: String,
    /// Extensions by name with their version; None when the database was not looked into.
    pub extensions: Option<BTreeMap<String, String>>,
    /// Schemas, system ones left out; None when the database was not looked into.
    pub schemas: Option<BTreeSet<String>>,
    /// SHA-256 of the pooler look-up function's source there; None if it is not there.
    pub pooler_lookup: Option<String>,
}

//! What to ask a server in one round trip, and the Swarm in one go. Pure requests; adapters answer.

use std::collections::BTreeSet;

use serde::Serialize;

/// Everything that one probe of one server asks. The adapter turns it into one script.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeRequest {
    /// Where the note of a pause would be.
    pub pause: String,
    /// Packages by name.
    pub packages: BTreeSet<String>,
    /// Files.
    pub files: Vec<ProbeFile>,
    /// systemd units by full name.
    pub units: BTreeSet<String>,
    /// Data directories.
    pub data_dirs: BTreeSet<String>,
    /// Paths whose file system's space matters (the nearest existing parent is measured).
    pub disks: BTreeSet<String>,
    /// Ask the local Docker engine.
    pub docker: bool,
    /// Base URL of the local etcd member, such as `http://192.0.2.11:2379`.
    pub etcd: Option<String>,
    /// Base URL of the local Patroni, such as `http://192.0.2.11:8008`.
    pub patroni: Option<String>,
    /// Ask the local PostgreSQL, if it is a primary.
    pub sql: Option<SqlProbe>,
    /// The cluster whose guard over the pooler for writes is looked for.
    pub pooler_of: Option<String>,
    /// Directory of PostgreSQL's programs, for `pg_controldata`.
    pub postgres_bin_dir: Option<String>,
}

/// A file to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeFile {
    /// Path.
    pub path: String,
    /// Desired digest. Where the file's differs, and `secret` is false, its text is sent along.
    pub expect: String,
    /// The text must not travel.
    pub secret: bool,
    /// Desired mode, owner and group. Where these or the digest differ, it is asked when the file was
    /// changed.
    pub keep: Option<(u32, String, String)>,
}

/// What to ask the local PostgreSQL (most of it only a primary) through its Unix socket as the operating-system user `postgres`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SqlProbe {
    /// Port, which names the socket.
    pub port: u16,
    /// Directory of the socket.
    pub socket_dir: String,
    /// Databases to look into for extensions and the look-up function, where they exist.
    pub databases: BTreeSet<String>,
    /// Parameters whose running value is asked for, of a standby too.
    pub settings: BTreeSet<String>,
}

/// What to ask a manager of the Swarm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwarmRequest {
    /// Services whose tasks matter, by full name.
    pub services: BTreeSet<String>,
    /// Image references to resolve, unless a running service of ours pins the same reference.
    pub images: BTreeSet<String>,
}

//! What one probe of a server tells.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{AccessNote, EtcdFact, Observation, PatroniFact, PauseNote, SqlFacts};
use crate::action::UnitVerb;

/// The facts of one server, all from one round trip.
///
/// A key that was asked for and is missing from a map is known to be absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// Distribution and architecture.
    pub os: OsFact,
    /// Changes at every boot.
    pub boot_id: String,
    /// The server's clock minus ours, in milliseconds (error: half the round trip).
    pub clock_offset_ms: i64,
    /// Installed packages among those asked for, by name.
    pub packages: BTreeMap<String, PackageFact>,
    /// Files, directories or links among those asked for, by path.
    pub files: BTreeMap<String, FileFact>,
    /// systemd units among those asked for that systemd can load, by name.
    pub units: BTreeMap<String, UnitFact>,
    /// Every TCP listener of the server, in order of port and address.
    pub listeners: Vec<Listener>,
    /// Data directories among those asked for, by path. A missing key is an absent directory.
    pub data_dirs: BTreeMap<String, DataDirFact>,
    /// Free space where data or packages go, by path asked for.
    pub disks: BTreeMap<String, DiskFact>,
    /// The local Docker engine. `Known(None)`: not installed.
    pub docker: Observation<Option<DockerFact>>,
    /// What reconcile says it made here.
    pub manifest: Manifest,
    /// An operator has paused the pooler for writes here, or was about to, and has not resumed it.
    pub pooler_held: bool,
    /// The last word on a pause of the cluster, if there ever was one.
    pub pause: Option<PauseNote>,
    /// The last trial of access rules here.
    pub access: Option<AccessNote>,
    /// The local etcd member's own word. `Known(None)`: nothing listens on its client port.
    pub etcd: Observation<Option<EtcdFact>>,
    /// The local Patroni's own word. `Known(None)`: nothing listens on its REST port.
    pub patroni: Observation<Option<PatroniFact>>,
    /// Roles and databases, asked only of a local primary. `Known(None)`: no primary here.
    pub sql: Observation<Option<SqlFacts>>,
}

impl HostFacts {
    /// Zeroes the facts that move by themselves; see [`super::Observed::digest`].
    pub(super) fn drop_volatile(&mut self) {
        self.clock_offset_ms = 0;
        self.disks.clear();
        for unit in self.units.values_mut() {
            unit.main_pid = 0;
        }
        for listener in &mut self.listeners {
            listener.pid = None;
        }
        if let Observation::Known(Some(patroni)) = &mut self.patroni {
            patroni.lag_bytes = None;
            patroni.wal_position = None;
            patroni.replication.clear();
        }
        if let Observation::Known(Some(sql)) = &mut self.sql {
            sql.archiver = None;
        }
        if let Observation::Known(Some(etcd)) = &mut self.etcd {
            etcd.db_size_bytes = 0;
        }
    }
}

/// Distribution and architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OsFact {
    /// `ID` of os-release, such as `debian`.
    pub id: String,
    /// `VERSION_ID` of os-release, such as `12`.
    pub version: String,
    /// dpkg's architecture, such as `amd64`.
    pub architecture: String,
    /// The kernel's host name.
    pub hostname: String,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageFact {
    /// Full Debian version.
    pub version: String,
    /// dpkg's word on it is `install ok installed`; anything else is half done.
    pub complete: bool,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileFact {
    /// Its kind.
    pub kind: FileKind,
    /// SHA-256 in hexadecimal; empty for anything but a regular file.
    pub digest: String,
    /// Permission bits, such as `0o640`.
    pub mode: u32,
    /// Owner by name.
    pub owner: String,
    /// Group by name.
    pub group: String,
    /// The text, only where it differs from the desired one, is not secret and is at most 64 KiB.
    pub text: Option<String>,
    /// When it was last changed, only where it differs from the desired one.
    pub changed: Option<Changed>,
}

/// The last change of a file, of its text or its owner and mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Seconds since 1970, by the server's clock.
    pub at: u64,
    /// Who was logged in at a terminal then, as far as the server keeps a record of it: `alice` or
    /// `alice (192.0.2.7)`. Likely, and no proof.
    pub present: Vec<String>,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "last changed {}", crate::windows::written(self.at))?;
        match self.present.as_slice() {
            [] => Ok(()),
            [one] => write!(f, ", while {one} was logged in"),
            many => write!(f, ", while these were logged in: {}", many.join(", ")),
        }
    }
}

/// Kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// Anything else.
    Other,
}

/// A systemd unit as `systemctl show` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitFact {
    /// `LoadState`: `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// `UnitFileState`: `enabled`, `disabled`, `masked`, `masked-runtime`, … or empty.
    pub enabled: String,
    /// `NeedDaemonReload`.
    pub needs_daemon_reload: bool,
    /// `NRestarts`.
    pub restarts: u32,
    /// `MainPID`, 0 when not running.
    pub main_pid: u32,
    /// `FragmentPath`.
    pub fragment: String,
    /// When the main process started, in whole seconds since 1970 (`ExecMainStartTimestamp`); 0 if never.
    pub started_at: u64,
    /// What it was not told yet of a file of its own.
    pub owed: Option<Owed>,
    /// It has not been started anew since we replaced its program.
    pub outdated: bool,
}

/// A unit's file was replaced, and whoever did it was cut off before the unit was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Owed {
    /// Reload or restart.
    pub verb: UnitVerb,
    /// When the file was replaced, in whole seconds since 1970 by the server's clock.
    pub since: u64,
}

/// A listening TCP socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Port.
    pub port: u16,
    /// Local address: `0.0.0.0`, `::`, `127.0.0.1`, …
    pub address: String,
    /// Command name of the owner, such as `postgres`; empty if the kernel does not tell.
    pub process: String,
    /// Process id of the owner.
    pub pid: Option<u32>,
    /// systemd unit or container scope of the owner, such as `etcd.service` or `docker`; empty if unknown.
    pub unit: String,
}

/// A data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataDirFact {
    /// True when it holds any entry (`lost+found` alone does not count).
    pub populated: bool,
    /// PostgreSQL's system identifier from `pg_controldata`, where it holds a database.
    pub system_identifier: Option<String>,
}

/// Space of the file system below a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFact {
    /// Bytes that root's services can still write.
    pub free_bytes: u64,
    /// Size in bytes.
    pub total_bytes: u64,
}

/// The local Docker engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerFact {
    /// Engine version, such as `20.10.24+dfsg1`.
    pub version: String,
    /// Its place in a Swarm.
    pub swarm: LocalSwarm,
}

/// A server's own view of its place in a Swarm (`GET /info`, `Swarm`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalSwarm {
    /// State.
    pub state: LocalSwarmState,
    /// Node id, empty outside a Swarm.
    pub node_id: String,
    /// Address advertised to peers, empty outside a Swarm.
    pub node_address: String,
    /// Swarm (cluster) id; only managers know it.
    pub cluster_id: Option<String>,
    /// True on a manager that can serve the API.
    pub manager: bool,
    /// The engine's own error text, empty if none.
    pub error: String,
}

/// `LocalNodeState` of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum LocalSwarmState {
    /// Not part of a Swarm.
    Inactive,
    /// Joining.
    Pending,
    /// A member.
    Active,
    /// In a Swarm, with an error.
    Error,
    /// Locked (autolock).
    Locked,
}

/// What reconcile noted on a server of its own making: `/var/lib/reconcile/manifest`, append-only
/// lines `claim KIND NAME DIGEST` and `release KIND NAME`, the last word on a name counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Name of the cluster that the server belongs to (`cluster NAME` line), if it was ever touched.
    pub cluster: Option<String>,
    /// The claims in force.
    pub claims: std::collections::BTreeSet<Claim>,
}

impl Manifest {
    /// True where `name` of `kind` is claimed, whatever its digest.
    pub fn claims(&self, kind: ClaimKind, name: &str) -> bool {
        self.claims.iter().any(|claim| claim.kind == kind && claim.name == name)
    }
}

/// One line of ownership. It is written *before* the effect that it announces, while the object
/// is seen absent, so that an object which exists unclaimed was made by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Kind of object.
    pub kind: ClaimKind,
    /// Path or name; holds no white space.
    pub name: String,
}

/// Kinds of claimed objects. The word in the manifest is the kebab-case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimKind {
    /// A file that reconcile writes.
    File,
    /// A data directory that was absent or empty when reconcile started a component on it.
    DataDir,
    /// The server's Swarm membership (name: `swarm`).
    Swarm,
    /// A package that reconcile installed.
    Package,
    /// etcd here has been part of a formed cluster (name: the cluster's token): never `new` again.
    EtcdFormed,
}

impl ClaimKind {
    /// All kinds, for parsers.
    pub const ALL: [Self; 5] =
        [Self::File, Self::DataDir, Self::Swarm, Self::Package, Self::EtcdFormed];

    /// The word in the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::DataDir => "data-dir",
            Self::Swarm => "swarm",
            Self::Package => "package",
            Self::EtcdFormed => "etcd-formed",
        }
    }
}

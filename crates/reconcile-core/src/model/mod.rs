//! The vocabulary: what is desired, what is observed, and the names of things.
//! Plain data; no I/O, no clock, no randomness.

mod access;
mod content;
mod host;
mod names;
mod observation;
mod pause;
mod postgres;
mod revision;
mod swarm;

pub use access::{AccessNote, AccessState};
pub use content::{Content, SecretText, sha256_hex};
pub use host::{
    Changed, Claim, ClaimKind, DataDirFact, DiskFact, DockerFact, FileFact, FileKind, HostFacts,
    Listener, LocalSwarm, LocalSwarmState, Manifest, OsFact, Owed, PackageFact, UnitFact,
};
pub use names::{HostName, ObjectId};
pub use observation::{Observation, Observed};
pub use pause::PauseNote;
pub use postgres::{
    ArchiverFact, DatabaseFact, EtcdFact, EtcdMemberFact, PatroniFact, PatroniRole,
    ReplicationFact, RoleFact, SettingFact, SqlFacts,
};
pub use revision::{RefusedSource, Revision};
pub use swarm::{
    ConfigFact, FileMount, GivenUp, NetworkAttachment, NetworkFact, NetworkSpec, NodeFact,
    PublishedPort, ServiceFact, ServiceMode, ServiceSpec, SwarmFacts, TaskFact, UpdateRule,
};

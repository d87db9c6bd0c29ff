//! What can be done to the world: a closed list, each with all it needs, so that carrying one out
//! leaves nothing to choose.
//!
//! The list itself is a safety rule: nothing here deletes or initialises a data directory or promotes
//! a server. A member of etcd or the Swarm is removed only where what speaks for it is seen once more
//! in that moment.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    desired::Login,
    model::{Claim, Content, HostName, NetworkSpec, ServiceSpec},
};

/// One effect. Each is idempotent: carried out again after a crash it finishes or does nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// On one server, through its shell.
    Host(HostName, HostAction),
    /// Through Patroni's REST interface on that server.
    Patroni(HostName, PatroniAction),
    /// Through the Docker API of that server's engine.
    Swarm(HostName, SwarmAction),
}

/// Effects on a server. Every claim is appended to the manifest and synced *before* the effect.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostAction {
    /// Appends claims (and the cluster's name) to the manifest; nothing else.
    Claim {
        /// Cluster that the server now belongs to.
        cluster: String,
        /// Claims.
        claims: Vec<Claim>,
    },
    /// `apt-get install`, with the packages' own services kept from starting
    /// (a `policy-rc.d` that forbids, removed on every way out) and existing
    /// configuration files kept.
    InstallPackages {
        /// Packages with the version to pin, if any.
        packages: Vec<(String, Option<String>)>,
        /// Cluster's name for the manifest.
        cluster: String,
        /// Claims written before.
        claims: Vec<Claim>,
        /// Units that the packages bring and that must be neither enabled nor started by them.
        silence: Vec<String>,
        /// Units to enable and start after (the Docker engine).
        start: Vec<String>,
        /// REST URL of the Patroni here, where what is half installed is finished and it must not be
        /// the primary's by its own word.
        replica: Option<String>,
    },
    /// `apt-get install` of newer versions of what is installed, never of older ones, with every
    /// service kept from being started or restarted. Before anything is replaced it is noted which
    /// units run what will be: the note names that very run of the unit, so that it counts until the
    /// unit was started anew, by whomever.
    UpgradePackages {
        /// Packages with the version to come to.
        packages: Vec<(String, String)>,
        /// Units whose program they bring.
        outdates: Vec<String>,
        /// REST URL of the Patroni here, where it must not be the primary's by its own word.
        replica: Option<String>,
    },
    /// Writes a file atomically: temporary file in the same directory, owner, mode, sync, rename.
    WriteFile {
        /// The file.
        file: DesiredFile,
        /// Digest that it had when the plan was made; None: absent. Anything else at the time of
        /// writing is somebody else's change and makes the step fail.
        before: Option<String>,
        /// Claim it first (and the cluster's name, where the manifest lacks it).
        claim: bool,
        /// Unit to reload or restart in the same script after the file was replaced, if the unit
        /// is active: so no crash of ours can leave a running service on the old file.
        notify: Option<(String, UnitVerb)>,
        /// Asked on the server itself, immediately before a restart of etcd.
        quorum: Option<EtcdQuorum>,
        /// Cluster's name for the manifest.
        cluster: String,
    },
    /// Brings new access rules to one server, in the file that has them, and nothing else of that file:
    /// loads them, connects as everybody who must get in, and puts the old file back where one does
    /// not. The server's own script does that to its end, whoever listens, and notes how it ended; cut
    /// off by the server's own end it is found half-way and begun again from the old file.
    TryAccess {
        /// The file as desired.
        file: DesiredFile,
        /// Digest that it had when the plan was made.
        before: Option<String>,
        /// What is tried, and how.
        trial: Box<AccessTrial>,
    },
    /// Removes a file that reconcile claimed, if it still has this digest.
    RemoveFile {
        /// Path.
        path: String,
        /// Digest that it must have.
        digest: String,
    },
    /// Creates a directory (not its parents' modes) or sets owner and mode of it.
    EnsureDirectory {
        /// Path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Owner by name.
        owner: String,
        /// Group by name.
        group: String,
    },
    /// systemd: what to do with a unit, in this order: daemon-reload if needed, unmask, enable,
    /// then the verb; waits until the unit is active (or inactive for `Stop`).
    Unit {
        /// Unit.
        unit: String,
        /// Verb.
        verb: UnitVerb,
        /// Enable it at boot.
        enable: bool,
    },
    /// Tells a running unit what an earlier write of its file owes it: the marker that was left
    /// before the file was replaced is removed when that is done.
    Notify {
        /// Unit.
        unit: String,
        /// Reload or restart.
        verb: UnitVerb,
        /// Asked on the server itself, immediately before a restart of etcd.
        quorum: Option<EtcdQuorum>,
    },
    /// Lets the clients of the pooler for writes go on that an operator paused and did not resume.
    ResumePooler {
        /// Cluster, which names the guard.
        cluster: String,
        /// The pooler's port.
        port: u16,
    },
    /// Starts an etcd member for the first time. Claims the empty data directory, writes
    /// `/run/reconcile/etcd-bootstrap.env` with `ETCD_INITIAL_CLUSTER_STATE=<state>` (a
    /// volatile file that the unit reads after its own settings), enables and starts the
    /// unit without waiting for it (`--no-block`): a first member waits for its peers.
    /// Refuses if the data directory is populated by now.
    StartEtcd {
        /// Data directory.
        data_dir: String,
        /// `new` or `existing`.
        initial_cluster_state: String,
        /// `NAME=PEER_URL,…` as the cluster lists its members, where the file's own list is another;
        /// etcd joins only by the very list.
        initial_cluster: Option<String>,
        /// Claims written before.
        claims: Vec<Claim>,
    },
    /// Waits until the etcd member at `endpoint` reports health (which needs quorum), then removes
    /// the bootstrap file and claims `EtcdFormed`.
    AwaitEtcd {
        /// Client URL, such as `http://192.0.2.11:2379`.
        endpoint: String,
        /// Claims written after health was seen.
        claims: Vec<Claim>,
    },
    /// Changes etcd's membership by one, from the server that it is about. Nothing is changed unless
    /// every member at `via` is healthy in that moment, and what the change rests on still holds there.
    EtcdMembership {
        /// What is changed.
        change: EtcdChange,
        /// Client URLs of members; the first is told.
        via: Vec<String>,
        /// etcd's data directory.
        data_dir: String,
        /// The cluster's token, for the claim of having been part of it.
        token: String,
    },
    /// Enables and starts Patroni and waits for its role and state at `endpoint`.
    StartPatroni {
        /// REST URL, such as `http://192.0.2.11:8008`.
        endpoint: String,
        /// PostgreSQL's data directory.
        data_dir: String,
        /// Claims written before (the data directory, if it is absent or empty by now).
        claims: Vec<Claim>,
        /// What to wait for.
        until: PatroniGoal,
    },
    /// Stops and disables Patroni, and so PostgreSQL, on a server that leaves. Refused while it is the
    /// primary by its own word. The data stay.
    StopPatroni {
        /// REST URL.
        endpoint: String,
    },
    /// Restarts a replica's Patroni, and so PostgreSQL, where it still is the run that an upgrade has
    /// outdated; then waits until the replica streams again and lags little. Refused while it is the
    /// primary by its own word.
    RestartPatroni {
        /// REST URL.
        endpoint: String,
        /// PostgreSQL's data directory.
        data_dir: String,
        /// Bytes that it may lag in the end.
        max_lag_bytes: u64,
    },
    /// Runs SQL as the operating-system user `postgres` through the Unix socket, on standard
    /// input, stopping at the first error; not in one transaction.
    Sql {
        /// Socket directory.
        socket_dir: String,
        /// Port.
        port: u16,
        /// Database.
        database: String,
        /// Statements; may hold password verifiers.
        sql: Content,
    },
}

/// A trial of access rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessTrial {
    /// Names the rules in the server's note.
    pub digest: String,
    /// Lines of pg_hba.conf.
    pub lines: Vec<String>,
    /// Who must get in. No password is sent: being asked for one is being let in.
    pub logins: Vec<Login>,
    /// Only put back what a trial that was cut off replaced.
    pub back: bool,
    /// PostgreSQL's data directory.
    pub data_dir: String,
    /// PostgreSQL's programs.
    pub bin_dir: String,
    /// Directory of PostgreSQL's socket.
    pub socket_dir: String,
    /// PostgreSQL's port.
    pub port: u16,
    /// The plan saw a primary here. What is a primary only by now is not tried on.
    pub primary: bool,
    /// Seconds in which Patroni has had a round.
    pub notice_seconds: u64,
}

/// A change of etcd's membership. Each that was made already is success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EtcdChange {
    /// Adds this server as a learner, which has no vote. Refused where its data directory holds
    /// anything, or where it was part of the cluster.
    Add {
        /// Its peer URL.
        peer_url: String,
    },
    /// Gives a learner a vote; refused by etcd until it has caught up, which is waited for.
    Promote {
        /// Member id, decimal.
        id: String,
    },
    /// Removes this server's member, since the server leaves the cluster. Refused while Patroni runs
    /// here. Its data stay.
    Leave {
        /// Member id, decimal.
        id: String,
    },
    /// Removes the member that stood here before this server was set up anew. Refused where the data
    /// directory holds anything, or where this server was part of the cluster.
    Forget {
        /// Member id, decimal.
        id: String,
    },
}

/// What must hold in the moment in which a member of etcd is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EtcdQuorum {
    /// The member's own client URL; after the restart it is awaited to be healthy again.
    pub member: String,
    /// Client URLs of the others.
    pub peers: Vec<String>,
    /// How many of those must be healthy.
    pub needed: usize,
}

/// What Patroni is awaited to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PatroniGoal {
    /// A running primary (`GET /primary` answers 200).
    Primary,
    /// A running replica (`GET /replica` answers 200) that streams.
    Replica,
    /// A running member of either role.
    Either,
}

/// systemd verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum UnitVerb {
    /// Start it if it is not active.
    Start,
    /// Stop it and disable it.
    Stop,
    /// Restart it.
    Restart,
    /// Reload it.
    Reload,
    /// Only enable or disable.
    Keep,
}

/// Effects through Patroni.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PatroniAction {
    /// `PATCH /config` with this JSON object; keys with null are removed.
    PatchConfig {
        /// The patch as canonical JSON text.
        patch: String,
        /// Seconds after which every member has noticed it; 0 where that need not be awaited.
        settle_seconds: u64,
    },
    /// `POST /restart` of this member only, on condition that it is a replica and still runs with
    /// `runs`; then waits until it streams again and lags little. Patroni is given time to notice
    /// first that a restart is needed.
    RestartReplica {
        /// What the plan saw it run with that is to change. Where this and `replaced` say nothing,
        /// Patroni's own word counts.
        runs: BTreeMap<String, String>,
        /// The process that the plan saw run a program that was replaced since.
        replaced: Option<u32>,
        /// Seconds in which every Patroni has had a round.
        notice_seconds: u64,
        /// PostgreSQL's data directory.
        data_dir: String,
        /// Bytes that it may lag in the end.
        max_lag_bytes: u64,
    },
    /// A transaction, which the engine carries out: pauses the poolers, asks Patroni to hand over
    /// from this member to `candidate`, waits for every router, resumes.
    HandOver {
        /// The primary to be.
        candidate: HostName,
        /// Nodes with a pooler and a router.
        nodes: Vec<HostName>,
    },
    /// The same transaction with a restart of the primary where it is, for what no replica can
    /// take over: lowering what a standby must not have less of, or a single server.
    RestartPrimary {
        /// What the plan saw it run with that is to change. Where this and `replaced` say nothing,
        /// Patroni's own word counts.
        runs: BTreeMap<String, String>,
        /// The process that the plan saw run a program that was replaced since.
        replaced: Option<u32>,
        /// PostgreSQL's data directory.
        data_dir: String,
        /// Nodes with a pooler and a router.
        nodes: Vec<HostName>,
    },
}

impl PatroniAction {
    /// Carried out by the engine effect by effect, with a way back from each.
    pub fn is_transaction(&self) -> bool {
        matches!(self, Self::HandOver { .. } | Self::RestartPrimary { .. })
    }
}

/// Effects through the Docker API.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SwarmAction {
    /// `POST /swarm/init`, then labels the Swarm with the cluster's name.
    Init {
        /// Address that peers use.
        advertise: String,
        /// Labels of the Swarm.
        labels: BTreeMap<String, String>,
    },
    /// Labels a Swarm that reconcile claimed but did not get to label.
    Label {
        /// Labels of the Swarm.
        labels: BTreeMap<String, String>,
    },
    /// `POST /swarm/join` on this server, with a token asked from the manager `via`.
    Join {
        /// Address that peers use.
        advertise: String,
        /// Join as a manager.
        manager: bool,
        /// A server that is a manager now.
        via: HostName,
        /// Manager addresses with port to join.
        remote: Vec<String>,
    },
    /// Changes a node's role.
    SetRole {
        /// Node id.
        node_id: String,
        /// Manager or worker.
        manager: bool,
    },
    /// Takes all tasks off a node that leaves, and waits until none runs there.
    Drain {
        /// Node id.
        node_id: String,
    },
    /// `POST /swarm/leave` on this server, never by force: a manager is refused.
    Leave,
    /// Removes a node that is down: takes its role as a manager, then its entry. One that
    /// does not become `down` in time is left alone; one that is gone is success.
    RemoveNode {
        /// Node id.
        node_id: String,
    },
    /// Creates an overlay network.
    CreateNetwork(NetworkSpec),
    /// Creates a config; one with this name and our label that exists already is success.
    CreateConfig(SwarmFile),
    /// Creates a secret; one with this name and our label that exists already is success.
    CreateSecret(SwarmFile),
    /// Removes a config of ours that no service uses.
    RemoveConfig {
        /// Full name.
        name: String,
    },
    /// Removes a secret of ours that no service uses.
    RemoveSecret {
        /// Full name.
        name: String,
    },
    /// Creates a service and waits until its tasks run on every node that they should.
    CreateService {
        /// The service.
        spec: Box<ServiceSpec>,
        /// How many tasks to wait for.
        tasks: usize,
    },
    /// Updates a service of ours, only if its version is still this one, and waits for the tasks.
    UpdateService {
        /// The service.
        spec: Box<ServiceSpec>,
        /// Version index that the plan was made from.
        version: u64,
        /// How many tasks to wait for.
        tasks: usize,
        /// Ids of the nodes that the update is yet to come to: each is marked and set to `pause` before it,
        /// which keeps the tasks that run there.
        waits: Vec<String>,
        /// The servers whose tasks are replaced while others wait; empty where the order is Docker's.
        first: Vec<HostName>,
        /// Nobody waited before: where the first servers do not serve as they are, and others do, nothing
        /// is begun.
        begins: bool,
    },
    /// Has what is new in all services come to a node that waits: first the servers that have it must serve,
    /// then it takes tasks again and loses its mark, and its new tasks are waited for. Where none of those
    /// serves and others do, the services go back to what they were instead. A node that somebody drained
    /// meanwhile only loses the mark.
    UpdateNode {
        /// Node id.
        node_id: String,
        /// Full names of the services whose tasks must go on running there.
        services: Vec<String>,
        /// How long they must, in milliseconds.
        steady_ms: u64,
        /// The servers that have the update.
        updated: Vec<HostName>,
        /// The node lost a task, which Docker does not start anew while it waits. It is not kept waiting for
        /// a proof: where none can be had the services go back as well.
        lost: bool,
    },
    /// Waits until the tasks of a service run; changes nothing.
    AwaitService {
        /// Full name.
        name: String,
        /// How many tasks to wait for.
        tasks: usize,
    },
}

impl Action {
    /// Brings what was begun on one node to the next. To leave it half done is worse than a restart outside
    /// of a window, and it undoes no drift.
    pub fn ends_a_rollout(&self) -> bool {
        matches!(self, Self::Swarm(_, SwarmAction::UpdateNode { .. }))
    }
}

/// A Swarm config or secret to create.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SwarmFile {
    /// Full content-hashed name.
    pub name: String,
    /// Content.
    pub content: Content,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A file as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredFile {
    /// Absolute path.
    pub path: String,
    /// Exact bytes.
    pub content: Content,
    /// Permission bits.
    pub mode: u32,
    /// Owner by name.
    pub owner: String,
    /// Group by name.
    pub group: String,
}

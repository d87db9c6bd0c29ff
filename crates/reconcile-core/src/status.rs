//! Status: conditions in the manner of Kubernetes and a row for each server, wholly rebuilt from
//! one pass's observations, plan and proof.

mod maintenance;
mod services;
mod source;
mod topology;

use serde::Serialize;

use services::{services, utilities};

pub use maintenance::Maintenance;
pub use services::{ServiceStatus, TaskStatus};
pub use source::NotTaken;
pub use topology::Leaving;

use crate::{
    desired::{Desired, patroni::UNIT as PATRONI},
    model::{
        ArchiverFact, HostFacts, HostName, LocalSwarmState, ObjectId, Observation, Observed,
        PatroniRole,
    },
    plan::{Held, Plan, Verb, counted, differs},
    verify::{Serves, VerifyReport, missing_primary},
};

/// The status of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the cluster.
    pub cluster: String,
    /// Digest of the desired state that this status is about.
    pub observed_generation: String,
    /// Conditions.
    pub conditions: Vec<Condition>,
    /// Maintenance windows, where the file has any.
    pub maintenance: Option<Maintenance>,
    /// Servers.
    pub hosts: Vec<HostStatus>,
    /// Services of the stack.
    pub services: Vec<ServiceStatus>,
    /// Steps that the plan would take, in words.
    pub pending: Vec<String>,
    /// Steps that a pause holds, in the order in which they would be done.
    pub paused: Vec<PausedStep>,
    /// What comes by itself after the pending steps.
    pub queued: Vec<Held>,
    /// What is held, and why; what a pause holds among it.
    pub held: Vec<Held>,
    /// The last service proof, if one was made.
    pub proof: Option<VerifyReport>,
}

/// A step that a pause holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PausedStep {
    /// What would be done.
    pub verb: Verb,
    /// To what.
    pub object: ObjectId,
    /// What differs there, where the step would undo that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<String>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type, such as `Ready`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True`, `False`, `Unknown`.
    pub status: Truth,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Condition {
    /// The status that it has while all is well.
    pub fn wanted(kind: &str) -> Truth {
        truth(!matches!(
            kind,
            "Reconciling" | "Stalled" | "Paused" | "Leaving" | "OrphanedMember" | "LockedOut"
        ))
    }
}

/// Three-valued truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Truth {
    /// Yes.
    True,
    /// No.
    False,
    /// Not known.
    Unknown,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Name.
    pub name: HostName,
    /// Address.
    pub address: String,
    /// Why it is unknown; None: it could be looked at.
    pub unreachable: Option<String>,
    /// Whether it answers at all: one that is unknown may do so, and refuse the login.
    pub answers: bool,
    /// How far it is, where it is to leave.
    pub leaving: Option<Leaving>,
    /// etcd: `leader`, `member`, `unhealthy`, `down`, `-` where it has no member.
    pub etcd: String,
    /// PostgreSQL: `primary`, `replica`, … or `down`, `-`.
    pub role: String,
    /// Patroni's state.
    pub state: String,
    /// Timeline.
    pub timeline: Option<u64>,
    /// Distance to the leader in bytes.
    pub lag_bytes: Option<u64>,
    /// How WAL is archived, of a primary that archives.
    pub archiver: Option<ArchiverFact>,
    /// Swarm: `leader`, `manager`, `worker`, `drain`, `outside`, …
    pub swarm: String,
    /// Running tasks of the stack here.
    pub tasks: Option<usize>,
    /// Versions that run here.
    pub versions: Versions,
}

/// Versions that run on a server; None: not there, or not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// etcd, such as `3.4.23`.
    pub etcd: Option<String>,
    /// Patroni, such as `3.0.2`.
    pub patroni: Option<String>,
    /// PostgreSQL, such as `15.18`.
    pub postgresql: Option<String>,
    /// The Docker engine.
    pub docker: Option<String>,
}

/// The status that a pass shows.
pub fn status(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    proof: Option<VerifyReport>,
) -> Status {
    let hosts: Vec<_> =
        desired.servers.keys().map(|host| host_status(desired, observed, host)).collect();
    let services = services(desired, observed);
    let mut conditions = vec![Condition {
        kind: "Reconciling",
        status: truth(!plan.steps.is_empty()),
        reason: if plan.steps.is_empty() { "NothingToDo" } else { "StepsPending" },
        message: format!("{} pending", counted(plan.steps.len(), "step")),
    }];
    // What a pause holds is somebody's will, and a condition of its own.
    let by_pause = |held: &&Held| plan.paused().any(|step| step.object == held.object);
    let stuck = || plan.stuck().filter(|held| !by_pause(held));
    let stalled = stuck().count();
    conditions.push(Condition {
        kind: "Stalled",
        status: truth(stalled > 0),
        reason: if stalled > 0 {
            "StepsHeld"
        } else if plan.held.is_empty() {
            "NothingHeld"
        } else {
            "StepsQueued"
        },
        message: match (stuck().next(), plan.held.len()) {
            (Some(held), _) => {
                format!("{stalled} held, first {}: {}", held.object, held.reason)
            }
            (None, 0) => "nothing is held".to_owned(),
            (None, 1) => "1 waits for its turn, a window or the end of a pause".to_owned(),
            (None, queued) => {
                format!("{queued} wait for their turn, a window or the end of a pause")
            }
        },
    });
    let (pause, only_looks) = (observed.pause(), desired.only_looks.as_ref());
    conditions.push(Condition {
        kind: "Paused",
        status: truth(only_looks.is_some() || pause.is_some() || desired.policy.pause),
        reason: match pause {
            _ if only_looks.is_some() => "ByBrokenFile",
            Some(_) => "ByCommand",
            None if desired.policy.pause => "ByPolicy",
            None => "NotPaused",
        },
        message: match pause {
            _ if only_looks.is_some() => only_looks.cloned().unwrap_or_default(),
            Some(pause) => format!("nothing is changed; paused {pause}"),
            None if desired.policy.pause => "nothing is changed; policy.pause is set".to_owned(),
            None => "changes are made".to_owned(),
        },
    });
    conditions.push(layer("EtcdHealthy", "etcd members healthy", &hosts, |host| {
        (&host.etcd, matches!(host.etcd.as_str(), "leader" | "member"))
    }));
    conditions.push(database(&hosts, || missing_primary(desired, observed)));
    conditions.push(layer("SwarmHealthy", "nodes in the Swarm, and active", &hosts, |host| {
        let fit = matches!(host.swarm.as_str(), "leader" | "manager" | "worker");
        // What leaves is drained on the way.
        (&host.swarm, fit || host.leaving.is_some() && host.swarm == "drain")
    }));
    conditions.push(utilities(&services, observed.swarm.reason().filter(|_| !services.is_empty())));
    conditions.push(topology::leaving(desired, observed));
    conditions.push(topology::orphans(desired, observed));
    conditions.push(locked_out(desired));
    let mut status = Status {
        cluster: desired.cluster.clone(),
        observed_generation: desired.digest(),
        conditions,
        maintenance: maintenance::maintenance(desired, observed, plan),
        hosts,
        services,
        pending: plan
            .steps
            .iter()
            .map(|step| format!("{} {}", step.verb.word(), step.object))
            .collect(),
        paused: plan
            .paused()
            .map(|step| PausedStep {
                verb: step.verb,
                object: step.object.clone(),
                differs: differs(step),
            })
            .collect(),
        queued: plan.queued().cloned().collect(),
        held: plan.stalled().cloned().collect(),
        proof: None,
    };
    let ready = status.ready(proof.as_ref());
    status.conditions.insert(0, ready);
    if let Some(proof) = proof {
        status.prove(proof);
    }
    status
}

fn truth(value: bool) -> Truth {
    if value { Truth::True } else { Truth::False }
}

impl Status {
    /// Takes in a proof that was made after the rest.
    pub fn prove(&mut self, proof: VerifyReport) {
        self.replace(self.ready(Some(&proof)));
        for service in &mut self.services {
            let name = service.name.clone();
            for task in &mut service.tasks {
                let silent = proof.proofs.iter().any(|proof| {
                    let parts = &mut proof.silent.iter();
                    proof.host.as_ref() == Some(&task.host)
                        && parts.any(|part| {
                            name.strip_suffix(part).is_some_and(|stack| stack.ends_with('_'))
                        })
                });
                task.silent = silent && task.state == "running";
            }
        }
        let swarm = self.conditions.iter().find(|old| old.kind == "UtilitiesHealthy");
        if swarm.is_some_and(|old| old.status != Truth::Unknown) {
            self.replace(utilities(&self.services, None));
        }
        self.proof = Some(proof);
    }

    /// What was proven is too long ago to count.
    pub fn unprove(&mut self) {
        self.prove(VerifyReport::default());
        self.replace(self.ready(None));
        self.proof = None;
    }

    fn replace(&mut self, condition: Condition) {
        if let Some(old) = self.conditions.iter_mut().find(|old| old.kind == condition.kind) {
            *old = condition;
        }
    }

    /// Whether clients are served comes first: whatever is pending or held is of no use to them.
    fn ready(&self, proof: Option<&VerifyReport>) -> Condition {
        let pending = self.pending.len();
        let besides = match pending {
            0 => String::new(),
            _ => format!("; {} pending", counted(pending, "step")),
        };
        let unseen: Vec<_> = self.hosts.iter().filter(|host| host.unreachable.is_some()).collect();
        let (status, reason, message) = match (proof, self.held.as_slice()) {
            (Some(proof), _) if proof.fails() => {
                let reason = match proof.serves() {
                    Serves::Partly => "PartlyServing",
                    Serves::NoWrites => "NoWrites",
                    Serves::Not => "NotServing",
                    Serves::Wholly | Serves::Unknown | Serves::InDoubt => "ProofFailed",
                };
                (Truth::False, reason, proof.told() + &besides)
            }
            _ if pending > 0 => {
                (Truth::False, "NotConverged", format!("{} pending", counted(pending, "step")))
            }
            // Nothing is known to be wrong.
            (Some(proof), _) if !proof.holds() => (Truth::Unknown, "HostUnknown", proof.told()),
            (None, _) if !unseen.is_empty() => {
                let names: Vec<_> = unseen.iter().map(|host| host.name.as_str()).collect();
                let message = format!("service was not proven; not observed: {}", names.join(", "));
                (Truth::Unknown, "HostUnknown", message)
            }
            (_, [first, ..]) => {
                let held = counted(self.held.len(), "object");
                let message = format!("{held} held, first {}: {}", first.object, first.reason);
                (Truth::False, "Held", message)
            }
            (Some(proof), _) => (
                Truth::True,
                "Serving",
                format!("as desired, and {} proofs of service hold", proof.proofs.len()),
            ),
            (None, _) => {
                (Truth::Unknown, "NotProven", "as desired; service was not proven".to_owned())
            }
        };
        Condition { kind: "Ready", status, reason, message }
    }
}

/// Whether the access rules keep somebody out who must come in, be they in force or not.
fn locked_out(desired: &Desired) -> Condition {
    let warning = desired.patroni.access.warning();
    Condition {
        kind: "LockedOut",
        status: truth(warning.is_some()),
        reason: if warning.is_some() { "ByRules" } else { "NobodyKnown" },
        message: warning
            .unwrap_or_else(|| "no access rule is certain to lock out who must come in".to_owned()),
    }
}

/// The condition of a layer: of each server the word that the layer has for it, and whether that is well.
fn layer(
    kind: &'static str,
    what: &str,
    hosts: &[HostStatus],
    word: impl Fn(&HostStatus) -> (&str, bool),
) -> Condition {
    let concerned: Vec<_> =
        hosts.iter().filter(|host| word(host).0 != "-").map(|host| (host, word(host))).collect();
    let good = concerned.iter().filter(|(_, (_, fit))| *fit).count();
    let unknown: Vec<_> = concerned
        .iter()
        .filter(|(_, (word, _))| *word == "unknown")
        .map(|(host, _)| host.name.as_str())
        .collect();
    let wrong: Vec<_> = concerned
        .iter()
        .filter(|(_, (word, fit))| !fit && *word != "unknown")
        .map(|(host, (word, _))| format!("{}: {word}", host.name))
        .collect();
    let (status, reason) = if good == concerned.len() {
        (Truth::True, "AllWell")
    } else if !wrong.is_empty() {
        (Truth::False, "Degraded")
    } else {
        (Truth::Unknown, "HostUnknown")
    };
    let mut message = if good == 0 && wrong.is_empty() && !unknown.is_empty() {
        // None of them is known not to be.
        format!("it is not known which are {}", what.replace(", and active", ""))
    } else {
        format!("{good} of {} {what}", concerned.len())
    };
    if !wrong.is_empty() {
        message.push_str(&format!("; {}", wrong.join(", ")));
    }
    if !unknown.is_empty() {
        message.push_str(&format!("; not observed: {}", unknown.join(", ")));
    }
    Condition { kind, status, reason, message }
}

/// The condition of PostgreSQL: without a primary replicas serve no writes, however many run.
fn database(hosts: &[HostStatus], missing: impl Fn() -> String) -> Condition {
    let kind = "DatabaseHealthy";
    let members = || hosts.iter().filter(|host| host.role != "-");
    let leads = |host: &HostStatus| matches!(host.role.as_str(), "primary" | "standby leader");
    if members().next().is_none() || members().any(leads) {
        return layer(kind, "PostgreSQL members serve", hosts, |host| {
            (&host.role, matches!(host.role.as_str(), "primary" | "replica"))
        });
    }
    let replicas: Vec<_> =
        members().filter(|host| host.role == "replica").map(|host| host.name.as_str()).collect();
    let unknown = || members().filter(|host| host.role == "unknown");
    let run = match replicas.as_slice() {
        [] => "no member is known to run".to_owned(),
        [one] => format!("{one} runs as a replica"),
        many => format!("{} run as replicas", many.join(", ")),
    };
    if unknown().next().is_none() {
        let message = format!("no primary; {}", run.replace("is known to run", "runs"));
        return Condition { kind, status: Truth::False, reason: "NoPrimary", message };
    }
    // A replica that streams has a primary; one that may not be looked at may be it.
    let streams = members().any(|host| host.role == "replica" && host.state == "streaming");
    let dead = !streams && !replicas.is_empty() && unknown().all(|host| !host.answers);
    let (status, reason) =
        if dead { (Truth::False, "NoPrimary") } else { (Truth::Unknown, "PrimaryUnknown") };
    Condition { kind, status, reason, message: format!("{}; {run}", missing()) }
}

fn host_status(desired: &Desired, observed: &Observed, host: &HostName) -> HostStatus {
    let server = &desired.servers[host];
    let mut row = HostStatus {
        name: host.clone(),
        address: server.address.clone(),
        unreachable: None,
        answers: true,
        leaving: topology::of(desired, observed, host),
        etcd: "-".to_owned(),
        role: "-".to_owned(),
        state: String::new(),
        timeline: None,
        lag_bytes: None,
        archiver: None,
        swarm: "-".to_owned(),
        tasks: None,
        versions: Versions::default(),
    };
    let facts = match observed.hosts.get(host) {
        Some(Observation::Known(facts)) => facts,
        other => {
            let reason = other.and_then(Observation::reason).unwrap_or("it was not observed");
            row.unreachable = Some(reason.to_owned());
            row.answers = observed.barred.contains(host);
            let unknown = || "unknown".to_owned();
            if desired.etcd.members.contains_key(host) {
                row.etcd = unknown();
            }
            if desired.patroni.members.contains_key(host) {
                row.role = unknown();
            }
            if desired.swarm.nodes.iter().any(|(node, _)| node == host) {
                row.swarm = unknown();
            }
            return row;
        }
    };
    row.versions = versions(facts);
    row.archiver = facts.sql.present().and_then(|sql| sql.archiver.clone());
    // What has stopped for good on a server that leaves is not missed.
    let gone = |absent: bool| desired.leaves(host) && absent;
    if desired.etcd.members.contains_key(host) && !gone(facts.etcd.is_absent()) {
        etcd_word(facts).clone_into(&mut row.etcd);
    }
    if desired.patroni.members.contains_key(host) && !gone(facts.patroni.is_absent()) {
        fill_database(&mut row, facts);
    }
    if desired.swarm.nodes.iter().any(|(node, _)| node == host) {
        fill_swarm(&mut row, facts, desired, observed);
        if gone(row.swarm == "outside" || row.swarm == "no engine") {
            "-".clone_into(&mut row.swarm);
        }
    }
    row
}

fn versions(facts: &HostFacts) -> Versions {
    let patroni = facts.patroni.present();
    Versions {
        etcd: facts.etcd.present().map(|etcd| etcd.version.clone()),
        patroni: patroni.map(|patroni| patroni.version.clone()),
        // 150018 is 15.18.
        postgresql: patroni
            .map(|patroni| patroni.server_version)
            .filter(|version| *version > 0)
            .map(|version| format!("{}.{}", version / 10_000, version % 10_000)),
        docker: facts.docker.present().map(|docker| docker.version.clone()),
    }
}

fn etcd_word(facts: &HostFacts) -> &'static str {
    match &facts.etcd {
        Observation::Known(Some(etcd)) if etcd.healthy && etcd.leader_id == etcd.member_id => {
            "leader"
        }
        Observation::Known(Some(etcd)) if etcd.healthy => "member",
        Observation::Known(Some(_)) => "unhealthy",
        Observation::Known(None) => "down",
        Observation::Unknown { .. } => "unknown",
    }
}

/// That Patroni does not run, where its unit says so: its own last words, or their lack, do not.
fn stopped(facts: &HostFacts) -> Option<&'static str> {
    match facts.units.get(PATRONI)?.active.as_str() {
        "inactive" => Some("Patroni is stopped"),
        "failed" => Some("Patroni has failed"),
        _ => None,
    }
}

fn fill_database(row: &mut HostStatus, facts: &HostFacts) {
    if let Some(state) = stopped(facts) {
        "down".clone_into(&mut row.role);
        state.clone_into(&mut row.state);
        return;
    }
    match &facts.patroni {
        Observation::Known(Some(patroni)) => {
            let role = match patroni.role {
                _ if patroni.state != "running" && patroni.state != "streaming" => "down",
                PatroniRole::Primary => "primary",
                PatroniRole::Replica => "replica",
                PatroniRole::StandbyLeader => "standby leader",
                PatroniRole::Other => "none",
            };
            role.clone_into(&mut row.role);
            row.state = if patroni.streaming && patroni.role == PatroniRole::Replica {
                "streaming".to_owned()
            } else {
                patroni.state.clone()
            };
            row.timeline = (patroni.timeline > 0).then_some(patroni.timeline);
            row.lag_bytes = patroni.lag_bytes;
        }
        Observation::Known(None) => "down".clone_into(&mut row.role),
        Observation::Unknown { .. } => "unknown".clone_into(&mut row.role),
    }
}

fn fill_swarm(row: &mut HostStatus, facts: &HostFacts, desired: &Desired, observed: &Observed) {
    let docker = match &facts.docker {
        Observation::Known(Some(docker)) => docker,
        Observation::Known(None) => {
            "no engine".clone_into(&mut row.swarm);
            return;
        }
        Observation::Unknown { .. } => {
            "unknown".clone_into(&mut row.swarm);
            return;
        }
    };
    if docker.swarm.state != LocalSwarmState::Active {
        "outside".clone_into(&mut row.swarm);
        return;
    }
    let Some(swarm) = observed.swarm.present() else {
        "unknown".clone_into(&mut row.swarm);
        return;
    };
    row.swarm = match swarm.nodes.get(&docker.swarm.node_id) {
        Some(node) if node.state != "ready" => node.state.clone(),
        // Somebody's will, which takes our tasks away.
        Some(node) if node.availability == "drain" => node.availability.clone(),
        Some(node) if node.availability != "active" && !node.waits => node.availability.clone(),
        Some(node) if node.leader => "leader".to_owned(),
        Some(node) if node.manager => "manager".to_owned(),
        Some(_) => "worker".to_owned(),
        None => "another Swarm".to_owned(),
    };
    let tasks = desired.swarm.services.iter().filter_map(|spec| swarm.services.get(&spec.name));
    row.tasks = Some(
        tasks
            .flat_map(|service| &service.tasks)
            .filter(|task| task.node_id == docker.swarm.node_id && task.state == "running")
            .count(),
    );
}

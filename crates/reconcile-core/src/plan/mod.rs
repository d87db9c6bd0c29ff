//! The plan: every step between what is observed and what is desired, in a safe order, and
//! everything that is held with its reason.
//!
//! Total, pure and deterministic: it never fails (a doubt is a hold), and the same two inputs
//! give the same bytes.

mod access;
mod arrange;
mod display;
mod draft;
pub(crate) mod drift;
mod etcd;
mod identity;
mod leaving;
mod owed;
pub(crate) mod patroni;
mod probe;
mod roll;
mod servers;
mod sql;
mod stranger;
mod swarm;
mod upgrade;

use std::collections::BTreeMap;

use serde::Serialize;

pub use display::{counted, text};
pub use drift::{differs, drifted, kept, sent, shown};
pub use probe::{probe_request, swarm_request, swarm_via, verify_request};
pub use roll::{How, Restart};

use crate::{
    action::{Action, HostAction, UnitVerb},
    desired::Desired,
    model::{HostName, ObjectId, Observed},
};

/// Why a file is written anew; what is known of its last change comes after.
const DIFFERS: &str = "it differs";

/// Fields of a file: its digest, and a line that it has or lacks.
const CONTENT: &str = "content";
const LINE: &str = "line";

/// Holds that wait for one another in a row, as a server that is added waits for the primary's file,
/// and that for its trial.
const CHAIN: usize = 4;

/// A plan. It does nothing until it is executed.
#[must_use = "a plan does nothing until it is executed"]
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Name of the cluster.
    pub cluster: String,
    /// Digest of the desired state that it was made from.
    pub desired_digest: String,
    /// Digest of the observations that it was made from.
    pub observed_digest: String,
    /// Steps; each comes after all that it needs.
    pub steps: Vec<Step>,
    /// What is not done now, and why.
    pub held: Vec<Held>,
    /// Restarts of PostgreSQL that follow the steps one after the other, in that order; a server that
    /// restarts twice is there twice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<Restart>,
    /// While it is paused: the plan as it would be. Nothing of it is ever executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_pause: Option<Box<Plan>>,
    /// What a person should look at in the desired state; no step follows from it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl Plan {
    /// What is held and will not come to pass by itself when the steps are done.
    pub fn stalled(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| !self.comes(held, CHAIN, false))
    }

    /// What comes by itself after the steps.
    pub fn queued(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| self.comes(held, CHAIN, false))
    }

    /// The steps that a pause holds, in order.
    pub fn paused(&self) -> impl Iterator<Item = &Step> {
        let without = self.without_pause.iter().flat_map(|plan| &plan.steps);
        without.filter(|step| !self.steps.iter().any(|own| own.object == step.object))
    }

    /// What is held and neither comes by itself nor with a maintenance window.
    pub fn stuck(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| !self.comes(held, CHAIN, true))
    }

    /// What it waits for comes by itself; with `windows`, a window that will open does.
    fn comes(&self, held: &Held, chain: usize, windows: bool) -> bool {
        let after = |object: &ObjectId| {
            let mut holds = self.held.iter().filter(|held| held.object == *object);
            chain > 0 && holds.any(|held| self.comes(held, chain - 1, windows))
        };
        match &held.reason {
            HoldReason::OneAtATime(first) => self.planned(first) || windows && after(first),
            HoldReason::WaitsFor(object) => self.planned(object) || after(object),
            HoldReason::Window(_) => windows,
            _ => false,
        }
    }

    /// Of the restarts that are due, those that come by themselves after the steps.
    fn following(&self, mut due: Vec<Restart>) -> Vec<Restart> {
        let Some(next) = due.first().map(|next| ObjectId::Postgresql(next.host.clone())) else {
            return due;
        };
        if self.steps.iter().any(|step| step.object == next) {
            due.remove(0);
        } else if !self.queued().any(|held| held.object == next) {
            due.clear();
        }
        due
    }

    /// Why an object is held.
    fn reason(&self, object: &ObjectId) -> Option<&HoldReason> {
        self.held.iter().find(|held| held.object == *object).map(|held| &held.reason)
    }

    /// It is to be done, or would be without the pause.
    fn planned(&self, object: &ObjectId) -> bool {
        let mut steps = self.steps.iter().chain(self.without_pause.iter().flat_map(|p| &p.steps));
        steps.any(|step| step.object == *object)
    }

    /// True if there is nothing to do and nothing is held.
    pub fn is_converged(&self) -> bool {
        self.steps.is_empty() && self.held.is_empty()
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its place in the plan, from 1.
    pub id: usize,
    /// What it changes.
    pub object: ObjectId,
    /// How.
    pub verb: Verb,
    /// Field by field.
    pub changes: Vec<Change>,
    /// Why, in a few words.
    pub reason: String,
    /// What it disturbs.
    pub impact: Impact,
    /// Steps that must have succeeded before, by id.
    pub after: Vec<usize>,
    /// It counts as failed when it takes longer, in seconds.
    pub deadline_seconds: u64,
    /// The effect.
    pub action: Action,
}

impl Step {
    /// What its effect restarts or reloads besides, in words.
    pub fn disturbs(&self) -> Option<String> {
        let Action::Host(_, HostAction::WriteFile { notify: Some((unit, verb)), .. }) =
            &self.action
        else {
            return None;
        };
        let done = match verb {
            UnitVerb::Restart => "restarted",
            UnitVerb::Reload => "reloaded",
            UnitVerb::Start | UnitVerb::Stop | UnitVerb::Keep => return None,
        };
        Some(format!("{unit} {done}"))
    }
}

/// What a step does to its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Makes it.
    Create,
    /// Changes it.
    Update,
    /// Starts it.
    Start,
    /// Joins it to the others.
    Join,
    /// Waits for it.
    Await,
    /// Notes that it is ours.
    Claim,
    /// Removes it.
    Remove,
    /// Restarts it.
    Restart,
    /// Stops it for good.
    Stop,
    /// Hands its role over to another.
    HandOver,
}

impl Verb {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Start => "start",
            Self::Join => "join",
            Self::Await => "await",
            Self::Claim => "claim",
            Self::Remove => "remove",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::HandOver => "hand over",
        }
    }
}

/// What a step disturbs, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Impact {
    /// Nothing that serves.
    None,
    /// A service reads its settings again; connections stay.
    Reload,
    /// A service restarts on one host at a time; the cluster serves on.
    Restart,
    /// Another server becomes the primary; writers wait in the poolers meanwhile.
    Switchover,
}

impl Impact {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reload => "reload",
            Self::Restart => "restart",
            Self::Switchover => "switchover",
        }
    }
    /// A step of which only one may be under way in the whole cluster.
    pub fn disruptive(self) -> bool {
        self >= Self::Restart
    }
}

/// A change of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Field.
    pub field: String,
    /// Value before; None: absent.
    pub from: Option<String>,
    /// Value after; None: absent.
    pub to: Option<String>,
}

/// Something that is not done now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// What.
    pub object: ObjectId,
    /// Why not.
    pub reason: HoldReason,
}

/// Why something is not done now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "kind", content = "detail")]
pub enum HoldReason {
    /// It could not be observed.
    #[error("unknown: {0}")]
    Unknown(String),
    /// It is somebody else's.
    #[error("not made by reconcile: {0}")]
    Foreign(String),
    /// A stranger holds a port that it needs.
    #[error("port taken: {0}")]
    PortTaken(String),
    /// It needs something that is itself held.
    #[error("waits for {0}")]
    WaitsFor(ObjectId),
    /// Too few members would be left, or are there.
    #[error("quorum: {0}")]
    Quorum(String),
    /// It was tried, and is left alone for a while.
    #[error("failed and is tried again later: {0}")]
    Failed(String),
    /// Another disruptive step goes first.
    #[error("one disruptive step at a time: after {0}")]
    OneAtATime(ObjectId),
    /// Somebody paused it.
    #[error("paused: {0}")]
    Paused(String),
    /// The policy says no.
    #[error("policy: {0}")]
    Policy(String),
    /// The policy keeps it to maintenance windows, and none is open.
    #[error("policy: {0}")]
    Window(String),
    /// The policy has drift reported only.
    #[error("drift, reported only: {0}")]
    Reported(String),
    /// It cannot be done there.
    #[error("not possible: {0}")]
    Impossible(String),
    /// Only a person may decide.
    #[error("needs a person: {0}")]
    NeedsPerson(String),
}

/// What failed and is left alone for now, with the cause.
pub type SetAside = BTreeMap<ObjectId, String>;

/// The plan from `observed` to `desired`.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    plan_beside(desired, observed, &SetAside::new())
}

/// The plan in which what is set aside is held, and blocks nothing but what needs it.
pub fn plan_beside(desired: &Desired, observed: &Observed, set_aside: &SetAside) -> Plan {
    let mut drafts = draft::Drafts::default();
    let view = draft::View { desired, observed };
    servers::plan(&view, &mut drafts);
    etcd::plan(&view, &mut drafts);
    patroni::plan(&view, &mut drafts);
    upgrade::plan(&view, &mut drafts);
    roll::plan(&view, &mut drafts);
    sql::plan(&view, &mut drafts);
    swarm::plan(&view, &mut drafts);
    owed::plan(&view, &mut drafts);
    servers::plan_claims(&view, &mut drafts);
    identity::plan(&view, &mut drafts);
    leaving::hold_back(&view, &mut drafts);
    drift::plan(&view, &mut drafts);
    swarm::rollout::plan(&view, &mut drafts);
    access::plan(&view, &mut drafts);
    let arranged = |drafts: draft::Drafts, pause: Option<&HoldReason>| {
        let arrange = |drafts| arrange::arrange(drafts, desired, observed, set_aside, pause);
        let restarts = drafts.restarts.clone();
        let (mut steps, mut held) = arrange(drafts);
        if steps.is_empty() {
            let steps_of_record = drift::record(&view, &held);
            let drafts = draft::Drafts { steps: steps_of_record, held, restarts: Vec::new() };
            (steps, held) = arrange(drafts);
        }
        let mut plan = Plan {
            cluster: desired.cluster.clone(),
            desired_digest: desired.digest(),
            observed_digest: observed.digest(),
            steps,
            held,
            restarts: Vec::new(),
            without_pause: None,
            warnings: desired.patroni.access.warning().into_iter().collect(),
        };
        plan.restarts = plan.following(restarts);
        plan
    };
    let Some(pause) = arrange::pause(desired, observed) else {
        return arranged(drafts, None);
    };
    let without = arranged(drafts.clone(), None);
    let mut plan = arranged(drafts, Some(&pause));
    if without.steps.is_empty() {
        return plan;
    }
    // What is queued or held anyway is told so; the pause holds the steps.
    let paused = without
        .steps
        .iter()
        .map(|step| Held { object: step.object.clone(), reason: pause.clone() });
    let mut held: Vec<_> = without.held.iter().cloned().chain(paused).collect();
    held.retain(|held| !plan.planned(&held.object));
    held.sort_by(|a, b| a.object.cmp(&b.object).then_with(|| a.reason.cmp(&b.reason)));
    plan.held = held;
    plan.without_pause = Some(Box::new(without));
    plan
}

/// Hosts whose facts are known, in order of name.
pub fn known_hosts(observed: &Observed) -> impl Iterator<Item = &HostName> {
    observed.hosts.iter().filter(|(_, facts)| facts.known().is_some()).map(|(name, _)| name)
}

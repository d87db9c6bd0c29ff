//! Waiting until a service's tasks run, and saying what keeps them from it.
//!
//! Judged by the deadline and not by the first task that fails: a node may reject one while it
//! learns of a new network. A task counts where its node is ready and its specification is the
//! service's present one; enough of them must go on running, the same ones, for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use reconcile_core::ports::{EffectError, Retry};
use tokio::time::{Instant, sleep};

use crate::{
    convert::made_from,
    engine::{Engine, escape},
    fault::Fault,
    observe,
    wire::{Node, Service, Task},
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(400);
/// How long the same tasks must be seen running. A program that cannot bind its port or read its
/// configuration is gone well before.
pub(crate) const STEADY: Duration = Duration::from_millis(1500);

/// What to wait for.
pub(crate) struct Goal<'a> {
    /// Full name of the service.
    pub(crate) service: &'a str,
    /// How many tasks must run.
    pub(crate) tasks: usize,
    /// The node on which they must, by id; None: anywhere.
    pub(crate) node: Option<&'a str>,
    /// How long the same tasks must be seen running.
    pub(crate) steady: Duration,
    /// An update of ours is under way: a rollback or pause of it is a failure.
    pub(crate) updating: bool,
    /// Tasks that had broken before we began; their errors explain nothing.
    pub(crate) broken_before: BTreeSet<String>,
}

/// What one look shows.
struct Look {
    service: Service,
    tasks: Vec<Task>,
    nodes: BTreeMap<String, Node>,
}

/// Waits for `goal` until `deadline`.
pub(crate) async fn settle(
    engine: &Engine,
    attempt: &str,
    goal: &Goal<'_>,
    deadline: Instant,
) -> Result<(), EffectError> {
    let mut steady: Option<(BTreeSet<String>, Instant)> = None;
    let error = |cause: String, retry: Retry| {
        Err(EffectError::new(Some(engine.host()), attempt, cause, retry))
    };
    loop {
        let last = match look(engine, goal.service).await {
            Ok(look) => {
                if goal.updating
                    && let Some(verdict) = ended(&look, goal)
                {
                    return error(verdict, Retry::AfterChange);
                }
                let running = look.running(goal);
                if running.len() >= goal.tasks && !(goal.updating && look.busy()) {
                    match &steady {
                        Some((same, since)) if same.is_subset(&running) => {
                            if since.elapsed() >= goal.steady {
                                return Ok(());
                            }
                        }
                        _ => steady = Some((running, Instant::now())),
                    }
                } else {
                    steady = None;
                }
                Ok(look.trouble(goal))
            }
            Err(fault) if fault.retry() == Retry::AfterChange => {
                return Err(fault.at(engine.host(), attempt));
            }
            Err(fault) => Err(fault),
        };
        if Instant::now() + LOOK >= deadline {
            return match last {
                Ok(trouble) => error(trouble, Retry::Later),
                Err(fault) => Err(fault.at(engine.host(), attempt)),
            };
        }
        sleep(LOOK).await;
    }
}

/// Ids of the tasks of `service` that have broken so far.
pub(crate) async fn broken(engine: &Engine, service: &Service) -> Result<BTreeSet<String>, Fault> {
    let tasks = observe::tasks(engine, &[&service.id]).await?;
    Ok(tasks.into_iter().filter(Task::broke).map(|task| task.id).collect())
}

async fn look(engine: &Engine, name: &str) -> Result<Look, Fault> {
    let path = format!("/services/{}", escape(name));
    let service: Service = engine.get(&path).await?;
    let asked = [service.id.as_str()];
    let (tasks, nodes) = tokio::try_join!(observe::tasks(engine, &asked), observe::nodes(engine))?;
    Ok(Look { service, tasks, nodes })
}

/// How an update of ours ended where it did not succeed. A rollback is let run to its end.
fn ended(look: &Look, goal: &Goal<'_>) -> Option<String> {
    let status = &look.service.update_status;
    let how = match status.state.as_str() {
        "rollback_completed" => "Swarm rolled the update back",
        "rollback_paused" => "Swarm began to roll the update back and could not finish",
        "paused" => "Swarm paused the update",
        _ => return None,
    };
    let reasons = look.reasons(goal, |_| true);
    let reasons = if reasons.is_empty() { status.message.clone() } else { reasons.join("; ") };
    Some(format!("{how}: {reasons}"))
}

impl Look {
    /// Ids of the tasks that count.
    fn running(&self, goal: &Goal<'_>) -> BTreeSet<String> {
        let there = |task: &&Task| goal.node.is_none_or(|node| task.node_id == node);
        let counts = self.tasks.iter().filter(there).filter(|task| self.counts(task));
        counts.map(|task| task.id.clone()).collect()
    }

    fn counts(&self, task: &Task) -> bool {
        task.wanted()
            && task.status.state == "running"
            && self.nodes.get(&task.node_id).is_some_and(|node| self.vouches(node))
            && self.present(task)
    }

    /// Where a global service waits on a paused node, what runs there says nothing of its update.
    fn vouches(&self, node: &Node) -> bool {
        node.ready() && (node.spec.availability == "active" || !self.service.global())
    }

    /// True for a task made from the service's present specification.
    fn present(&self, task: &Task) -> bool {
        made_from(&task.spec, &self.service.spec["TaskTemplate"])
    }

    /// True while Swarm is still changing tasks. Where an update hangs on a node that is down this
    /// never ends, so it counts only for the update that we made.
    fn busy(&self) -> bool {
        matches!(self.service.update_status.state.as_str(), "updating" | "rollback_started")
    }

    /// What is missing, in one line.
    fn trouble(&self, goal: &Goal<'_>) -> String {
        let running = self.running(goal).len();
        let mut parts = vec![format!("{running} of {} tasks run", goal.tasks)];
        if self.busy() {
            parts.push(format!("the update is {}", self.service.update_status.state));
        }
        parts.extend(self.reasons(goal, |place| {
            goal.node.is_none_or(|node| place.0 == node)
                && !self.tasks.iter().any(|task| self.counts(task) && self.place(task) == place)
        }));
        if self.service.global() {
            parts.extend(self.nodes.values().filter_map(|node| {
                let off = !node.ready() || node.spec.availability != "active";
                off.then(|| {
                    format!(
                        "node {} is {}, {}",
                        node.label(),
                        node.status.state,
                        node.spec.availability
                    )
                })
            }));
        }
        parts.join("; ")
    }

    /// For each place that `wants` one, the newest word on its tasks: the last error since we
    /// began, or else the state of the newest task.
    fn reasons(&self, goal: &Goal<'_>, wants: impl Fn((&str, u64)) -> bool) -> Vec<String> {
        let mut places: BTreeMap<(&str, u64), Vec<&Task>> = BTreeMap::new();
        for task in &self.tasks {
            places.entry(self.place(task)).or_default().push(task);
        }
        places
            .into_iter()
            .filter(|(place, _)| wants(*place))
            .filter_map(|(_, mut tasks)| {
                tasks.sort_by_key(|task| task.age_key());
                let fresh = |task: &&&Task| task.broke() && !goal.broken_before.contains(&task.id);
                let told = tasks.iter().rev().find(fresh).copied().or_else(|| {
                    tasks.last().copied().filter(|task| task.status.state != "running")
                })?;
                let node = match self.nodes.get(&told.node_id) {
                    Some(node) => node.label(),
                    None if told.node_id.is_empty() => "not placed",
                    None => &told.node_id,
                };
                Some(format!("{node}: {}: {}", told.status.state, told.status.reason()))
            })
            .collect()
    }

    fn place<'a>(&self, task: &'a Task) -> (&'a str, u64) {
        if self.service.global() { (&task.node_id, 0) } else { ("", task.slot) }
    }
}

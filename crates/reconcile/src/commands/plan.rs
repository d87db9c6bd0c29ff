//! `reconcile plan` and `reconcile apply`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use reconcile_core::{
    model::ObjectId,
    plan::{Plan, Step, counted, text},
};
use reconcile_engine::{Event, Journal, Leased, Listener as _, Turn, execute, lease::Wait, look};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::converge::{Prepared, prepare, resume_what_was_left, unsafe_plan};
use crate::{
    cli::{ApplyArgs, Cli, Format, PlanArgs},
    failure::{Failure, Outcome},
    lease::{self, Lease},
    output,
    progress::Progress,
    source, state,
};

/// Differences and steps that are named; the rest is counted.
const MOST: usize = 5;

async fn look_at(prepared: &Prepared) -> Result<Plan, Failure> {
    let pass =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    Ok(pass.plan)
}

pub(super) async fn plan(cli: &Cli, arguments: &PlanArgs) -> Result<Outcome, Failure> {
    let source = source::read(cli)?;
    if arguments.out.is_some() && source.clusters.len() > 1 {
        return Err(
            Failure::usage("a saved plan is of one cluster").hint("choose it with --cluster")
        );
    }
    let (mut steps, mut held) = (0, 0);
    for spec in &source.clusters {
        let prepared = prepare(spec, &source.base)?;
        let plan = look_at(&prepared).await?;
        output::print_as(arguments.output, &plan, |wide| {
            text(&plan, wide || arguments.output == Format::Text)
        })?;
        if let Some(path) = &arguments.out {
            save(&plan, path)?;
        }
        steps += plan.steps.len();
        held += plan.held.len();
    }
    Ok(match (arguments.exit_code, steps, held) {
        (true, 1.., _) => Outcome::Pending,
        (true, 0, 1..) => Outcome::Held,
        _ => Outcome::Done,
    })
}

fn bytes(plan: &Plan) -> Result<String, Failure> {
    serde_json::to_string_pretty(plan)
        .map(|text| text + "\n")
        .map_err(|error| Failure::from_error("write the plan as JSON", &error))
}

fn save(plan: &Plan, path: &Path) -> Result<(), Failure> {
    std::fs::write(path, bytes(plan)?).map_err(|error| {
        Failure::from_error(format!("save the plan to {}", path.display()), &error)
    })
}

/// Carries out a saved plan: the file and the world are read anew, and only if they give the very
/// same plan is it executed. Nothing is taken from the saved file but its bytes.
pub(super) async fn apply(cli: &Cli, arguments: &ApplyArgs) -> Result<Outcome, Failure> {
    let path = &arguments.plan;
    let saved = std::fs::read_to_string(path).map_err(|error| {
        Failure::from_error(format!("read the plan {}", path.display()), &error)
    })?;
    let header: Value = serde_json::from_str(&saved)
        .map_err(|error| Failure::from_error(format!("{} is no plan", path.display()), &error))?;
    let origin = source::origin(cli)?;
    let texts = origin.texts()?;
    let source = source::parse_new(cli, &texts)?;
    let spec = source
        .clusters
        .iter()
        .find(|spec| header["cluster"] == spec.name.as_str())
        .ok_or_else(|| Failure::new("the plan is of a cluster that the file does not have"))?;
    let prepared = prepare(spec, &source.base)?;
    let folder = state::folder(cli, spec.name.as_str())?;
    let lock = state::lock(&folder)?;
    let stop = super::stop_on_signal();
    // First the lease: what is looked at under it, nobody else changes.
    let lease = match Lease::win(&prepared, Some(&lock), Wait::For(lease::PATIENCE), &stop).await {
        Ok(lease) => lease,
        Err(error) => {
            output::note(&format!("nothing was done: {}", lease::told(&error)));
            return Ok(Outcome::Held);
        }
    };
    let outcome = match origin.accept(&texts) {
        Ok(()) => apply_under(cli, &prepared, &saved, &header, &folder, &lease, &stop).await,
        Err(failure) => Err(failure),
    };
    lease.release().await;
    outcome
}

/// What is left to do that the saved plan has no steps for: some can only be known once others are
/// done, such as what a database lacks that was just made.
fn beyond(plan: &Plan, named: &BTreeSet<ObjectId>) -> Option<String> {
    // A service that is named comes to all nodes, in the order that its reason gives.
    let services = named.iter().any(|object| matches!(object, ObjectId::Service(_)));
    let (ours, others): (Vec<_>, Vec<_>) = plan
        .steps
        .iter()
        .partition(|step| named.contains(&step.object) || services && step.action.ends_a_rollout());
    let list = |steps: &[&Step]| {
        let words =
            steps.iter().take(MOST).map(|step| format!("{} {}", step.verb.word(), step.object));
        let more = steps.len().saturating_sub(MOST);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        words.collect::<Vec<_>>().join(", ") + &more
    };
    if others.is_empty() {
        return None;
    }
    let what = if ours.is_empty() {
        "the plan is carried out; what could be known only now is left".to_owned()
    } else {
        format!("of the plan {} is left, and beside it what could be known only now", list(&ours))
    };
    Some(format!("{what}: {}\nHint: make a new plan and apply it", list(&others)))
}

/// What a plan that was saved has otherwise than the one of now, the first of it. The same plan from
/// other facts is told as that.
fn moved_by(saved: &str, now: &str) -> Vec<String> {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (saved, now) = (read(saved), read(now));
    let mut told = Vec::new();
    for (list, what) in [("steps", "step"), ("held", "held")] {
        let entries = |plan: &Value| -> BTreeMap<String, Value> {
            let all = plan[list].as_array().into_iter().flatten();
            all.map(|entry| (entry["object"].to_string(), entry.clone())).collect()
        };
        let name = |entry: &Value| {
            let object = entry["object"].as_str().unwrap_or_default();
            match entry["verb"].as_str() {
                Some(verb) => format!("{verb} {object}"),
                None => format!("{what} {object}"),
            }
        };
        let (before, after) = (entries(&saved), entries(&now));
        for (key, entry) in &after {
            match before.get(key) {
                None => told.push(format!("new since: {}", name(entry))),
                Some(old) if !alike(old, entry) => told.push(format!("otherwise: {}", name(entry))),
                Some(_) => {}
            }
        }
        let gone = before.iter().filter(|(key, _)| !after.contains_key(*key));
        told.extend(gone.map(|(_, entry)| format!("no longer: {}", name(entry))));
    }
    let more = told.len().saturating_sub(MOST);
    told.truncate(MOST);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    if told.is_empty() {
        told.push("the steps are the same; facts below them are others".to_owned());
    }
    told
}

/// Whether two entries are the same but for their place in the plan.
fn alike(a: &Value, b: &Value) -> bool {
    let bare = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(fields) = entry.as_object_mut() {
            fields.remove("id");
            fields.remove("after");
        }
        entry
    };
    bare(a) == bare(b)
}

async fn apply_under(
    cli: &Cli,
    prepared: &Prepared,
    saved: &str,
    header: &Value,
    folder: &Path,
    lease: &Lease,
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    let progress = Progress::new(cli.plain);
    let journal = Journal::open(folder, &progress)
        .map_err(|error| Failure::from_error("keep the journal", &error))?;
    resume_what_was_left(prepared, &journal, lease).await;
    let plan = look_at(prepared).await?;
    if bytes(&plan)? != saved {
        let moved = if header["desiredDigest"] != plan.desired_digest.as_str() {
            "the desired-state file or a secret has changed since the plan was made"
        } else if header["observedDigest"] != plan.observed_digest.as_str() {
            "the servers or the Swarm have changed since the plan was made"
        } else {
            "this version of reconcile plans otherwise"
        };
        let failure = Failure::new(moved);
        let failure = moved_by(saved, &bytes(&plan)?).into_iter().fold(failure, Failure::caused_by);
        return Err(failure.hint("make a new plan and look at it again"));
    }
    // Its disruptive steps go one at a time, each on fresh facts: what comes next must be something
    // that the saved plan has.
    let fleet = Leased { fleet: &prepared.fleet, held: Arc::clone(&lease.held) };
    let stop = lease.until(stop);
    let named: BTreeSet<_> = plan.steps.iter().map(|step| step.object.clone()).collect();
    let stalled: BTreeSet<_> = plan.stalled().map(|held| held.object.clone()).collect();
    let queued = plan.held.iter().map(|held| held.object.clone());
    let queued = queued.filter(|object| !stalled.contains(object));
    let named: BTreeSet<_> = named.into_iter().chain(queued).collect();
    let (mut plan, mut done) = (plan, 0);
    let mut failures: BTreeMap<ObjectId, u32> = BTreeMap::new();
    loop {
        journal.hear(&Event::Planned(&plan));
        let execution = execute::execute(&fleet, &plan, &journal, &stop, &Turn::default()).await;
        done += execution.done();
        let fails = execution.errors().next().is_some();
        for step in &plan.steps {
            if let Some(execute::StepResult::Failed(_)) = execution.results.get(&step.id) {
                *failures.entry(step.object.clone()).or_default() += 1;
            }
        }
        let again = failures.values().any(|times| *times > 1);
        if stop.is_cancelled() || again || !fails && execution.done() == 0 {
            return ended(&plan, done, !failures.is_empty());
        }
        let next = look_at(prepared).await?;
        if fails {
            // What does not come up, or does not serve, on the first node goes back there, and no other node
            // is left waiting for it.
            let rolls = |step: &Step| {
                step.action.ends_a_rollout() || matches!(step.object, ObjectId::Service(_))
            };
            if !next.steps.iter().any(rolls) {
                return ended(&plan, done, true);
            }
        }
        if !fails && !next.steps.is_empty() && next.steps == plan.steps {
            return Err(Failure::new("the steps took effect and are to be done again")
                .hint("a run without a plan waits until what is observed has settled"));
        }
        plan = next;
        if let Some(left) = beyond(&plan, &named) {
            output::note(&left);
            ended(&plan, done, !failures.is_empty())?;
            return Ok(if failures.is_empty() { Outcome::Held } else { Outcome::Failed });
        }
    }
}

/// What is to be said at the end, and how it ended.
fn ended(plan: &Plan, done: usize, failed: bool) -> Result<Outcome, Failure> {
    output::print(&format!("{} done\n", counted(done, "step")))?;
    if plan.steps.iter().any(|step| step.action.ends_a_rollout()) {
        output::note("nodes still wait for an update: run `reconcile -f` or make a new plan");
    }
    Ok(if failed || !plan.steps.is_empty() {
        Outcome::Failed
    } else if plan.held.is_empty() {
        Outcome::Done
    } else {
        Outcome::Held
    })
}

#[cfg(test)]
mod tests {
    use reconcile_core::{desired::Desired, plan::plan};
    use reconcile_sim::{World, fixture};

    use super::*;

    const FILE: &str = "/etc/postgresql-common/createcluster.d/reconcile.conf";

    fn edited(world: &World, host: &str) -> World {
        let mut world = world.clone();
        let file = world.server_mut(host).files.get_mut(FILE).expect("a file of ours");
        file.bytes.extend_from_slice(b"# by hand\n");
        world
    }

    fn saved(desired: &Desired, world: &World) -> String {
        bytes(&plan(desired, &world.observe(desired))).expect("JSON")
    }

    #[test]
    fn what_has_changed_since_a_plan_was_made_is_named() {
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        let calm = World::converged(&desired);
        let (one, two) = (edited(&calm, "node1"), edited(&calm, "node2"));
        let moved = |a: &World, b: &World| moved_by(&saved(&desired, a), &saved(&desired, b));
        let words = |word: &str, host: &str| format!("{word}: update {host}:{FILE}");
        assert_eq!(moved(&calm, &one), [words("new since", "node1")]);
        assert_eq!(moved(&one, &calm), [words("no longer", "node1")]);
        assert_eq!(moved(&one, &two), [words("new since", "node2"), words("no longer", "node1")]);
        assert_eq!(moved(&one, &edited(&one, "node1")), [words("otherwise", "node1")]);
        let bare = moved(&World::bare(&desired), &calm);
        assert_eq!(bare.len(), MOST + 1, "{bare:?}");
        assert!(bare[MOST].starts_with("and ") && bare[MOST].ends_with(" more"), "{bare:?}");
        assert_eq!(moved(&calm, &calm), ["the steps are the same; facts below them are others"]);
    }

    #[test]
    fn what_could_be_known_only_now_is_no_error() {
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        let world = edited(&World::converged(&desired), "node1");
        let plan = plan(&desired, &world.observe(&desired));
        let named: BTreeSet<_> = plan.steps.iter().map(|step| step.object.clone()).collect();
        assert_eq!(beyond(&plan, &named), None);
        // A service that is named comes to one node after the other.
        let mut world = World::converged(&desired);
        let other = fixture::desire(&fixture::spec(3, 0, |spec| spec.haproxy.maxconn = 777));
        world.pass(&other);
        world.pass(&other);
        let rest = reconcile_core::plan::plan(&other, &world.observe(&other));
        assert!(rest.steps.iter().any(|step| step.action.ends_a_rollout()), "{rest:?}");
        let service = BTreeSet::from([ObjectId::Service("db-utils_haproxy".to_owned())]);
        assert_eq!(beyond(&rest, &service), None);
        assert!(beyond(&rest, &BTreeSet::new()).is_some());
        assert_eq!(
            beyond(&plan, &BTreeSet::new()).expect("a step that is not named"),
            format!(
                "the plan is carried out; what could be known only now is left: update node1:{FILE}\n\
                 Hint: make a new plan and apply it"
            )
        );
    }
}

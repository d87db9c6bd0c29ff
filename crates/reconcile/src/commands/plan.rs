//! `reconcile plan` and `reconcile apply`.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use reconcile_core::plan::{Plan, counted, text};
use reconcile_engine::{Event, Journal, Leased, Listener as _, Turn, execute, lease::Wait, look};
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
    let header: serde_json::Value = serde_json::from_str(&saved)
        .map_err(|error| Failure::from_error(format!("{} is no plan", path.display()), &error))?;
    let origin = source::origin(cli)?;
    let texts = origin.texts()?;
    let source = source::parse(cli, &texts)?;
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

async fn apply_under(
    cli: &Cli,
    prepared: &Prepared,
    saved: &str,
    header: &serde_json::Value,
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
        return Err(Failure::new(moved).hint("make a new plan and look at it again"));
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
    loop {
        journal.hear(&Event::Planned(&plan));
        let execution = execute::execute(&fleet, &plan, &journal, &stop, &Turn::default()).await;
        done += execution.done();
        let failed = execution.errors().next().is_some();
        if failed || stop.is_cancelled() || execution.done() == 0 {
            output::print(&format!("{} done\n", counted(done, "step")))?;
            return Ok(if failed || !plan.steps.is_empty() {
                Outcome::Failed
            } else if plan.held.is_empty() {
                Outcome::Done
            } else {
                Outcome::Held
            });
        }
        let next = look_at(prepared).await?;
        if !next.steps.is_empty() && next.steps == plan.steps {
            return Err(Failure::new("the steps took effect and are to be done again")
                .hint("a run without a plan waits until what is observed has settled"));
        }
        plan = next;
        if let Some(step) = plan.steps.iter().find(|step| !named.contains(&step.object)) {
            output::print(&format!("{} done\n", counted(done, "step")))?;
            return Err(Failure::new(format!(
                "{} {} has come up, which the plan does not have",
                step.verb.word(),
                step.object
            ))
            .hint("make a new plan and look at it again"));
        }
    }
}

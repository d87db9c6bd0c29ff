//! `reconcile switchover`: hand the primary over while clients wait in the poolers.

use std::sync::Arc;

use reconcile_core::model::{HostName, Observed};
use reconcile_engine::{
    Journal, Leased,
    lease::Wait,
    look,
    switchover::{Order, SwitchoverError, order, switch_over},
};
use reconcile_spec::valid::Permission;

use super::converge::{Prepared, prepare, resume_what_was_left, unsafe_plan};
use crate::{
    cli::{Cli, SwitchoverArgs},
    failure::{Failure, Outcome},
    lease::{self, Lease},
    output, source, state,
};

pub(super) async fn run(cli: &Cli, arguments: &SwitchoverArgs) -> Result<Outcome, Failure> {
    let source = source::read_in_force_and_say(cli)?;
    let [spec] = source.clusters.as_slice() else {
        return Err(
            Failure::usage("a switchover is of one cluster").hint("choose it with --cluster")
        );
    };
    if spec.policy.switchover == Permission::Never {
        return Err(Failure::new("policy.switchover is `never`"));
    }
    let prepared = prepare(spec, &source.base)?;
    let folder = state::folder(cli, spec.name.as_str())?;
    state::make(&folder)?;
    // Said at once, for whoever paused may have a --watch that holds the lease.
    let first =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    not_paused(&first.observed)?;
    let stop = super::stop_on_signal();
    let lock = state::lock_switchover(&folder)?;
    let lease = match Lease::win(&prepared, lock.as_ref(), Wait::Asking(lease::ASKING), &stop).await
    {
        Ok(lease) => lease,
        Err(error) => {
            output::note(&format!("nothing was done: {}", lease::told(&error)));
            return Ok(Outcome::Held);
        }
    };
    // What the journal leaves open is left over only now: before, it may have been under way. The folder
    // may be that of a `--watch` which gave us the lease; it notes whole lines beside ours meanwhile.
    let journal = Journal::open(&folder, &())
        .map_err(|error| Failure::from_error("keep the journal", &error));
    let journal = match journal {
        Ok(journal) => journal,
        Err(failure) => {
            lease.release().await;
            return Err(failure);
        }
    };
    let outcome = hand_over(&prepared, arguments, &journal, &lease).await;
    lease.release().await;
    outcome
}

fn not_paused(observed: &Observed) -> Result<(), Failure> {
    observed.pause().map_or(Ok(()), |pause| {
        Err(Failure::new(format!("the cluster is paused {pause}"))
            .hint("`reconcile resume` ends it"))
    })
}

async fn hand_over(
    prepared: &Prepared,
    arguments: &SwitchoverArgs,
    journal: &Journal<'_>,
    lease: &Lease,
) -> Result<Outcome, Failure> {
    resume_what_was_left(prepared, journal, lease).await;
    let pass =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    not_paused(&pass.observed)?;
    let to = arguments.to.as_deref().map(HostName::new);
    let order = order(&prepared.desired, &pass.observed, to.as_ref())
        .map_err(|error| Failure::from_error("switch over", &error))?;
    let order = Order { regardless: arguments.regardless, ..order };
    output::note(&format!("asking whether {} can hand over to {}", order.leader, order.candidate));
    let fleet = Leased { fleet: &prepared.fleet, held: Arc::clone(&lease.held) };
    // A signal must not stop it halfway: clients wait in the poolers.
    let result = switch_over(&fleet, &order, journal).await;
    let report = result.map_err(|error| {
        let failure = Failure::from_error("switch over", &error);
        match error {
            SwitchoverError::Busy(_) => failure.hint("end them, or go on with --regardless"),
            _ => failure,
        }
    })?;
    output::print(&format!(
        "{} is the primary; Patroni took {:.1} s, clients waited {:.1} s at most\n",
        order.candidate,
        report.promotion.as_secs_f64(),
        report.held.as_secs_f64()
    ))?;
    Ok(Outcome::Done)
}

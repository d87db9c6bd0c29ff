//! `reconcile switchover`: hand the primary over while clients wait in the poolers.

use std::sync::Arc;

use reconcile_core::{
    desired::Desired,
    model::{HostName, Observed, PatroniRole},
    poolers::{PoolersError, poolers},
};
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
    let to = arguments.to.as_deref().map(HostName::new);
    if let Some(to) = to.as_ref().filter(|to| !prepared.desired.servers.contains_key(*to)) {
        return Err(Failure::usage(format!("the file has no server named {to}"))
            .hint(format!("one of: {}", names(&prepared.desired, None))));
    }
    let folder = state::folder(cli, spec.name.as_str())?;
    state::make(&folder)?;
    // Said at once, for whoever paused may have a --watch that holds the lease.
    let first =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    not_paused(&first.observed)?;
    // Nor is the lease asked of somebody for what will not be begun.
    if let Some(failure) = in_vain(&prepared.desired, &first.observed, to.as_ref()) {
        return Err(failure);
    }
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

/// Servers of the file but this one.
fn names(desired: &Desired, but: Option<&HostName>) -> String {
    let names = desired.servers.keys().filter(|name| Some(*name) != but);
    names.map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

/// Why it would not be begun, where no moment's wait changes that: the server leads already, or one does
/// not answer.
fn in_vain(desired: &Desired, observed: &Observed, to: Option<&HostName>) -> Option<Failure> {
    let error = order(desired, observed, to).err()?;
    let away = desired.servers.keys().any(|host| observed.host(host).is_none());
    let leads = to.is_some_and(|to| leads(observed, to));
    (away || leads).then(|| unfit(&error, desired, observed, to))
}

fn leads(observed: &Observed, host: &HostName) -> bool {
    let patroni = observed.host(host).and_then(|facts| facts.patroni.present());
    patroni.is_some_and(|fact| fact.role == PatroniRole::Primary && fact.state == "running")
}

/// Why it is not begun, and what helps.
fn unfit(
    error: &SwitchoverError,
    desired: &Desired,
    observed: &Observed,
    to: Option<&HostName>,
) -> Failure {
    let failure = Failure::from_error("switch over", error);
    let away = desired.servers.keys().filter(|host| observed.host(host).is_none());
    let away: Vec<_> = away.map(HostName::as_str).collect();
    if let Some(to) = to.filter(|to| leads(observed, to)) {
        return failure.hint(format!("name another: {}", names(desired, Some(to))));
    }
    if !away.is_empty() {
        return failure.hint(format!(
            "bring {} up; one that is gone for good is replaced \
             (docs/operations.md)",
            away.join(" and ")
        ));
    }
    match poolers(desired, observed) {
        Err(PoolersError::Stopped(node)) => failure.hint(format!(
            "`docker node update --availability drain {node}` takes its clients off, and a switchover \
             works past it"
        )),
        _ => failure,
    }
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
        .map_err(|error| unfit(&error, &prepared.desired, &pass.observed, to.as_ref()))?;
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

#[cfg(test)]
mod tests {
    use reconcile_sim::{World, fixture};

    use super::*;

    #[test]
    fn what_is_asked_for_in_vain_is_said_before_the_lease_is_asked_for() {
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        let mut world = World::converged(&desired);
        let said = |world: &World, to: Option<&str>| {
            let to = to.map(HostName::new);
            let observed = world.observe(&desired);
            in_vain(&desired, &observed, to.as_ref()).map(|failure| failure.text())
        };
        assert_eq!(said(&world, None), None);
        assert_eq!(said(&world, Some("node2")), None);
        let leads = said(&world, Some("node1")).expect("it leads");
        assert_eq!(
            leads,
            "Error: switch over\nCaused by:\n  1: not begun: node1 is the primary already\n\
             Hint: name another: node2, node3\n"
        );
        world.power_off("node2");
        let away = said(&world, None).expect("it is away");
        assert!(
            away.contains("not begun: node2 is not known, and neither is its pooler"),
            "{away}"
        );
        assert!(away.contains("Hint: bring node2 up; one that is gone for good is "), "{away}");
    }
}

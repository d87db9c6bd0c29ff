//! What Docker went back from is not tried again until it is something else.

use reconcile_core::{
    check::check,
    desired::Desired,
    model::{GivenUp, Observation, Observed, ServiceSpec},
    plan::{Plan, plan},
};
use reconcile_sim::{World, fixture};

const FRONT: &str = "db-utils_haproxy";

fn desired(maxconn: u32) -> Desired {
    fixture::desire(&fixture::spec(3, 0, |spec| spec.haproxy.maxconn = maxconn))
}

fn front(desired: &Desired, digest: Option<String>) -> ServiceSpec {
    let spec = desired.swarm.services.iter().find(|spec| spec.name == FRONT).unwrap();
    ServiceSpec { digest, ..spec.clone() }
}

fn planned(desired: &Desired, observed: &Observed) -> Plan {
    let plan = plan(desired, observed);
    assert_eq!(check(desired, observed, &plan), []);
    plan
}

#[test]
fn a_change_that_was_rolled_back_is_held_until_it_is_another() {
    let world = World::converged(&desired(2000));
    let (bad, other) = (desired(3000), desired(4000));
    let mut observed = world.observe(&bad);
    let updates =
        |plan: &Plan| plan.steps.iter().any(|step| step.object.to_string().ends_with(FRONT));
    let Observation::Known(Some(swarm)) = &mut observed.swarm else { panic!("there is a Swarm") };
    let fact = swarm.services.get_mut(FRONT).unwrap();
    let cause = "node1: failed: task: non-zero exit (1)".to_owned();
    // As Docker has it: labels, ports and networks are the service's and not the task's.
    let tried = ServiceSpec {
        labels: [].into(),
        ports: Vec::new(),
        networks: Vec::new(),
        ..front(&bad, fact.spec.digest.clone())
    };
    fact.given_up = Some(GivenUp { spec: tried, cause: cause.clone() });
    assert!(updates(&planned(&bad, &observed)), "nothing was rolled back");

    let Observation::Known(Some(swarm)) = &mut observed.swarm else { panic!("there is a Swarm") };
    "rollback_completed".clone_into(&mut swarm.services.get_mut(FRONT).unwrap().update_state);
    let plan = planned(&bad, &observed);
    assert!(!updates(&plan));
    let held = plan.held.iter().find(|held| held.object.to_string().ends_with(FRONT)).unwrap();
    assert!(held.reason.to_string().contains(&cause), "{}", held.reason);
    assert!(updates(&planned(&other, &observed)), "another change is tried");
}

//! What a status tells is what runs, and beside it what is to run.

use reconcile_core::{
    model::{Observation, PatroniRole},
    plan::plan,
    primary::primary,
    status::status,
};
use reconcile_sim::{World, fixture};

#[test]
fn images_are_those_that_run() {
    let before = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let observed = World::converged(&before).observe(&before);
    let mut after = before.clone();
    for service in &mut after.swarm.services {
        service.image.push_str("-next");
    }
    let told = |desired| status(desired, &observed, &plan(desired, &observed), None).services;
    for (same, moved) in told(&before).into_iter().zip(told(&after)) {
        assert_eq!(same.desired_image, None);
        assert_eq!(moved.image, same.image);
        assert_eq!(moved.desired_image, Some(format!("{}-next", same.image)));
    }
}

#[test]
fn the_primary_is_named_only_where_it_is_known() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let observed = World::converged(&desired).observe(&desired);
    let leader = primary(&desired, &observed).expect("a converged cluster has one");
    let demoted = |role| {
        let mut observed = observed.clone();
        let Some(Observation::Known(facts)) = observed.hosts.get_mut(&leader) else { panic!() };
        let Observation::Known(Some(patroni)) = &mut facts.patroni else { panic!() };
        patroni.role = role;
        observed
    };
    let none = primary(&desired, &demoted(PatroniRole::Replica)).expect_err("it has none");
    let told = format!("{leader} is replica, running");
    assert!(none.to_string().starts_with("there is no primary: "), "{none}");
    assert!(none.to_string().contains(&told), "{none}");

    let mut silent = observed.clone();
    silent.hosts.insert(leader.clone(), Observation::unknown("no answer"));
    let unknown = primary(&desired, &silent).expect_err("it is not known");
    assert!(unknown.to_string().starts_with("no primary is known: "), "{unknown}");
    assert!(unknown.to_string().contains(&format!("{leader} is unknown (no answer)")), "{unknown}");

    let mut two = observed.clone();
    let other = desired.patroni.members.keys().find(|host| **host != leader).expect("another");
    let facts = observed.hosts[&leader].clone();
    two.hosts.insert(other.clone(), facts);
    let several = primary(&desired, &two).expect_err("there are two");
    assert!(several.to_string().starts_with("more than one"), "{several}");
}

//! What a status tells is what runs, and beside it what is to run.

use reconcile_core::{
    model::{Observation, Observed, PatroniRole},
    plan::plan,
    primary::primary,
    status::{Truth, status},
    verify::{Proof, VerifyReport, Way, observed_proofs},
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

/// What is expected, and what is seen of it.
#[test]
fn utilities_are_told_apart_by_what_is_seen() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let told = |observed: &Observed| {
        let plan = plan(&desired, observed);
        let shown = status(&desired, observed, &plan, None);
        let mut all = shown.conditions.into_iter();
        let found = all.find(|condition| condition.kind == "UtilitiesHealthy").unwrap();
        (found.status, found.reason, found.message)
    };
    let names = "db-utils_haproxy, db-utils_router, db-utils_pgbouncer, db-utils_pgbouncer-read";
    let observed = World::converged(&desired).observe(&desired);
    let well = "4 of 4 services run all their tasks".to_owned();
    assert_eq!(told(&observed), (Truth::True, "AllTasksRun", well));

    let bare = World::bare(&desired).observe(&desired);
    let (status, reason, message) = told(&bare);
    assert_eq!((status, reason), (Truth::False, "TasksMissing"));
    assert!(message.starts_with("0 of 4 services run all their tasks; missing: db-utils_"));
    for name in names.split(", ") {
        assert!(message.contains(name), "{message}");
    }

    let mut silent = observed.clone();
    silent.swarm = Observation::unknown("no manager answers");
    let (status, reason, message) = told(&silent);
    assert_eq!((status, reason), (Truth::Unknown, "SwarmUnknown"));
    assert!(
        message.starts_with("not observed: no manager answers; expected: db-utils_"),
        "{message}"
    );

    let mut partly = observed.clone();
    let Observation::Known(Some(swarm)) = &mut partly.swarm else { panic!() };
    swarm.services.get_mut("db-utils_router").unwrap().tasks.pop();
    let message = told(&partly).2;
    assert_eq!(message, "3 of 4 services run all their tasks; db-utils_router runs 2 of 3 tasks");
}

/// Ready's reason and message where these proofs fail: ways in as `write node1`, others by name.
fn ready(fails: &[&str]) -> (&'static str, String) {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let world = World::converged(&desired);
    let observed = world.observe(&desired);
    let plan = plan(&desired, &observed);
    let mut proofs = observed_proofs(&desired, &observed);
    for host in ["node1", "node2", "node3"] {
        for (way, word) in [(Way::Write, "write"), (Way::Read, "read")] {
            proofs.push(Proof {
                what: format!("{word} through HAProxy on {host}"),
                host: Some(host.into()),
                way: Some(way),
                holds: true,
                millis: 1,
                detail: String::new(),
                ..Proof::default()
            });
        }
    }
    for proof in &mut proofs {
        let way = proof.what.replace("through HAProxy on ", "");
        proof.holds = !fails.contains(&way.as_str());
        "refused".clone_into(&mut proof.detail);
    }
    let status = status(&desired, &observed, &plan, Some(VerifyReport { proofs }));
    let ready = status.conditions.into_iter().find(|one| one.kind == "Ready").unwrap();
    (ready.reason, ready.message)
}

#[test]
fn it_is_said_which_way_in_fails_and_which_serve() {
    assert_eq!(ready(&[]).0, "Serving");
    assert_eq!(
        ready(&["write node2", "read node2", "etcd member node2"]),
        (
            "PartlyServing",
            "2 of 3 ways in serve (node1, node3), node2 not: \
             write through HAProxy on node2: refused (and 2 more)"
                .to_owned()
        )
    );
    assert_eq!(
        ready(&["etcd member node2"]),
        ("ProofFailed", "3 of 3 ways in serve, but etcd member node2: refused".to_owned())
    );
    let writes = ["write node1", "write node2", "write node3"];
    assert_eq!(
        ready(&writes),
        (
            "NoWrites",
            "no way in takes writes, 3 of 3 serve reads (node1, node2, node3): \
             write through HAProxy on node1: refused (and 2 more)"
                .to_owned()
        )
    );
    let all = [writes, ["read node1", "read node2", "read node3"]].concat();
    let (reason, message) = ready(&all);
    assert_eq!(reason, "NotServing");
    assert!(message.starts_with("none of 3 ways in serves: write through"), "{message}");
}

#[test]
fn a_member_whose_patroni_is_stopped_is_told_so() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let observed = World::converged(&desired).observe(&desired);
    let shown = |active: &str, absent: bool| {
        let mut observed = observed.clone();
        let host = "node2".into();
        let Some(Observation::Known(facts)) = observed.hosts.get_mut(&host) else { panic!() };
        active.clone_into(&mut facts.units.get_mut("patroni.service").expect("its unit").active);
        if absent {
            facts.patroni = Observation::Known(None);
        }
        let status = status(&desired, &observed, &plan(&desired, &observed), None);
        let row = status.hosts.into_iter().find(|row| row.name == host).expect("its row");
        (row.role, row.state)
    };
    let down = |state: &str| ("down".to_owned(), state.to_owned());
    assert_eq!(shown("inactive", true), down("Patroni is stopped"));
    assert_eq!(shown("inactive", false), down("Patroni is stopped"), "whatever it said last");
    assert_eq!(shown("failed", true), down("Patroni has failed"));
    assert_eq!(shown("activating", true), down(""));
    assert_eq!(shown("active", false).0, "replica");
}

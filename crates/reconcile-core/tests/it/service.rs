//! What is said of service while something is wrong: what fails and what it comes of first, and nothing
//! that is not known.

use reconcile_core::{
    desired::Desired,
    leads::Leads,
    model::{HostName, Observation, Observed, PatroniRole, SecretText},
    plan::{plan, verify_request},
    status::{Status, Truth, status},
    verify::{Front, Proof, VerifyReport, Way, concluded, observed_proofs},
};
use reconcile_sim::{Reach, World, fixture};

struct Seen {
    desired: Desired,
    observed: Observed,
    unseen: Vec<Front>,
    proofs: Vec<Proof>,
}

/// A cluster of three after `wreck`, and its proofs, of which these ways in fail, such as `write node2`.
fn seen(wreck: impl FnOnce(&mut World), look: impl FnOnce(&mut Observed), fails: &[&str]) -> Seen {
    let spec = fixture::spec(3, 0, |_| {});
    let desired = fixture::desire(&spec);
    let mut world = World::converged(&desired);
    wreck(&mut world);
    let mut observed = world.observe(&desired);
    look(&mut observed);
    let request = verify_request(&spec, &observed, SecretText::new(""), false, "token".to_owned());
    let mut proofs = observed_proofs(&desired, &observed);
    for front in &request.fronts {
        for (way, word) in [(Way::Write, "write"), (Way::Read, "read")] {
            let host = &front.host;
            let holds = !fails.contains(&format!("{word} {host}").as_str());
            proofs.push(Proof {
                what: format!("{word} through HAProxy on {host}"),
                host: Some(host.clone()),
                way: Some(way),
                holds,
                detail: if holds { "served" } else { "no session" }.to_owned(),
                ..Proof::default()
            });
        }
    }
    Seen { desired, observed, unseen: request.unseen, proofs }
}

impl Seen {
    fn report(&self) -> VerifyReport {
        concluded(&self.desired, &self.observed, &self.unseen, self.proofs.clone())
    }

    fn status(&self) -> Status {
        let plan = plan(&self.desired, &self.observed);
        status(&self.desired, &self.observed, &plan, Some(self.report()))
    }

    fn condition(&self, kind: &str) -> (Truth, &'static str, String) {
        let found = self.status().conditions.into_iter().find(|one| one.kind == kind);
        let found = found.expect("such a condition");
        (found.status, found.reason, found.message)
    }
}

fn primary_of(observed: &Observed) -> HostName {
    let primary = observed.hosts.iter().find(|(_, facts)| {
        let patroni = facts.known().and_then(|facts| facts.patroni.present());
        patroni.is_some_and(|patroni| patroni.role == PatroniRole::Primary)
    });
    primary.expect("a primary").0.clone()
}

/// What replicas tell once the primary is gone.
fn orphaned(observed: &mut Observed) {
    for facts in observed.hosts.values_mut() {
        let Observation::Known(facts) = facts else { continue };
        if let Observation::Known(Some(patroni)) = &mut facts.patroni {
            patroni.role = PatroniRole::Replica;
            patroni.streaming = false;
            "running".clone_into(&mut patroni.state);
        }
    }
}

#[test]
fn the_primarys_server_is_dead_and_nobody_takes_over() {
    let seen = seen(
        |world| {
            world.power_off("node1");
            // Something is to be done as well.
            let file = "/etc/postgresql-common/createcluster.d/reconcile.conf";
            let files = &mut world.server_mut("node2").files;
            files.get_mut(file).expect("a file of ours").bytes.push(b'#');
        },
        orphaned,
        &["write node2", "write node3"],
    );
    let (truth, reason, message) = seen.condition("Ready");
    assert_eq!((truth, reason), (Truth::False, "NoWrites"), "{message}");
    assert_eq!(
        message,
        "no way in takes writes, 2 of 3 serve reads (node2, node3): \
         no primary is known: node1 does not answer; 3 steps pending"
    );
    let (truth, reason, message) = seen.condition("DatabaseHealthy");
    assert_eq!((truth, reason), (Truth::False, "NoPrimary"), "{message}");
    assert_eq!(message, "no primary is known: node1 does not answer; node2, node3 run as replicas");
}

#[test]
fn a_dead_server_is_counted_and_named_as_the_cause() {
    let seen = seen(
        |world| world.power_off("node2"),
        |observed| {
            let leader = primary_of(observed);
            assert_ne!(leader, "node2".into(), "or another test is to be made");
            let Some(Observation::Known(facts)) = observed.hosts.get_mut(&leader) else { panic!() };
            let Observation::Known(Some(patroni)) = &mut facts.patroni else { panic!() };
            patroni.replication.retain(|standby| standby.application_name != "node2");
        },
        &[],
    );
    assert_eq!(
        seen.condition("Ready"),
        (
            Truth::False,
            "PartlyServing",
            "2 of 3 ways in serve (node1, node3); node2 does not answer".to_owned()
        )
    );
    let report = seen.report();
    assert_eq!(report.causes(true), ["node2 does not answer"], "{report:#?}");
    let lost = report.proofs.iter().filter(|proof| proof.fails()).map(|proof| proof.what.as_str());
    assert_eq!(
        lost.collect::<Vec<_>>(),
        [
            "replication from node1 to node2",
            "etcd member node2",
            "write through HAProxy on node2",
            "read through HAProxy on node2"
        ],
        "they are its consequence"
    );
}

#[test]
fn another_failure_beside_a_dead_server_is_said_as_well() {
    let seen = seen(|world| world.power_off("node2"), |_| {}, &["write node3"]);
    let (_, reason, message) = seen.condition("Ready");
    assert_eq!(reason, "PartlyServing");
    assert_eq!(
        message,
        "1 of 3 ways in serves (node1), node2, node3 not: node2 does not answer (and 1 more)"
    );
}

#[test]
fn where_nobody_may_look_nothing_is_known_to_be_wrong() {
    let refuse = |world: &mut World, hosts: &[&str]| {
        for host in hosts {
            world.server_mut(host).reach = Reach::Refuses("the login".to_owned());
        }
    };
    let all = seen(|world| refuse(world, &["node1", "node2", "node3"]), |_| {}, &[]);
    let report = all.report();
    assert!(!report.fails() && !report.holds(), "{report:#?}");
    assert!(report.proofs.iter().all(|proof| proof.untried), "{report:#?}");
    assert_eq!(
        all.condition("Ready"),
        (
            Truth::Unknown,
            "HostUnknown",
            "it is not known whether it serves: no primary is known: \
             node1, node2, node3 cannot be looked at"
                .to_owned()
        )
    );
    for kind in ["EtcdHealthy", "DatabaseHealthy", "SwarmHealthy", "UtilitiesHealthy"] {
        let (truth, _, message) = all.condition(kind);
        assert_eq!(truth, Truth::Unknown, "{kind}: {message}");
        assert!(!message.contains("0 of"), "{kind}: {message}");
        assert!(!message.contains("no primary;"), "{kind}: {message}");
    }
    let one = seen(|world| refuse(world, &["node3"]), |_| {}, &[]);
    assert_eq!(
        one.condition("Ready"),
        (
            Truth::Unknown,
            "HostUnknown",
            "2 of 3 ways in serve (node1, node2); node3 cannot be looked at".to_owned()
        )
    );
    assert!(one.status().hosts.iter().all(|host| host.answers));
}

#[test]
fn where_no_server_answers_it_may_be_us() {
    let off = |world: &mut World| ["node1", "node2", "node3"].map(|host| world.power_off(host));
    let seen = seen(|world| _ = off(world), |_| {}, &[]);
    let (truth, reason, message) = seen.condition("Ready");
    assert_eq!((truth, reason), (Truth::Unknown, "HostUnknown"), "{message}");
    assert!(message.contains("node1, node2, node3 do not answer"), "{message}");
}

/// A pooler that is frozen: what its node's sign of life says.
fn frozen(seen: &mut Seen) -> String {
    let sign = Proof {
        what: "signs of life on node2".to_owned(),
        host: Some("node2".into()),
        detail: "pooler for writes (port 6432): no answer; stopped or frozen?".to_owned(),
        silent: vec!["pgbouncer"],
        ..Proof::default()
    };
    let line = sign.line();
    seen.proofs.push(sign);
    line
}

#[test]
fn a_silent_pooler_is_the_cause_and_no_haproxy_is_accused_of_it() {
    let mut one = seen(|_| {}, |_| {}, &[]);
    let line = frozen(&mut one);
    assert_eq!(
        one.condition("Ready"),
        (Truth::False, "ProofFailed", format!("3 of 3 ways in serve, but {line}"))
    );
    assert_eq!(one.condition("UtilitiesHealthy").1, "TasksSilent");
    let silent: Vec<_> = one
        .status()
        .services
        .iter()
        .flat_map(|service| {
            service.tasks.iter().map(move |task| (service.name.clone(), task.clone()))
        })
        .filter(|(_, task)| task.silent)
        .map(|(name, task)| (name, task.host.to_string()))
        .collect();
    assert_eq!(silent, [("db-utils_pgbouncer".to_owned(), "node2".to_owned())]);

    let mut two = seen(|_| {}, |_| {}, &["write node2", "write node3"]);
    frozen(&mut two);
    let report = two.report();
    assert_eq!(report.causes(true), std::slice::from_ref(&line), "one cause, and it is the pooler");
    let message = two.condition("Ready").2;
    assert_eq!(message, format!("1 of 3 ways in serves (node1), node2, node3 not: {line}"));
    // What goes another way is another matter.
    let mut three = seen(|_| {}, |_| {}, &["read node3"]);
    frozen(&mut three);
    let causes = three.report().causes(true);
    assert_eq!(causes, [line, "read through HAProxy on node3: no session".to_owned()]);
}

#[test]
fn a_drained_node_is_the_cause_of_what_fails_there() {
    let seen = seen(
        |_| {},
        |observed| {
            let host = "node3".into();
            let facts = observed.host(&host).and_then(|facts| facts.docker.present());
            let id = facts.expect("an engine").swarm.node_id.clone();
            let Observation::Known(Some(swarm)) = &mut observed.swarm else { panic!() };
            swarm.nodes.get_mut(&id).expect("the node").availability = "drain".to_owned();
            for service in swarm.services.values_mut() {
                service.tasks.retain(|task| task.node_id != id);
            }
        },
        &["write node3", "read node3"],
    );
    let (_, reason, message) = seen.condition("Ready");
    assert_eq!(reason, "PartlyServing");
    assert!(
        message
            .starts_with("2 of 3 ways in serve (node1, node2); node3 is set to drain in the Swarm"),
        "{message}"
    );
    let row = seen.status().hosts.into_iter().find(|row| row.name == "node3".into()).unwrap();
    assert_eq!(row.swarm, "drain");
    let held = seen.status().held.first().map(|held| format!("{}: {}", held.object, held.reason));
    let held = held.expect("it is held");
    assert!(held.starts_with("swarm/node/node3: paused: somebody set it to drain"), "{held}");
    assert!(held.contains("`docker node update --availability active node3`"), "{held}");
    let (truth, reason, message) = seen.condition("SwarmHealthy");
    assert_eq!((truth, reason), (Truth::False, "Degraded"));
    assert!(message.contains("node3: drain"), "{message}");
}

#[test]
fn no_calm_is_told_while_no_leader_is_known() {
    let seen = seen(|_| {}, orphaned, &[]);
    let message = seen.condition("Ready").2;
    assert!(message.starts_with("no primary"), "{message}");
    assert!(!message.contains("ways in serve"), "{message}");
}

#[test]
fn a_loss_and_a_new_primary_are_told_once() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = World::converged(&desired);
    let mut leads = Leads::default();
    let calm = world.observe(&desired);
    assert_eq!(leads.looked(&desired, &calm), None, "the first is no news");
    world.power_off("node1");
    let mut observed = world.observe(&desired);
    orphaned(&mut observed);
    let lost = leads.looked(&desired, &observed).expect("it is lost");
    assert_eq!(lost.told(), "no primary is known: node1 does not answer");
    assert_eq!(leads.looked(&desired, &observed), None, "once");
    let facts = observed.hosts.get_mut(&"node2".into()).expect("it is there");
    let Observation::Known(facts) = facts else { panic!() };
    let Observation::Known(Some(patroni)) = &mut facts.patroni else { panic!() };
    (patroni.role, patroni.timeline) = (PatroniRole::Primary, 7);
    "running".clone_into(&mut patroni.state);
    let led = leads.looked(&desired, &observed).expect("it is another");
    assert_eq!(led.told(), "node2 is the primary now (it was node1), timeline 7");
    assert_eq!(leads.looked(&desired, &observed), None);
    let back = leads.looked(&desired, &calm).expect("it moved back");
    assert!(back.told().starts_with("node1 is the primary now (it was node2)"), "{back:?}");
}

//! Changes of etcd's and the Swarm's membership: every rule of the checker broken once, and the plans
//! as people read them.

use reconcile_core::{
    action::{Action, EtcdChange, HostAction, SwarmAction},
    desired::Desired,
    model::{
        Claim, ClaimKind, DataDirFact, EtcdFact, HostName, Observation, PatroniFact, PatroniRole,
        SwarmFacts,
    },
    plan::{Impact, plan},
    status::status,
};
use reconcile_sim::{World, fixture};

use crate::{
    plans::case,
    refusals::{Case, three},
};

fn node(name: &str) -> HostName {
    HostName::new(name)
}

fn anew() -> World {
    let mut world = World::converged(&three());
    world.set_up_anew("node3");
    world
}

fn change(action: &mut Action) -> (&mut EtcdChange, &mut Vec<String>) {
    match action {
        Action::Host(_, HostAction::EtcdMembership { change, via, .. }) => (change, via),
        other => panic!("{other:?}"),
    }
}

fn is_change(action: &Action) -> bool {
    matches!(action, Action::Host(_, HostAction::EtcdMembership { .. }))
}

impl Case {
    fn etcd(&mut self, host: &str) -> &mut EtcdFact {
        match &mut self.facts(host).etcd {
            Observation::Known(Some(fact)) => fact,
            other => panic!("{other:?}"),
        }
    }

    fn voices(&mut self, change: impl Fn(&mut EtcdFact)) {
        for host in ["node1", "node2"] {
            change(self.etcd(host));
        }
    }

    fn patroni(&mut self, host: &str) -> &mut PatroniFact {
        match &mut self.facts(host).patroni {
            Observation::Known(Some(fact)) => fact,
            other => panic!("{other:?}"),
        }
    }

    fn swarm(&mut self) -> &mut SwarmFacts {
        match &mut self.observed.swarm {
            Observation::Known(Some(facts)) => facts,
            other => panic!("{other:?}"),
        }
    }

    fn node_fact(&mut self, id: &str) -> &mut reconcile_core::model::NodeFact {
        self.swarm().nodes.get_mut(id).unwrap()
    }

    fn change(&mut self) -> (&mut EtcdChange, &mut Vec<String>) {
        change(&mut self.step(is_change).action)
    }
}

#[test]
fn a_member_is_forgotten_for_good_reason_alone() {
    let case = Case::of(three(), &anew());
    let mut own = case.clone();
    assert!(matches!(own.change().0, EtcdChange::Forget { id } if id == "member-node3"));
    let only = "a member is forgotten only where its server is known to have nothing of it";
    let directory = case.desired.etcd.data_dir.clone();
    case.breaks(only, |case| {
        let fact = DataDirFact { populated: true, system_identifier: None };
        case.facts("node3").data_dirs.insert(directory.clone(), fact);
    });
    case.breaks(only, |case| {
        let name = case.desired.etcd.token.clone();
        let claim = Claim { kind: ClaimKind::EtcdFormed, name };
        case.facts("node3").manifest.claims.insert(claim);
    });
    case.breaks(only, |case| case.facts("node3").etcd = Observation::unknown("no answer"));
    case.breaks("the membership is changed only while all who vote are well", |case| {
        case.etcd("node2").healthy = false;
    });
    case.breaks("the membership is changed only by a majority", |case| {
        case.etcd("node2").healthy = false;
    });
    case.breaks("the membership is changed only where a healthy member tells it", |case| {
        case.voices(|etcd| etcd.members.clear());
    });
    case.breaks("a member is removed for its own server", |case| {
        *case.change().0 = EtcdChange::Forget { id: "member-node2".to_owned() };
    });
    case.breaks("every healthy member is asked again in the moment of the change", |case| {
        case.change().1.pop();
    });
    case.breaks("a member that was added has started before the next change", |case| {
        case.voices(|etcd| etcd.members[2].client_urls.clear());
    });
    let beside = "the membership is not changed beside a member that the file does not name";
    case.breaks(beside, |case| {
        case.voices(|etcd| etcd.members[2].peer_urls = vec!["http://192.0.2.9:2380".to_owned()]);
    });
}

#[test]
fn a_member_is_added_alone_and_as_a_learner() {
    let desired = fixture::desire(&fixture::spec(4, 0, |_| {}));
    let mut world = World::converged(&three());
    world.grow(&desired);
    let case = Case::of(desired, &world);
    let mut own = case.clone();
    assert!(matches!(own.change().0, EtcdChange::Add { .. }));
    let directory = case.desired.etcd.data_dir.clone();
    case.breaks("only a server without data of etcd is added", |case| {
        let fact = DataDirFact { populated: true, system_identifier: None };
        case.facts("node4").data_dirs.insert(directory.clone(), fact);
    });
    case.breaks("a server is added as itself, and once", |case| {
        *case.change().0 = EtcdChange::Add { peer_url: "http://192.0.2.9:2380".to_owned() };
    });
    let learner = |case: &mut Case, index: usize| {
        for host in ["node1", "node2", "node3"] {
            case.etcd(host).members[index].learner = true;
        }
    };
    case.breaks("one learner at a time", |case| learner(case, 2));
    case.breaks("only a learner gets a vote", |case| {
        *case.change().0 = EtcdChange::Promote { id: "member-node3".to_owned() };
    });
    case.breaks("a dead member is removed before another is added", |case| {
        let facts = case.facts("node3");
        facts.etcd = Observation::Known(None);
        facts.data_dirs.remove(&directory);
        facts.manifest.claims.clear();
    });
}

#[test]
fn nodes_and_their_parts() {
    let world = anew().apply_all(&three());
    // The node that it was before is still listed.
    let mut old = anew();
    let id = old.swarms.keys().next().unwrap().clone();
    let node3 = old.swarms.get_mut(&id).unwrap().nodes.remove("node-node3").unwrap();
    let mut world = world;
    world.swarms.get_mut(&id).unwrap().nodes.insert("old".to_owned(), node3);
    let case = Case::of(three(), &world);
    let removes =
        |action: &Action| matches!(action, Action::Swarm(_, SwarmAction::RemoveNode { .. }));
    case.clone().step(removes);
    case.breaks("only a node that is down is removed", |case| {
        case.node_fact("old").state = "ready".to_owned();
    });
    let another = "a node is removed only where its server is known to be another one by now";
    case.breaks(another, |case| case.facts("node3").docker = Observation::unknown("hangs"));
    case.breaks(another, |case| case.node_fact("old").address = "192.0.2.9".to_owned());
    case.breaks("a node of a Swarm that is not ours is not removed", |case| {
        case.swarm().labels.clear();
    });
    case.breaks("a manager is removed only by a majority of managers", |case| {
        case.node_fact("node-node1").reachability = "unreachable".to_owned();
        case.node_fact("node-node2").reachability = "unreachable".to_owned();
    });
    let role = |case: &mut Case, id: &str, manager| {
        let action = SwarmAction::SetRole { node_id: id.to_owned(), manager };
        case.does(Action::Swarm(node("node1"), action));
    };
    case.breaks("a node's part becomes what the file says", |case| role(case, "node-node2", false));
    case.breaks("a role is changed only while every manager answers", |case| {
        role(case, "node-node2", true);
    });
    case.breaks("the last manager stays", |case| {
        case.swarm().nodes.retain(|id, _| id == "node-node2");
        role(case, "node-node2", false);
    });
}

/// Four servers of which `node4` is to leave, and has stopped as far as said.
fn leaving(patroni_stopped: bool) -> (Desired, World) {
    let mut world = World::converged(&fixture::desire(&fixture::spec(4, 0, |_| {})));
    let desired = fixture::desire(&fixture::spec_without(4, 0, &["node4"]));
    world.grow(&desired);
    if patroni_stopped {
        let unit = world.server_mut("node4").units.get_mut("patroni.service").unwrap();
        (unit.running, unit.enabled) = (false, false);
        world.settle();
    }
    (desired, world)
}

#[test]
fn who_leaves_is_not_missed() {
    let (desired, world) = leaving(false);
    let case = Case::of(desired, &world);
    let stops = |action: &Action| matches!(action, Action::Host(_, HostAction::StopPatroni { .. }));
    case.clone().step(stops);
    case.breaks("Patroni is stopped only on a server that leaves", |case| {
        case.desired.leaving.clear();
    });
    case.breaks("Patroni is stopped only where another is the one primary", |case| {
        case.patroni("node4").role = PatroniRole::Primary;
    });
    case.breaks("a member is disturbed only while all others serve", |case| {
        case.patroni("node2").streaming = false;
    });
    case.breaks("no member is disturbed while Patroni is paused", |case| {
        case.patroni("node1").paused = true;
    });
    case.breaks("a stop says that it is one", |case| case.step(stops).impact = Impact::None);
    let does = |case: &mut Case, on: &str, action| case.does(Action::Swarm(node(on), action));
    case.breaks("only the node of a server that is to leave is drained", |case| {
        does(case, "node1", SwarmAction::Drain { node_id: "node-node2".to_owned() });
    });
    case.breaks("only a server that is to leave leaves the Swarm", |case| {
        does(case, "node2", SwarmAction::Leave);
    });
}

#[test]
fn a_member_leaves_etcd_when_nothing_needs_it() {
    let (desired, world) = leaving(true);
    let case = Case::of(desired, &world);
    let mut own = case.clone();
    assert!(matches!(own.change().0, EtcdChange::Leave { .. }));
    case.breaks("only a server that is to leave leaves etcd, and alone", |case| {
        case.desired.leaving.clear();
    });
    case.breaks("a server leaves etcd when its Patroni has stopped", |case| {
        case.facts("node4").patroni = Observation::unknown("no answer");
    });
    case.breaks("whoever leaves is not asked", |case| {
        let url = case.desired.etcd.members[&node("node4")].client_url.clone();
        case.change().1.push(url);
    });
    case.breaks("the membership is changed only while all who vote are well", |case| {
        case.etcd("node2").healthy = false;
    });
}

#[test]
fn conditions_name_who_leaves_and_who_is_not_in_the_file() {
    let told = |desired: &Desired, world: &World, kind: &str| {
        let observed = world.observe(desired);
        let plan = plan(desired, &observed);
        let status = status(desired, &observed, &plan, None);
        let found = status.conditions.into_iter().find(|condition| condition.kind == kind);
        let found = found.unwrap();
        format!("{}: {}", found.reason, found.message)
    };
    let (desired, world) = leaving(false);
    assert_eq!(told(&desired, &world, "Leaving"), "InProgress: node4 has not left yet");
    assert!(told(&desired, &world, "OrphanedMember").starts_with("NoneKnown"));
    let how = |world: &World| {
        let observed = world.observe(&desired);
        let status = status(&desired, &observed, &plan(&desired, &observed), None);
        let stays = status.hosts.iter().filter(|host| host.leaving.is_none()).count();
        assert_eq!(stays, 3);
        status.hosts.into_iter().find_map(|host| host.leaving).unwrap()
    };
    let remains = how(&world).remains;
    assert_eq!(
        remains,
        [
            "Patroni is not off",
            "etcd has it as a member",
            "etcd is not off",
            "the Swarm has it as a node"
        ]
    );
    let mut dark = world.clone();
    dark.server_mut("node4").power = false;
    assert!(!how(&dark).left && how(&dark).remains.contains(&"it does not answer"));
    let gone = world.clone().apply_all(&desired);
    assert!(how(&gone).left && how(&gone).remains.is_empty());
    let text = told(&desired, &gone, "Leaving");
    assert!(text.starts_with("HasLeft: node4 has left and can be taken out of the file"), "{text}");
    assert_eq!(told(&three(), &gone, "OrphanedMember"), "NoneKnown: every member is in the file");
    assert!(told(&three(), &gone, "Leaving").starts_with("NobodyLeaves"));
    // Deleted from the file as it is: everything of it is named, and nothing touched.
    let text = told(&three(), &world, "OrphanedMember");
    for part in
        ["NotInFile", "etcd member node4 at http", "Patroni member node4", "Swarm node node4"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let observed = world.observe(&three());
    assert_eq!(plan(&three(), &observed).steps, []);
}

#[test]
fn plans_of_servers_that_go() {
    let (desired, world) = leaving(false);
    case("server-leaves", &desired, &world);
}

#[test]
fn plans_of_servers_that_come() {
    case("server-set-up-anew", &three(), &anew());
    let desired = fixture::desire(&fixture::spec(4, 0, |_| {}));
    let mut world = World::converged(&three());
    world.grow(&desired);
    case("server-added", &desired, &world);
}

//! Changes of etcd's and the Swarm's membership: every rule of the checker broken once, and the plans
//! as people read them.

use reconcile_core::{
    action::{Action, EtcdChange, HostAction, SwarmAction},
    model::{Claim, ClaimKind, DataDirFact, EtcdFact, HostName, Observation, SwarmFacts},
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

#[test]
fn plans_of_servers_that_come() {
    case("server-set-up-anew", &three(), &anew());
    let desired = fixture::desire(&fixture::spec(4, 0, |_| {}));
    let mut world = World::converged(&three());
    world.grow(&desired);
    case("server-added", &desired, &world);
}

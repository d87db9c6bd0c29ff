//! The checker can fail: every rule of it, broken once.

use std::collections::BTreeMap;

use reconcile_core::{
    action::{Action, HostAction, PatroniAction, PatroniGoal, SwarmAction, UnitVerb},
    check::check,
    desired::Desired,
    model::{ClaimKind, HostFacts, HostName, ObjectId, Observation, Observed, PatroniFact},
    plan::{Held, HoldReason, Impact, Plan, Step, plan},
};
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::Permission;

/// Inputs of a check.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) plan: Plan,
}

impl Case {
    pub(crate) fn of(desired: Desired, world: &World) -> Self {
        let observed = world.observe(&desired);
        let plan = plan(&desired, &observed);
        assert_eq!(check(&desired, &observed, &plan), []);
        Self { desired, observed, plan }
    }

    /// Asserts that after a change the checker names this rule.
    pub(crate) fn breaks(&self, rule: &str, change: impl FnOnce(&mut Self)) {
        let mut case = self.clone();
        change(&mut case);
        let found = check(&case.desired, &case.observed, &case.plan);
        assert!(found.iter().any(|violation| violation.rule == rule), "{rule}: {found:?}");
    }

    pub(crate) fn facts(&mut self, host: &str) -> &mut HostFacts {
        match self.observed.hosts.get_mut(&HostName::new(host)).unwrap() {
            Observation::Known(facts) => facts,
            Observation::Unknown { reason } => panic!("{reason}"),
        }
    }

    pub(crate) fn step(&mut self, wanted: impl Fn(&Action) -> bool) -> &mut Step {
        self.plan.steps.iter_mut().find(|step| wanted(&step.action)).unwrap()
    }

    /// Puts an action in the place of the first step.
    pub(crate) fn does(&mut self, action: Action) {
        self.plan.steps.truncate(1);
        self.plan.steps[0].action = action;
    }
}

pub(crate) fn three() -> Desired {
    fixture::desire(&fixture::spec(3, 0, |_| {}))
}

fn bare() -> Case {
    let desired = three();
    let world = World::bare(&desired);
    Case::of(desired, &world)
}

/// A converged cluster that is to get another environment for etcd and another front.
fn changing() -> Case {
    let world = World::converged(&three());
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| {
        spec.etcd.heartbeat_ms = 150;
        spec.haproxy.maxconn = 5000;
    }));
    Case::of(desired, &world)
}

fn node(name: &str) -> HostName {
    HostName::new(name)
}

fn writes(path: &'static str) -> impl Fn(&Action) -> bool {
    move |action| matches!(action, Action::Host(_, HostAction::WriteFile { file, .. }) if file.path == path)
}

fn unit(unit: &str, verb: UnitVerb) -> Action {
    Action::Host(node("node1"), HostAction::Unit { unit: unit.to_owned(), verb, enable: true })
}

#[test]
fn the_shape_of_a_plan() {
    let case = bare();
    case.breaks("steps are numbered in order", |case| case.plan.steps.swap(0, 1));
    case.breaks("a step comes after all that it needs", |case| case.plan.steps[3].after = vec![4]);
    case.breaks("a step comes after all that it needs", |case| case.plan.steps[3].after = vec![0]);
    case.breaks("one step an object", |case| {
        case.plan.steps[1].object = case.plan.steps[0].object.clone();
    });
    case.breaks("every step has a deadline", |case| case.plan.steps[0].deadline_seconds = 0);
    case.breaks("a held object is not touched", |case| {
        let object = case.plan.steps[0].object.clone();
        let reason = HoldReason::NeedsPerson("so it is".to_owned());
        case.plan.held.push(Held { object, reason });
    });
    case.breaks("at most one disruptive step", |case| {
        case.plan.steps[0].impact = Impact::Restart;
        case.plan.steps[1].impact = Impact::Restart;
    });
}

#[test]
fn servers() {
    let case = bare();
    case.breaks("a server of another cluster is not touched", |case| {
        case.facts("node2").manifest.cluster = Some("other".to_owned());
    });
    case.breaks("a server that could not be observed is not touched", |case| {
        case.observed.hosts.insert(node("node2"), Observation::unknown("off"));
    });
    case.breaks("a server that could not be observed is not touched", |case| {
        case.observed.hosts.remove(&node("node2"));
    });
}

#[test]
fn files_and_units() {
    let case = changing();
    case.breaks("a file that is not ours is not overwritten", |case| {
        case.facts("node1").manifest.claims.retain(|claim| claim.kind != ClaimKind::File);
    });
    case.breaks("only desired files are written", |case| {
        let step = case.step(writes("/etc/default/etcd"));
        let Action::Host(_, HostAction::WriteFile { file, .. }) = &mut step.action else {
            panic!()
        };
        "/etc/passwd".clone_into(&mut file.path);
    });
    case.breaks("Patroni is never restarted by systemd", |case| {
        let step = case.step(writes("/etc/default/etcd"));
        let Action::Host(_, HostAction::WriteFile { notify, .. }) = &mut step.action else {
            panic!()
        };
        *notify = Some(("patroni.service".to_owned(), UnitVerb::Restart));
    });
    case.breaks("a restart says that it is one", |case| {
        case.step(writes("/etc/default/etcd")).impact = Impact::None;
    });
    case.breaks("a restart leaves etcd its quorum", |case| {
        let Observation::Known(Some(etcd)) = &mut case.facts("node2").etcd else { panic!() };
        etcd.healthy = false;
    });
    case.breaks("a restart leaves etcd its quorum", |case| {
        case.observed.hosts.insert(node("node3"), Observation::unknown("off"));
    });
    case.breaks("an etcd that is not ours is not restarted", |case| {
        case.facts("node1").manifest.claims.retain(|claim| claim.kind != ClaimKind::DataDir);
    });
    case.breaks("an etcd member that is not known is not restarted", |case| {
        case.facts("node1").etcd = Observation::unknown("no answer");
    });
    case.breaks("a file that is not ours is not removed", |case| {
        let (path, digest) = ("/etc/passwd".to_owned(), String::new());
        case.does(Action::Host(node("node1"), HostAction::RemoveFile { path, digest }));
    });
    for verb in [UnitVerb::Stop, UnitVerb::Restart] {
        case.breaks("Patroni is never stopped or restarted by systemd", |case| {
            case.does(unit("patroni.service", verb));
        });
        case.breaks("a restart says that it is one", |case| {
            case.does(unit("etcd.service", verb));
            case.plan.steps[0].impact = Impact::None;
        });
    }
}

#[test]
fn founding_etcd() {
    let case = bare();
    let directory = case.desired.etcd.data_dir.clone();
    let populate = |facts: &mut HostFacts| {
        let fact = reconcile_core::model::DataDirFact { populated: true, system_identifier: None };
        facts.data_dirs.insert(directory.clone(), fact);
    };
    let founds = |action: &Action| matches!(action, Action::Host(_, HostAction::StartEtcd { .. }));
    let host = |case: &mut Case| {
        let Action::Host(host, _) = &case.step(founds).action else { panic!() };
        host.to_string()
    };
    case.breaks("a member with data is not started as one without", |case| {
        let host = host(case);
        populate(case.facts(&host));
    });
    case.breaks("etcd is founded only where every member's host is known", |case| {
        case.observed.hosts.insert(node("node3"), Observation::unknown("off"));
    });
    case.breaks("etcd that has formed once is never founded again", |case| {
        let name = case.desired.etcd.token.clone();
        let claim = reconcile_core::model::Claim { kind: ClaimKind::EtcdFormed, name };
        case.facts("node3").manifest.claims.insert(claim);
    });
    case.breaks("etcd is not founded beside somebody else's data", |case| {
        populate(case.facts("node3"));
    });
    case.breaks("etcd is not founded beside a healthy cluster", |case| {
        let converged = World::converged(&case.desired).observe(&case.desired);
        case.facts("node3").etcd = converged.host(&node("node3")).unwrap().etcd.clone();
    });
}

#[test]
fn making_the_database() {
    let case = bare();
    let directory = case.desired.patroni.data_dir.clone();
    let populate = |facts: &mut HostFacts| {
        let fact = reconcile_core::model::DataDirFact { populated: true, system_identifier: None };
        facts.data_dirs.insert(directory.clone(), fact);
    };
    case.breaks("Patroni is not started on somebody else's data", |case| {
        populate(case.facts("node2"));
    });
    case.breaks("a new database is made only where every host is known to have none", |case| {
        populate(case.facts("node3"));
    });
    case.breaks("a new database is made only where every host is known to have none", |case| {
        case.observed.hosts.insert(node("node3"), Observation::unknown("off"));
    });
    case.breaks("one host makes the database", |case| {
        for step in &mut case.plan.steps {
            if let Action::Host(_, HostAction::StartPatroni { until, .. }) = &mut step.action {
                *until = PatroniGoal::Primary;
            }
        }
    });
    case.breaks("SQL runs only in a database that is ours", |case| {
        case.plan.steps.retain(|step| {
            !matches!(step.action, Action::Host(_, HostAction::StartPatroni { .. }))
        });
    });
    let patch = PatroniAction::PatchConfig { patch: "{}".to_owned(), settle_seconds: 0 };
    case.breaks("a Patroni that is not ours is not configured", |case| {
        case.does(Action::Patroni(node("node1"), patch));
    });
}

/// A converged cluster in which a parameter is to change.
fn rolling(name: &str, value: &str) -> Case {
    let (name, value) = (name.to_owned(), value.to_owned());
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| {
        spec.postgresql.parameters.insert(name, value);
    }));
    let mut case = Case::of(desired, &World::converged(&three()));
    // The restart alone, as it is planned once Patroni has the value.
    case.plan.steps.retain(|step| step.impact >= Impact::Restart);
    case.plan.steps[0].id = 1;
    case.plan.steps[0].after.clear();
    case
}

#[test]
fn restarts_of_postgresql() {
    let raise = rolling("max_connections", "300");
    let lower = rolling("max_connections", "150");
    let patroni = |on: &str, action| Action::Patroni(node(on), action);
    let replica = PatroniAction::RestartReplica {
        runs: BTreeMap::new(),
        replaced: None,
        notice_seconds: 10,
        data_dir: "/var/lib/postgresql/15/main".to_owned(),
        max_lag_bytes: 1,
    };
    let all: Vec<HostName> = ["node1", "node2", "node3"].map(HostName::from).to_vec();
    let hand_over = |to: &str| PatroniAction::HandOver { candidate: node(to), nodes: all.clone() };
    let restart = |nodes: &[HostName]| PatroniAction::RestartPrimary {
        runs: BTreeMap::new(),
        replaced: None,
        data_dir: String::new(),
        nodes: nodes.to_vec(),
    };
    let in_place = restart(&all);
    let fact = |case: &mut Case, host: &str, change: fn(&mut PatroniFact)| {
        let Observation::Known(Some(fact)) = &mut case.facts(host).patroni else { panic!() };
        change(fact);
    };

    raise.breaks("a restart says that it is one", |case| case.plan.steps[0].impact = Impact::None);
    raise.breaks("what the policy does not allow is not done", |case| {
        case.desired.policy.restart = Permission::Never;
    });
    raise.breaks("a member is disturbed only while all others serve", |case| {
        fact(case, "node3", |fact| fact.streaming = false);
    });
    raise.breaks("a member is disturbed only while all others serve", |case| {
        case.facts("node3").patroni = Observation::unknown("no answer");
    });
    raise.breaks("no member is disturbed while Patroni is paused", |case| {
        fact(case, "node1", |fact| fact.paused = true);
    });
    raise.breaks("no member is disturbed without a quorum of etcd", |case| {
        for host in ["node2", "node3"] {
            case.facts(host).etcd = Observation::Known(None);
        }
    });
    raise.breaks("only a replica of the one primary is restarted as one", |case| {
        case.does(patroni("node1", replica.clone()));
    });
    lower.breaks("what is lowered is lowered on the primary first", |case| {
        case.does(patroni("node2", replica.clone()));
    });
    lower.breaks("what is lowered is lowered on the primary first", |case| {
        case.does(patroni("node1", hand_over("node2")));
    });
    raise.breaks("replicas are restarted before the primary", |case| {
        case.does(patroni("node1", hand_over("node2")));
    });
    raise.breaks("the primary is restarted only where no replica can take over", |case| {
        case.does(patroni("node1", in_place.clone()));
    });
    raise.breaks("what is raised is raised on the replicas first", |case| {
        case.does(patroni("node1", in_place.clone()));
    });
    raise.breaks("a transaction is on the one primary", |case| {
        case.does(patroni("node2", hand_over("node3")));
    });
    let poolers = "every pooler that runs waits while the primary moves, and no other";
    lower.breaks(poolers, |case| case.does(patroni("node1", restart(&all[..2]))));
    // One of them is drained.
    lower.breaks(poolers, |case| {
        let Observation::Known(Some(swarm)) = &mut case.observed.swarm else { panic!() };
        let (drained, _) = swarm.nodes.iter().find(|(_, node)| node.hostname == "node3").unwrap();
        for service in swarm.services.values_mut() {
            service.tasks.retain(|task| task.node_id != *drained);
        }
    });
    for spoil in [
        (|fact| fact.wal_position = None) as fn(&mut PatroniFact),
        |fact| fact.wal_position = Some(1),
        |fact| fact.timeline += 1,
        |fact| fact.streaming = false,
    ] {
        raise.breaks("only a replica that is known to follow takes over", |case| {
            case.does(patroni("node1", hand_over("node2")));
            fact(case, "node2", spoil);
        });
    }
    raise.breaks("only a replica that is known to follow takes over", |case| {
        case.does(patroni("node1", hand_over("node9")));
    });
    changing().breaks("quorum is asked for again in the moment of a restart", |case| {
        let step = case.step(writes("/etc/default/etcd"));
        let Action::Host(_, HostAction::WriteFile { quorum, .. }) = &mut step.action else {
            panic!()
        };
        *quorum = None;
    });
}

#[test]
fn the_swarm() {
    let case = changing();
    let swarm = |action| Action::Swarm(node("node1"), action);
    let labels = case.desired.swarm.labels.clone();
    case.breaks("a Swarm is founded only where none is known to be", |case| {
        let (advertise, labels) = ("10.0.0.1".to_owned(), labels.clone());
        case.does(swarm(SwarmAction::Init { advertise, labels }));
    });
    case.breaks("a Swarm with an owner is not labelled anew", |case| {
        case.does(swarm(SwarmAction::Label { labels: labels.clone() }));
    });
    let name = "somebody-elses".to_owned();
    case.breaks("a config that is not ours is not removed", |case| {
        case.does(swarm(SwarmAction::RemoveConfig { name: name.clone() }));
    });
    case.breaks("a secret that is not ours is not removed", |case| {
        case.does(swarm(SwarmAction::RemoveSecret { name: name.clone() }));
    });
    let update = |case: &mut Case, stranger: bool, older: u64| {
        let spec = case.desired.swarm.services[3].clone();
        let Observation::Known(Some(facts)) = &mut case.observed.swarm else { panic!() };
        let fact = facts.services.get_mut(&spec.name).unwrap();
        if stranger {
            fact.spec.labels.clear();
        }
        let version = fact.version - older;
        case.does(swarm(SwarmAction::UpdateService {
            spec: Box::new(spec),
            version,
            tasks: 3,
            waits: vec![],
            first: vec![],
            begins: false,
        }));
    };
    case.breaks("a service that is not ours is not changed", |case| update(case, true, 0));
    case.breaks("a service is changed from the version that was observed", |case| {
        update(case, false, 1);
    });
    let fine = |case: &mut Case| {
        update(case, false, 0);
        check(&case.desired, &case.observed, &case.plan)
    };
    assert_eq!(fine(&mut case.clone()), [], "the broken plans above differ by one thing only");
    assert!(case.plan.held.iter().any(|held| matches!(held.object, ObjectId::File(..))));
}

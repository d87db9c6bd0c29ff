//! The checker's rules of who gets into PostgreSQL, each broken once.

use reconcile_core::{
    action::{AccessTrial, Action, HostAction},
    check::check,
    desired::{Desired, access::warning, desired},
    model::{AccessNote, AccessState, ClaimKind, Observation, SecretText},
    plan::{Impact, plan, text},
    status::{Truth, status},
};
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::{HbaMethod, HbaRule, HbaType};

use crate::refusals::{Case, three};

fn rule(address: &str, method: HbaMethod) -> HbaRule {
    HbaRule {
        kind: HbaType::Host,
        database: "all".to_owned(),
        user: "all".to_owned(),
        address: Some(address.to_owned()),
        method,
        options: [].into(),
        deliberate: false,
    }
}

/// A converged cluster of three that is to let somebody else in.
fn opening() -> Case {
    let world = World::converged(&three());
    let own = rule("10.9.0.0/16", HbaMethod::ScramSha256);
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| spec.postgresql.hba.push(own)));
    Case::of(desired, &world)
}

fn note(case: &mut Case, host: &str, state: AccessState) {
    let digest = case.desired.patroni.access.digest.clone();
    case.facts(host).access = Some(AccessNote { state, digest, reason: String::new() });
}

fn trial(case: &mut Case) -> &mut AccessTrial {
    match &mut case.step(|_| true).action {
        Action::Host(_, HostAction::TryAccess { trial, .. }) => trial,
        other => panic!("{other:?}"),
    }
}

/// Has the trial take place somewhere else.
fn on(case: &mut Case, host: &str) {
    if let Action::Host(name, _) = &mut case.step(|_| true).action {
        *name = host.into();
    }
}

/// The file is simply written.
fn writes(case: &mut Case, host: &str) {
    let server = &case.desired.servers[&host.into()];
    let file = server.files["/etc/patroni/patroni.yml"].file.clone();
    let action = HostAction::WriteFile {
        file,
        before: Some("before".to_owned()),
        claim: false,
        notify: None,
        quorum: None,
        cluster: "main".to_owned(),
    };
    case.does(Action::Host(host.into(), action));
}

#[test]
fn what_nobody_has_proven_reaches_no_server_that_runs() {
    let case = opening();
    let unproven = "access rules that no server has proven do not reach one that runs";
    for host in ["node1", "node2", "node3"] {
        case.breaks(unproven, |case| writes(case, host));
        case.breaks(unproven, |case| {
            note(case, "node2", AccessState::Proven);
            writes(case, host);
        });
    }
    let own = case.desired.patroni.access.file_digest.clone();
    let loaded = |case: &mut Case, host: &str| {
        let file = case.facts(host).files.get_mut("/var/lib/postgresql/15/main/pg_hba.conf");
        file.unwrap().digest.clone_from(&own);
    };
    // Tried, but not to the end; loaded by hand on a replica.
    for state in [None, Some(AccessState::Trying), Some(AccessState::Refused)] {
        case.breaks(unproven, |case| {
            loaded(case, "node2");
            if let Some(state) = state {
                note(case, "node2", state);
            }
            writes(case, "node1");
        });
    }
}

#[test]
fn what_is_tried_and_where() {
    let case = opening();
    case.breaks("only the desired access rules are tried", |case| trial(case).lines.clear());
    case.breaks("only the desired access rules are tried", |case| trial(case).digest.clear());
    case.breaks("access rules are not tried on the primary while a replica streams", |case| {
        on(case, "node1");
    });
    case.breaks("access rules are tried on a member of ours that stays", |case| {
        let claims = &mut case.facts("node2").manifest.claims;
        claims.retain(|claim| claim.kind != ClaimKind::DataDir);
    });
    case.breaks("while access rules are tried no other server gets them", |case| {
        let step = case.plan.steps[0].clone();
        case.plan.steps.push(step);
    });
    case.breaks("access rules that were refused are not tried again", |case| {
        note(case, "node3", AccessState::Refused);
    });
    case.breaks("access rules that are known to lock somebody out are not tried", |case| {
        case.desired.patroni.access.lockouts.push("app".to_owned());
    });
    case.breaks("a file that is not ours is not overwritten", |case| {
        let claims = &mut case.facts("node2").manifest.claims;
        claims.retain(|claim| claim.kind != ClaimKind::File);
    });
}

const CONFIG: &str = "/etc/patroni/patroni.yml";
const RULES: &str = "/var/lib/postgresql/15/main/pg_hba.conf";

/// Somebody changed a file.
fn drifts(case: &mut Case, host: &str, path: &str) {
    case.facts(host).files.get_mut(path).unwrap().digest = String::from("drifted");
}

fn streams_no_more(case: &mut Case, host: &str) {
    let Observation::Known(Some(fact)) = &mut case.facts(host).patroni else { panic!() };
    fact.streaming = false;
}

fn rotated() -> Desired {
    let spec = fixture::spec(3, 0, |_| {});
    let mut values = fixture::secrets(&spec);
    values.insert("postgres-replication".to_owned(), SecretText::new("another-value-for-it"));
    desired(&spec, &values).unwrap()
}

/// Where access rules are tried by the plan of what is seen by now.
fn tried_on(case: &mut Case) -> String {
    case.plan = plan(&case.desired, &case.observed);
    assert_eq!(check(&case.desired, &case.observed, &case.plan), []);
    let trials = case.plan.steps.iter().filter_map(|step| match &step.action {
        Action::Host(host, HostAction::TryAccess { .. }) => {
            Some(format!("{host}: {}", step.reason))
        }
        _ => None,
    });
    trials.collect::<Vec<_>>().join(", ")
}

/// A cluster that was founded without a trial has no note of one, and is still mended.
#[test]
fn rules_that_no_note_speaks_of_are_proven_where_they_are_in_force() {
    let world = World::converged(&three());
    let first = "node2: the access rules that it has are proven first";

    let mut case = Case::of(three(), &world);
    assert!(case.plan.steps.is_empty());
    drifts(&mut case, "node1", RULES);
    assert_eq!(tried_on(&mut case), "", "no file waits for it");
    assert!(case.plan.steps.is_empty());
    drifts(&mut case, "node1", CONFIG);
    assert_eq!(tried_on(&mut case), first, "a line by hand on the primary");

    let mut case = Case::of(rotated(), &world);
    assert_eq!(tried_on(&mut case), "", "the primary has them");
    drifts(&mut case, "node1", RULES);
    assert_eq!(tried_on(&mut case), first, "pg_hba.conf by hand, then a new password");
    drifts(&mut case, "node2", RULES);
    let third = first.replace("node2", "node3");
    assert_eq!(tried_on(&mut case), third, "where nothing has to be loaded");

    // Proven for other logins, and no second replica.
    let mut case = Case::of(three(), &world);
    note(&mut case, "node2", AccessState::Proven);
    case.facts("node2").access.as_mut().unwrap().digest = "before".to_owned();
    streams_no_more(&mut case, "node3");
    drifts(&mut case, "node1", RULES);
    drifts(&mut case, "node1", CONFIG);
    assert_eq!(tried_on(&mut case), first);
}

#[test]
fn a_replica_that_does_not_stream_is_mended_though_the_primary_has_nothing_to_prove() {
    let mut case = Case::of(three(), &World::converged(&three()));
    drifts(&mut case, "node1", RULES);
    drifts(&mut case, "node2", RULES);
    drifts(&mut case, "node2", CONFIG);
    streams_no_more(&mut case, "node2");
    streams_no_more(&mut case, "node3");
    assert!(tried_on(&mut case).starts_with("node2: "), "{:#?}", case.plan);
}

/// The server that does not answer may be the primary, and this one the next.
#[test]
fn a_trial_that_was_cut_off_is_taken_back_whatever_else_is_unknown() {
    let mut case = opening();
    note(&mut case, "node2", AccessState::Trying);
    case.observed.hosts.insert("node1".into(), Observation::unknown("no answer"));
    let reason = "node2: a trial of access rules was cut off here";
    assert_eq!(tried_on(&mut case), reason);
    assert_eq!(case.step(|_| true).impact, Impact::None);
    assert!(trial(&mut case).back);
    let only_back = "while a server is unknown a trial that was cut off is only taken back";
    case.breaks(only_back, |case| trial(case).back = false);

    let mut known = opening();
    note(&mut known, "node2", AccessState::Trying);
    assert_eq!(tried_on(&mut known), reason);
    assert!(!trial(&mut known).back, "it is begun again");
    let began = "only a trial of access rules that was cut off is taken back";
    opening().breaks(began, |case| trial(case).back = true);
}

/// Rules that lock somebody out are told as long as they stand, also where nothing is to be done.
#[test]
fn a_lockout_in_force_is_a_standing_warning() {
    let with = |deliberate: bool| {
        let reject = rule("0.0.0.0/0", HbaMethod::Reject);
        let own = HbaRule { user: "app".to_owned(), deliberate, ..reject };
        let spec = fixture::spec(3, 0, |spec| spec.postgresql.hba.push(own));
        let desired = fixture::desire(&spec);
        let observed = World::converged(&desired).observe(&desired);
        let plan = plan(&desired, &observed);
        assert!(plan.is_converged(), "{plan:#?}");
        let shown = status(&desired, &observed, &plan, None);
        let mut all = shown.conditions.into_iter();
        let condition = all.find(|condition| condition.kind == "LockedOut").unwrap();
        assert_eq!(warning(&spec).is_some(), condition.status == Truth::True);
        (text(&plan, false), condition)
    };
    let (plan, condition) = with(false);
    assert_eq!((condition.status, condition.reason), (Truth::True, "ByRules"));
    assert!(condition.message.contains("lock out app to database"), "{}", condition.message);
    assert!(condition.message.contains("by `host all app 0.0.0.0/0 reject`"));
    assert!(plan.contains(
        "is as desired: nothing to do.\n\nWarning: the access rules of the file lock out app"
    ));
    assert!(plan.contains("say `deliberate: true` there"), "{plan}");
    let (plan, condition) = with(true);
    assert_eq!((condition.status, condition.reason), (Truth::False, "NobodyKnown"));
    assert!(!plan.contains("Warning"), "{plan}");
}

//! The checker's rules of who gets into PostgreSQL, each broken once.

use reconcile_core::{
    action::{AccessTrial, Action, HostAction},
    model::{AccessNote, AccessState, ClaimKind},
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

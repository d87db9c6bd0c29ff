//! Rules of who gets into PostgreSQL reach no server that runs before one has proven them.

use crate::{
    action::{AccessTrial, Action, HostAction},
    desired::{Desired, patroni::CONFIG},
    model::{AccessState, HostFacts, HostName, Observed, PatroniRole},
    plan::Plan,
};

fn runs(desired: &Desired, observed: &Observed, host: &HostName) -> Option<PatroniRole> {
    let fact = observed.host(host)?.patroni.present()?;
    (super::our_patroni(desired, observed, host) && fact.state == "running").then_some(fact.role)
}

fn loaded(desired: &Desired, facts: &HostFacts) -> bool {
    let path = format!("{}/pg_hba.conf", desired.patroni.data_dir);
    facts.files.get(&path).is_some_and(|file| file.digest == desired.patroni.access.file_digest)
}

fn members<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = (&'a HostName, &'a HostFacts)> {
    let stay = desired.patroni.members.keys().filter(|host| !desired.leaves(host));
    stay.filter_map(|host| Some((host, observed.host(host)?)))
}

/// A file with rules that a running server does not have yet.
pub(super) fn check_write(
    desired: &Desired,
    observed: &Observed,
    host: &HostName,
    broken: &mut impl FnMut(&'static str),
) {
    let led = members(desired, observed)
        .any(|(host, _)| runs(desired, observed, host) == Some(PatroniRole::Primary));
    let Some(facts) = observed.host(host) else { return };
    if !led || runs(desired, observed, host).is_none() || loaded(desired, facts) {
        return;
    }
    let proven = members(desired, observed).any(|(host, facts)| {
        let Some(role) = runs(desired, observed, host) else { return false };
        let written = desired.servers.get(host).and_then(|server| server.files.get(CONFIG));
        let written = written.map(|managed| managed.file.content.digest());
        let there = facts.files.get(CONFIG).map(|file| file.digest.clone());
        let loaded = loaded(desired, facts);
        match &facts.access {
            Some(note) if note.state == AccessState::Trying => false,
            Some(note)
                if note.state == AccessState::Proven
                    && note.digest == desired.patroni.access.digest =>
            {
                loaded || written.is_some() && written == there
            }
            _ => loaded && role == PatroniRole::Primary,
        }
    });
    if !proven {
        broken("access rules that no server has proven do not reach one that runs");
    }
}

/// A trial.
pub(super) fn check_trial(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    (host, path): (&HostName, &str),
    trial: &AccessTrial,
    broken: &mut impl FnMut(&'static str),
) {
    let access = &desired.patroni.access;
    if path != CONFIG || trial.digest != access.digest || trial.lines != access.lines {
        broken("only the desired access rules are tried");
    }
    if desired.leaves(host) || !super::our_patroni(desired, observed, host) {
        let cut_off = observed.host(host).is_some_and(|facts| facts.access.is_some());
        if desired.leaves(host) || !cut_off {
            broken("access rules are tried on a member of ours that stays");
        }
    }
    let config = plan.steps.iter().filter(|step| match &step.action {
        Action::Host(_, HostAction::TryAccess { .. }) => true,
        Action::Host(_, HostAction::WriteFile { file, .. }) => file.path == CONFIG,
        _ => false,
    });
    if config.count() > 1 {
        broken("while access rules are tried no other server gets them");
    }
    let note = observed.host(host).and_then(|facts| facts.access.as_ref());
    let cut_off = note.is_some_and(|note| note.state == AccessState::Trying);
    if trial.back {
        if !cut_off {
            broken("only a trial of access rules that was cut off is taken back");
        }
        return;
    }
    if !access.lockouts.is_empty() {
        broken("access rules that are known to lock somebody out are not tried");
    }
    if cut_off {
        if desired.servers.keys().any(|host| observed.host(host).is_none()) {
            broken("while a server is unknown a trial that was cut off is only taken back");
        }
        return;
    }
    let replica = |(host, _): (&HostName, &HostFacts)| {
        let streams = observed.host(host).and_then(|facts| facts.patroni.present());
        runs(desired, observed, host) == Some(PatroniRole::Replica)
            && streams.is_some_and(|fact| fact.streaming)
    };
    let on_primary = runs(desired, observed, host) == Some(PatroniRole::Primary);
    if on_primary && members(desired, observed).any(replica) {
        broken("access rules are not tried on the primary while a replica streams");
    }
    let refused = members(desired, observed).any(|(_, facts)| {
        facts
            .access
            .as_ref()
            .is_some_and(|note| note.state == AccessState::Refused && note.digest == access.digest)
    });
    if refused {
        broken("access rules that were refused are not tried again");
    }
}

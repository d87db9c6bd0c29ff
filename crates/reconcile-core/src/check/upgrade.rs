//! What no upgrade of packages may ever do, whoever planned it.

use std::cmp::Ordering;

use super::{our_patroni, roll};
use crate::{
    desired::{Desired, etcd},
    model::{ClaimKind, HostName, Observed, PatroniRole},
    plan::Step,
    version,
};

pub(super) fn check(
    desired: &Desired,
    observed: &Observed,
    step: &Step,
    host: &HostName,
    (packages, outdates, asks): (&[(String, String)], &[String], bool),
    broken: &mut impl FnMut(&'static str),
) {
    let (Some(server), Some(facts)) = (desired.servers.get(host), observed.host(host)) else {
        broken("only servers of the file are upgraded");
        return;
    };
    if !step.impact.disruptive() {
        broken("an upgrade says that restarts follow");
    }
    if !server.install {
        broken("nothing is installed where packages are not ours to install");
    }
    for (name, to) in packages {
        let pinned = |package: &crate::desired::server::DesiredPackage| {
            package.name == *name && package.version.as_ref() == Some(to)
        };
        if !server.packages.iter().any(pinned) {
            broken("only what the file pins is upgraded");
        }
        let directory = if etcd::PACKAGES.contains(&name.as_str()) {
            &desired.etcd.data_dir
        } else {
            &desired.patroni.data_dir
        };
        if !facts.manifest.claims(ClaimKind::DataDir, directory) {
            broken("what may run for somebody else is not upgraded");
        }
        let older = facts.packages.get(name).is_some_and(|fact| {
            fact.complete && version::compare(&fact.version, to) == Ordering::Less
        });
        if !older {
            broken("a version is only replaced by a newer one");
        }
    }
    for (package, unit) in [
        (etcd::PACKAGES[0], etcd::UNIT),
        (crate::desired::patroni::PACKAGES[0], crate::desired::patroni::UNIT),
    ] {
        let replaced = packages.iter().any(|(name, _)| name == package);
        if replaced && server.units.contains_key(unit) && !outdates.iter().any(|u| u == unit) {
            broken("a unit whose program is replaced is noted first");
        }
    }
    check_others(desired, observed, host, (packages, asks), broken);
}

/// What is half installed is not finished under a primary.
pub(super) fn check_finish(
    desired: &Desired,
    observed: &Observed,
    host: &HostName,
    (packages, asks): (&[&str], bool),
    broken: &mut impl FnMut(&'static str),
) {
    let Some(facts) = observed.host(host) else { return };
    let half = |name: &&str| {
        !etcd::PACKAGES.contains(name)
            && facts.packages.get(*name).is_some_and(|fact| !fact.complete)
    };
    let members = &desired.patroni.members;
    let ours = members.contains_key(host)
        && facts.manifest.claims(ClaimKind::DataDir, &desired.patroni.data_dir);
    let alone = !members.keys().any(|member| member != host && !desired.leaves(member));
    if !ours || alone || !packages.iter().any(half) {
        return;
    }
    if !asks {
        broken("who leads is asked for again where what is half installed is finished");
    }
    let fact = facts.patroni.present().filter(|_| our_patroni(desired, observed, host));
    if fact.is_some_and(|fact| fact.role == PatroniRole::Primary) {
        broken("what is half installed is not finished under a primary");
    }
}

/// While one server's programs are replaced, all others serve and have nothing to be started anew.
fn check_others(
    desired: &Desired,
    observed: &Observed,
    host: &HostName,
    (packages, asks): (&[(String, String)], bool),
    broken: &mut impl FnMut(&'static str),
) {
    let fact = |member: &HostName| {
        let ours = our_patroni(desired, observed, member);
        observed.host(member).and_then(|facts| facts.patroni.present()).filter(|_| ours)
    };
    let stays = |member: &&HostName| !desired.leaves(member);
    let others = || desired.servers.keys().filter(stays).filter(|member| *member != host);
    let outdated = |member: &HostName| {
        observed.host(member).is_none_or(|facts| facts.units.values().any(|unit| unit.outdated))
    };
    if others().any(outdated) {
        broken("one server is upgraded to its end before the next");
    }
    let mut members = others().filter(|member| desired.patroni.members.contains_key(*member));
    if !members.all(|member| fact(member).is_some_and(roll::well)) {
        broken("a server is upgraded only while all other members serve");
    }
    let healthy = |member: &HostName| {
        observed.host(member).is_some_and(|facts| {
            facts.manifest.claims(ClaimKind::DataDir, &desired.etcd.data_dir)
                && facts.etcd.present().is_some_and(|etcd| etcd.healthy)
        })
    };
    let mut members = others().filter(|member| desired.etcd.members.contains_key(*member));
    if !members.all(healthy) {
        broken("a server is upgraded only while all other members of etcd are healthy");
    }
    let member = desired.patroni.members.contains_key(host);
    let database =
        member && packages.iter().any(|(name, _)| !etcd::PACKAGES.contains(&name.as_str()));
    let leads = fact(host).is_some_and(|fact| fact.role == PatroniRole::Primary);
    let alone = !others().any(|member| desired.patroni.members.contains_key(member));
    if database && !alone && !asks {
        broken("who leads is asked for again in the moment of an upgrade");
    }
    if database && leads && !alone {
        broken("the primary's programs are not replaced while a replica could take over");
    }
}

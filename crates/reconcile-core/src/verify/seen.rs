//! What observations prove by themselves, and what it comes of where proofs do not hold: what is named
//! first is what somebody can mend.

use super::{DRAINED, Front, LEADER, Proof, VerifyReport, Way, no_primary};
use crate::{
    desired::Desired,
    model::{HostName, Observation, Observed},
    primary::{NoPrimary, primary},
};

/// What the observations themselves prove: one leader, replication streaming to every replica, all
/// etcd members healthy. They took no time of their own. What could not be observed is not tried.
pub fn observed_proofs(desired: &Desired, observed: &Observed) -> Vec<Proof> {
    let mut proofs = Vec::new();
    let leader = primary(desired, observed);
    if !desired.patroni.members.is_empty() {
        proofs.push(one_leader(desired, observed, &leader));
    }
    if let Ok(leader) = &leader
        && let Some(fact) = observed.host(leader).and_then(|facts| facts.patroni.present())
    {
        let stays = |member: &&HostName| *member != leader && !desired.leaves(member);
        for replica in desired.patroni.members.keys().filter(stays) {
            let standby = fact
                .replication
                .iter()
                .find(|standby| standby.application_name == replica.as_str());
            let state = standby.map_or("not connected", |standby| standby.state.as_str());
            let holds = state == "streaming";
            proofs.push(Proof {
                what: format!("replication from {leader} to {replica}"),
                host: Some(replica.clone()),
                holds,
                detail: state.to_owned(),
                comes_of: unseen(observed, replica).filter(|_| !holds),
                ..Proof::default()
            });
        }
    }
    for host in desired.etcd.members.keys().filter(|host| !desired.leaves(host)) {
        let etcd = observed.host(host).map(|facts| &facts.etcd);
        let (holds, untried, detail) = match etcd {
            Some(Observation::Known(Some(etcd))) if etcd.healthy => (true, false, "healthy"),
            Some(Observation::Known(_)) => (false, false, "not healthy"),
            Some(Observation::Unknown { .. }) | None => (false, true, "not known"),
        };
        let comes_of = unseen(observed, host);
        proofs.push(Proof {
            what: format!("etcd member {host}"),
            host: Some(host.clone()),
            holds,
            detail: detail.to_owned(),
            // That it does not answer while others do is known of its server.
            untried: untried && !dead(observed, host),
            comes_of,
            ..Proof::default()
        });
    }
    proofs
}

fn one_leader(
    desired: &Desired,
    observed: &Observed,
    leader: &Result<HostName, NoPrimary>,
) -> Proof {
    let none = match leader {
        Ok(leader) => {
            return Proof {
                what: LEADER.to_owned(),
                holds: true,
                detail: leader.to_string(),
                ..Proof::default()
            };
        }
        Err(none) => none,
    };
    let what = LEADER.to_owned();
    match none {
        NoPrimary::Several(names) => Proof { what, detail: names.clone(), ..Proof::default() },
        NoPrimary::Nowhere(_) => Proof {
            what,
            detail: "none".to_owned(),
            comes_of: Some("no primary".to_owned()),
            ..Proof::default()
        },
        NoPrimary::Unknown(_) => {
            let comes_of = Some(missing_primary(desired, observed));
            Proof {
                what,
                detail: "not known".to_owned(),
                untried: true,
                comes_of,
                ..Proof::default()
            }
        }
    }
}

/// Why no primary is known, where members are not known.
pub fn missing_primary(desired: &Desired, observed: &Observed) -> String {
    let why: Vec<_> = desired
        .patroni
        .members
        .keys()
        .filter_map(|host| match observed.host(host) {
            None => unseen(observed, host),
            Some(facts) => {
                facts.patroni.reason().map(|_| format!("Patroni on {host} does not tell"))
            }
        })
        .collect();
    if why.is_empty() {
        return "no primary".to_owned();
    }
    format!("no primary is known: {}", super::gathered(why).join("; "))
}

/// Why nothing is known of a server, in a few words.
fn unseen(observed: &Observed, host: &HostName) -> Option<String> {
    if observed.host(host).is_some() {
        return None;
    }
    let how =
        if observed.barred.contains(host) { "cannot be looked at" } else { "does not answer" };
    Some(format!("{host} {how}"))
}

/// A server that does not answer while others do. Where none does, that may be us.
pub(crate) fn dead(observed: &Observed, host: &HostName) -> bool {
    let others = observed.hosts.values().any(|facts| facts.known().is_some());
    others && observed.host(host).is_none() && !observed.barred.contains(host)
}

/// Proofs of the ways in through which nothing could be tried.
fn untried(desired: &Desired, observed: &Observed, fronts: &[Front]) -> Vec<Proof> {
    let stays = fronts.iter().filter(|front| !desired.leaves(&front.host));
    let ways = stays.flat_map(|front| {
        let read = front.read_port.map(|_| (Way::Read, "read"));
        [Some((Way::Write, "write")), read].into_iter().flatten().map(move |way| (front, way))
    });
    ways.map(|(front, (way, deed))| Proof {
        what: format!("{deed} through {} on {}", front.through, front.host),
        host: Some(front.host.clone()),
        way: Some(way),
        detail: "not tried".to_owned(),
        untried: !dead(observed, &front.host),
        comes_of: unseen(observed, &front.host),
        ..Proof::default()
    })
    .collect()
}

/// The report of proofs that were made, with those that could not be, and what it comes of where they do
/// not hold. `unseen`: the ways in of nodes that are not known.
pub fn concluded(
    desired: &Desired,
    observed: &Observed,
    unseen: &[Front],
    mut proofs: Vec<Proof>,
) -> VerifyReport {
    proofs.extend(untried(desired, observed, unseen));
    let leaderless = proofs.iter().find(|proof| proof.what == LEADER && !proof.holds);
    let leaderless = leaderless.map(Proof::cause).filter(|cause| no_primary(cause));
    let silent: Vec<_> = proofs
        .iter()
        .filter(|proof| proof.fails() && !proof.silent.is_empty())
        .map(|proof| (proof.silent.clone(), proof.line()))
        .collect();
    for proof in &mut proofs {
        let (Some(way), Some(host), None) = (proof.way, &proof.host, &proof.comes_of) else {
            continue;
        };
        if !proof.fails() {
            continue;
        }
        let pooler = if way == Way::Write { "pgbouncer" } else { "pgbouncer-read" };
        // A way in hands on to the poolers of all nodes, and each to the router of its node.
        let by = |(silent, _): &&(Vec<&str>, String)| {
            silent.iter().any(|part| *part == pooler || *part == "router")
        };
        proof.comes_of = leaderless
            .clone()
            .filter(|_| way == Way::Write)
            .or_else(|| drained(observed, host).then(|| format!("{host}{DRAINED}")))
            .or_else(|| silent.iter().find(by).map(|(_, line)| line.clone()));
    }
    VerifyReport { proofs }
}

/// Somebody drained the node: nothing of ours runs there.
fn drained(observed: &Observed, host: &HostName) -> bool {
    let docker = observed.host(host).and_then(|facts| facts.docker.present());
    let node = docker
        .and_then(|docker| observed.swarm.present()?.nodes.get(docker.swarm.node_id.as_str()));
    node.is_some_and(|node| node.availability == "drain")
}

//! etcd's membership: one change at a time, and only while everything that votes is known to be well.
//!
//! A dead member is removed before another is added (so the majority does not grow by one that is not
//! there), and a new one is a learner until it has caught up. A member counts as dead only where its
//! own server says so: set up anew, without data, and never part of this cluster. A server that
//! does not answer may come back with its data; it is never forgotten.

use super::{Cluster, member, populated, started};
use crate::{
    action::{Action, EtcdChange, HostAction},
    model::{ClaimKind, EtcdFact, EtcdMemberFact, HostFacts, HostName, ObjectId},
    plan::{
        HoldReason, Verb,
        draft::{Draft, View},
    },
};

/// The change that is next.
pub(super) struct Next<'a> {
    /// The server that it is about.
    pub(super) host: &'a HostName,
    pub(super) change: EtcdChange,
    /// Members that are healthy, by server.
    voters: Vec<&'a HostName>,
}

/// The listed member of a server.
pub(super) fn listed<'a>(
    view: &View<'a>,
    voice: &'a EtcdFact,
    host: &HostName,
) -> Option<&'a EtcdMemberFact> {
    let url = &view.desired.etcd.members.get(host)?.peer_url;
    voice.members.iter().find(|member| member.peer_urls.contains(url))
}

/// True for a server that was set up anew: nothing of etcd runs or lies there, and it was never part
/// of this cluster.
fn anew(view: &View<'_>, facts: &HostFacts) -> bool {
    let etcd = &view.desired.etcd;
    !populated(view, facts)
        && !started(facts)
        && facts.etcd.is_absent()
        && !facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token)
}

/// The next change, where one is to be made; or the object that waits, with the reason.
pub(super) fn next<'a>(
    view: &View<'a>,
    cluster: &Cluster<'a>,
) -> Option<Result<Next<'a>, (ObjectId, HoldReason)>> {
    let voice = cluster.voice?;
    let members = &view.desired.etcd.members;
    // One that has been added and has not started yet is awaited before anything else.
    let pending = voice.members.iter().any(|member| member.client_urls.is_empty());
    if pending {
        return None;
    }
    let entry = |host: &HostName| listed(view, voice, host);
    let is_anew = |host: &HostName| view.host(host).is_some_and(|facts| anew(view, facts));
    let dead = |host: &HostName| entry(host).is_some() && is_anew(host);
    let healthy = |host: &&HostName| {
        entry(host).is_some_and(|entry| !entry.learner)
            && member(view, host).is_some_and(|etcd| etcd.healthy)
    };
    let voters: Vec<&HostName> = members.keys().filter(healthy).collect();
    let change = |host, change| Next { host, change, voters: voters.clone() };
    let learner = members.keys().find(|host| entry(host).is_some_and(|entry| entry.learner));
    let joins = |host: &&HostName| entry(host).is_none() && is_anew(host) && !view.leaves(host);
    let goes = members.keys().find(|host| {
        view.leaves(host)
            && entry(host).is_some()
            && view.host(host).is_some()
            && super::super::leaving::patroni_gone(view, host)
    });
    // Who is well leaves last: until then the others have one more to lose.
    let goes_first = goes.filter(|host| !healthy(host));
    let next = if let Some(host) = members.keys().find(|host| dead(host)) {
        change(host, EtcdChange::Forget { id: entry(host)?.id.clone() })
    } else if let Some(host) = goes_first {
        change(host, EtcdChange::Leave { id: entry(host)?.id.clone() })
    } else if let Some(host) = learner {
        change(host, EtcdChange::Promote { id: entry(host)?.id.clone() })
    } else if let Some(host) = members.keys().find(joins) {
        change(host, EtcdChange::Add { peer_url: members[host].peer_url.clone() })
    } else {
        let host = goes?;
        change(host, EtcdChange::Leave { id: entry(host)?.id.clone() })
    };
    // All who vote must be well: whoever is not could be missed in the majority afterwards.
    let ill = members.keys().find(|host| {
        let own = *host == next.host && matches!(next.change, EtcdChange::Leave { .. });
        let counts = entry(host).is_some_and(|entry| !entry.learner);
        counts && !healthy(host) && !dead(host) && !own
    });
    let all = voice.members.iter().filter(|member| !member.learner).count();
    let object = ObjectId::EtcdMember(next.host.clone());
    if let Some(ill) = ill {
        let reason = HoldReason::Quorum(format!(
            "the membership changes only while every other member is known to be healthy, and that on {ill} is not"
        ));
        return Some(Err((object, reason)));
    }
    let left = voters.iter().filter(|host| ***host != *next.host).count();
    let leaves = matches!(next.change, EtcdChange::Leave { .. });
    if leaves && left == 0 {
        let reason = "nobody would be left of etcd".to_owned();
        return Some(Err((object, HoldReason::Quorum(reason))));
    }
    if voters.len() * 2 <= all {
        let reason = HoldReason::Quorum(format!("{} of {all} members are healthy", voters.len()));
        return Some(Err((object, reason)));
    }
    Some(Ok(next))
}

/// The step of a change.
pub(super) fn draft(view: &View<'_>, next: &Next<'_>) -> Draft {
    let etcd = &view.desired.etcd;
    let (verb, reason, from, to) = match &next.change {
        EtcdChange::Add { peer_url } => {
            (Verb::Join, "it is no member yet", None, Some(format!("learner {peer_url}")))
        }
        EtcdChange::Promote { .. } => (
            Verb::Update,
            "the learner has joined",
            Some("learner".to_owned()),
            Some("voter".to_owned()),
        ),
        EtcdChange::Leave { id } => {
            (Verb::Remove, "the server leaves", Some(format!("member {id}")), None)
        }
        EtcdChange::Forget { id } => (
            Verb::Remove,
            "its server was set up anew and has none of its data",
            Some(format!("member {id}")),
            None,
        ),
    };
    // Whoever leaves is not asked.
    let leaves = matches!(next.change, EtcdChange::Leave { .. });
    let voters = next.voters.iter().filter(|host| !leaves || **host != next.host);
    let action = HostAction::EtcdMembership {
        change: next.change.clone(),
        via: voters.map(|host| etcd.members[*host].client_url.clone()).collect(),
        data_dir: etcd.data_dir.clone(),
        token: etcd.token.clone(),
    };
    let draft = Draft::new(
        ObjectId::EtcdCluster,
        verb,
        reason,
        120,
        Action::Host(next.host.clone(), action),
    )
    .change(next.host.as_str(), from, to)
    .needs(super::prerequisites(next.host));
    match next.change {
        // Its own health is awaited first.
        EtcdChange::Promote { .. } => draft.needs([ObjectId::EtcdMember(next.host.clone())]),
        EtcdChange::Add { .. } | EtcdChange::Forget { .. } | EtcdChange::Leave { .. } => draft,
    }
}

/// What comes before the next change: a member that was added and has not started.
pub(super) fn awaited(view: &View<'_>, voice: &EtcdFact) -> ObjectId {
    let members = view.desired.etcd.members.keys();
    let unstarted = |host: &&HostName| {
        listed(view, voice, host).is_some_and(|member| member.client_urls.is_empty())
    };
    let host = members.into_iter().find(unstarted);
    host.map_or(ObjectId::EtcdCluster, |host| ObjectId::EtcdMember(host.clone()))
}

/// The cluster as a member that joins must name it, where that is not what the file says; `joining`
/// is about to be added.
pub(super) fn initial_cluster(
    view: &View<'_>,
    voice: &EtcdFact,
    joining: Option<&HostName>,
) -> Option<String> {
    let members = &view.desired.etcd.members;
    let part = |host: &&HostName| listed(view, voice, host).is_some() || joining == Some(*host);
    let now: Vec<&HostName> = members.keys().filter(part).collect();
    let stays = members.keys().filter(|host| !view.leaves(host));
    (!now.iter().copied().eq(stays)).then(|| {
        let entry = |host: &&HostName| format!("{host}={}", members[*host].peer_url);
        now.iter().map(entry).collect::<Vec<_>>().join(",")
    })
}

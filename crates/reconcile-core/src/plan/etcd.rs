//! etcd: forming the cluster once, and keeping its members running.
//!
//! A member may start with state `new` only while it is certain that there is no cluster yet:
//! every member's host is known, none was ever part of a formed cluster, and nothing that is not
//! ours stands in a data directory. Otherwise two hosts that lost their data could found an empty
//! cluster and overwrite the third (etcd-io/etcd#12227).

mod membership;

use super::{
    HoldReason, Verb,
    draft::{Draft, Drafts, View},
};
use crate::{
    action::{Action, EtcdChange, EtcdQuorum, HostAction, UnitVerb},
    desired::etcd::{BOOTSTRAP_ENV, ENV, UNIT, UNIT_FILE},
    model::{Claim, ClaimKind, EtcdFact, HostFacts, HostName, ObjectId},
};

/// A member's own word, where the member is ours: reconcile claimed its data directory before it
/// started it. Whatever else answers on the port says nothing about our cluster.
pub(super) fn member<'a>(view: &View<'a>, host: &HostName) -> Option<&'a EtcdFact> {
    let facts = view.host(host)?;
    facts
        .etcd
        .present()
        .filter(|_| facts.manifest.claims(ClaimKind::DataDir, &view.desired.etcd.data_dir))
}

/// What is known of the cluster as a whole.
struct Cluster<'a> {
    /// A member that is healthy and lists the membership.
    voice: Option<&'a EtcdFact>,
    /// There is or was a formed cluster.
    formed: bool,
    /// A host of a member that is not known.
    unknown: Option<&'a HostName>,
}

fn cluster<'a>(view: &View<'a>) -> Cluster<'a> {
    let etcd = &view.desired.etcd;
    let facts = || etcd.members.keys().filter_map(|host| view.host(host));
    let voice = etcd
        .members
        .keys()
        .filter_map(|host| member(view, host))
        .find(|etcd| etcd.healthy && !etcd.members.is_empty());
    // The unit says that it is up only after its member has been in a quorum.
    let was_up = |facts: &HostFacts| {
        facts.manifest.claims(ClaimKind::DataDir, &etcd.data_dir)
            && facts.units.get(UNIT).is_some_and(|unit| unit.active == "active")
    };
    let formed = voice.is_some()
        || facts().any(|facts| {
            facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token) || was_up(facts)
        });
    let unknown = etcd.members.keys().find(|host| view.host(host).is_none());
    Cluster { voice, formed, unknown }
}

fn populated(view: &View<'_>, facts: &HostFacts) -> bool {
    let directory = facts.data_dirs.get(&view.desired.etcd.data_dir);
    directory.is_some_and(|directory| directory.populated)
}

fn started(facts: &HostFacts) -> bool {
    facts.units.get(UNIT).is_some_and(|unit| matches!(&*unit.active, "active" | "activating"))
}

/// What shows that somebody else's etcd is on a host: data or a process, and no claim of ours.
fn foreign(view: &View<'_>, facts: &HostFacts) -> Option<String> {
    let directory = &view.desired.etcd.data_dir;
    if facts.manifest.claims(ClaimKind::DataDir, directory) {
        None
    } else if populated(view, facts) {
        Some(format!("{directory} holds data that reconcile did not put there"))
    } else {
        started(facts).then(|| format!("{UNIT} runs, and not on {directory}"))
    }
}

/// A member that the file does not name, or names otherwise: a server was removed from the file,
/// renamed, or given another address.
fn stray_member(view: &View<'_>, cluster: &Cluster<'_>) -> Option<HoldReason> {
    let members = &view.desired.etcd.members;
    cluster.voice?.members.iter().find_map(|member| {
        let known = members.iter().find(|(_, desired)| member.peer_urls.contains(&desired.peer_url));
        let named = known.is_some_and(|(host, _)| {
            member.name.is_empty() || member.name == host.as_str()
        });
        (!named).then(|| {
            HoldReason::NeedsPerson(format!(
                "it has a member {} at {} that the file does not name so; put the server back as it was, or with `leaving: true` if it is to go",
                member.name,
                member.peer_urls.join(", ")
            ))
        })
    })
}

/// Plans etcd.
pub(super) fn plan(view: &View<'_>, drafts: &mut Drafts) {
    let cluster = cluster(view);
    let mut next = membership::next(view, &cluster);
    if let Some(reason) = stray_member(view, &cluster) {
        drafts.hold(ObjectId::EtcdCluster, reason.clone());
        next = next.map(|_| Err((ObjectId::EtcdCluster, reason)));
    }
    match &next {
        Some(Ok(next)) => drafts.step(membership::draft(view, next)),
        Some(Err((object, reason))) => drafts.hold(object.clone(), reason.clone()),
        None => {}
    }
    for host in view.desired.etcd.members.keys() {
        let Some(facts) = view.host(host) else { continue };
        if view.leaves(host) {
            // As long as nobody tells, it counts as a member.
            let listed =
                cluster.voice.is_none_or(|voice| membership::listed(view, voice, host).is_some());
            super::leaving::plan_etcd(view, listed, host, facts, drafts);
        } else {
            plan_member(view, &cluster, next.as_ref(), host, facts, drafts);
        }
    }
}

type Next<'a> = Result<membership::Next<'a>, (ObjectId, HoldReason)>;

fn plan_member(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    next: Option<&Next<'_>>,
    host: &HostName,
    facts: &HostFacts,
    drafts: &mut Drafts,
) {
    let etcd = &view.desired.etcd;
    let unit = facts.units.get(UNIT);
    let step = if let Some(reason) = foreign(view, facts) {
        Err(HoldReason::Foreign(reason))
    } else if let Some(reason) = super::stranger::stranger(view, host, facts, &["etcd"], UNIT) {
        Err(reason)
    } else if let Some(reason) = removed(view, cluster, host, facts) {
        Err(reason)
    } else if let Some(cluster) = rejoins(view, cluster, host, facts) {
        Ok(Some(start(view, host, "existing", Some(cluster))))
    } else if started(facts) {
        let enabled = unit.is_some_and(|unit| unit.enabled == "enabled");
        Ok((!enabled).then(|| enable(host, facts)))
    } else if populated(view, facts) {
        Ok(Some(restart(host, facts)))
    } else {
        first_start(view, cluster, next, host, facts).map(Some)
    };
    match step {
        Ok(step) => drafts.steps.extend(step),
        Err(reason) => drafts.hold(ObjectId::Unit(host.clone(), UNIT.to_owned()), reason),
    }
    // Also where the unit is held: what needs the member then waits, too.
    let healthy = member(view, host).is_some_and(|etcd| etcd.healthy);
    let formed = facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token);
    if !healthy || !formed || facts.files.contains_key(BOOTSTRAP_ENV) {
        let everyone =
            etcd.members.keys().map(|host| ObjectId::Unit(host.clone(), UNIT.to_owned()));
        let action = HostAction::AwaitEtcd {
            endpoint: etcd.members[host].client_url.clone(),
            claims: vec![Claim { kind: ClaimKind::EtcdFormed, name: etcd.token.clone() }],
        };
        let draft = Draft::new(
            ObjectId::EtcdMember(host.clone()),
            Verb::Await,
            if healthy { "its forming is to be noted" } else { "it is not healthy" },
            180,
            Action::Host(host.clone(), action),
        );
        // While a quorum stands without the others, nobody has to wait for them.
        drafts.step(if cluster.voice.is_some() {
            draft.needs([ObjectId::Unit(host.clone(), UNIT.to_owned())])
        } else {
            draft.needs(everyone)
        });
    }
}

/// Data of a member that was removed: etcd ends when it is started on them.
fn removed(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    host: &HostName,
    facts: &HostFacts,
) -> Option<HoldReason> {
    let etcd = &view.desired.etcd;
    let lived = populated(view, facts)
        && facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token)
        && membership::listed(view, cluster.voice?, host).is_none();
    lived.then(|| {
        HoldReason::NeedsPerson(format!(
            "{} holds the data of a member that was removed; it is let in anew after they are moved away, and: echo 'release {} {}' >> /var/lib/reconcile/manifest there",
            etcd.data_dir,
            ClaimKind::EtcdFormed.word(),
            etcd.token
        ))
    })
}

/// The list by which a member joins that was started, lost that list with a boot, and does not get in
/// by what the file says.
fn rejoins(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    host: &HostName,
    facts: &HostFacts,
) -> Option<String> {
    let etcd = &view.desired.etcd;
    let voice = cluster.voice?;
    let awaited = membership::listed(view, voice, host)?.client_urls.is_empty();
    let ours = facts.manifest.claims(ClaimKind::DataDir, &etcd.data_dir)
        && !facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token);
    let forgot = !facts.files.contains_key(BOOTSTRAP_ENV);
    (awaited && ours && forgot).then(|| membership::initial_cluster(view, voice, None)).flatten()
}

/// The first start of a member without data, or why it may not start.
fn first_start(
    view: &View<'_>,
    cluster: &Cluster<'_>,
    next: Option<&Next<'_>>,
    host: &HostName,
    facts: &HostFacts,
) -> Result<Draft, HoldReason> {
    let etcd = &view.desired.etcd;
    if facts.manifest.claims(ClaimKind::EtcdFormed, &etcd.token) {
        return Err(HoldReason::NeedsPerson(format!(
            "{} is empty, yet this member was part of the formed cluster: is its disk mounted? If its data are gone for good, it is made anew after: echo 'release {} {}' >> /var/lib/reconcile/manifest there",
            etcd.data_dir,
            ClaimKind::EtcdFormed.word(),
            etcd.token
        )));
    }
    if let Some(voice) = cluster.voice {
        let joins = |joining| {
            let list = membership::initial_cluster(view, voice, joining);
            start(view, host, "existing", list)
        };
        let waits = HoldReason::OneAtATime(ObjectId::EtcdCluster);
        return match (membership::listed(view, voice, host), next) {
            (Some(member), _) if member.client_urls.is_empty() => Ok(joins(None)),
            (None, Some(Ok(next)))
                if next.host == host && matches!(next.change, EtcdChange::Add { .. }) =>
            {
                Ok(joins(Some(host)).needs([ObjectId::EtcdCluster]))
            }
            (_, Some(Ok(_))) => Err(waits),
            (_, Some(Err((object, _)))) => Err(HoldReason::WaitsFor(object.clone())),
            (_, None) => Err(match facts.etcd.reason() {
                Some(reason) => HoldReason::Unknown(reason.to_owned()),
                None => HoldReason::WaitsFor(membership::awaited(view, voice)),
            }),
        };
    }
    if cluster.formed {
        return Err(HoldReason::Quorum(
            "the cluster has formed before and has no quorum now".to_owned(),
        ));
    }
    if let Some(unknown) = cluster.unknown {
        return Err(HoldReason::Unknown(format!(
            "{unknown} may hold the cluster's data; a cluster is founded only when every member's host is known"
        )));
    }
    if let Some(reason) = lived(view) {
        return Err(HoldReason::NeedsPerson(reason));
    }
    let foreign = etcd
        .members
        .keys()
        .find(|member| view.host(member).is_some_and(|facts| foreign(view, facts).is_some()));
    match foreign {
        Some(member) => Err(HoldReason::WaitsFor(ObjectId::Unit(member.clone(), UNIT.to_owned()))),
        None => Ok(start(view, host, "new", None)),
    }
}

/// What shows, on any server of the file, that this cluster has lived: then its etcd is elsewhere or
/// was lost, and an empty one beside it would let a second primary come about.
fn lived(view: &View<'_>) -> Option<String> {
    let data_dir = &view.desired.patroni.data_dir;
    view.desired.servers.keys().find_map(|host| {
        let facts = view.host(host)?;
        let formed = facts.manifest.claims.iter().any(|claim| claim.kind == ClaimKind::EtcdFormed);
        let data = facts.manifest.claims(ClaimKind::DataDir, data_dir)
            && facts.data_dirs.get(data_dir).is_some_and(|directory| directory.populated);
        (formed || data).then(|| {
            format!("{host} is part of a cluster that has lived; no new etcd is founded for it")
        })
    })
}

fn prerequisites(host: &HostName) -> [ObjectId; 3] {
    [
        ObjectId::Packages(host.clone()),
        ObjectId::File(host.clone(), ENV.to_owned()),
        ObjectId::File(host.clone(), UNIT_FILE.to_owned()),
    ]
}

fn start(view: &View<'_>, host: &HostName, state: &str, list: Option<String>) -> Draft {
    let etcd = &view.desired.etcd;
    let action = HostAction::StartEtcd {
        data_dir: etcd.data_dir.clone(),
        initial_cluster_state: state.to_owned(),
        initial_cluster: list,
        claims: vec![Claim { kind: ClaimKind::DataDir, name: etcd.data_dir.clone() }],
    };
    Draft::new(
        ObjectId::Unit(host.clone(), UNIT.to_owned()),
        Verb::Start,
        "the member has no data yet",
        60,
        Action::Host(host.clone(), action),
    )
    .change("initial-cluster-state", None, Some(state.to_owned()))
    .needs(prerequisites(host))
}

fn unit_step(host: &HostName, facts: &HostFacts, verb: UnitVerb, reason: &str) -> Draft {
    let action = HostAction::Unit { unit: UNIT.to_owned(), verb, enable: true };
    let before = facts.units.get(UNIT).map(|unit| format!("{} ({})", unit.active, unit.enabled));
    Draft::new(
        ObjectId::Unit(host.clone(), UNIT.to_owned()),
        if verb == UnitVerb::Keep { Verb::Update } else { Verb::Start },
        reason,
        180,
        Action::Host(host.clone(), action),
    )
    .change("state", before, Some("active (enabled)".to_owned()))
    .needs(prerequisites(host))
}

fn restart(host: &HostName, facts: &HostFacts) -> Draft {
    unit_step(host, facts, UnitVerb::Start, "it does not run")
}

fn enable(host: &HostName, facts: &HostFacts) -> Draft {
    unit_step(host, facts, UnitVerb::Keep, "it would not start at boot")
}

/// Servers whose members have a vote, or may have: those that stay, and those that leave and are not known
/// to have left. A learner has none, however healthy it is.
pub(super) fn voters<'a>(view: &View<'a>) -> Vec<&'a HostName> {
    let voice = cluster(view).voice;
    let votes = |host: &HostName| match voice.map(|voice| membership::listed(view, voice, host)) {
        Some(Some(member)) => !member.learner,
        Some(None) => !view.leaves(host),
        None => true,
    };
    view.desired.etcd.members.keys().filter(|host| votes(host)).collect()
}

/// True where settings differ by nothing but who was there at first, which a member with data does not
/// read: no reason to restart it.
pub(super) fn same_but_peers(before: &str, after: &str) -> bool {
    let rest = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("ETCD_INITIAL_CLUSTER="));
        lines.map(str::to_owned).collect()
    };
    rest(before) == rest(after)
}

/// What the member's own server is to ask again in the moment of the restart; None where the
/// member takes nothing away.
pub(super) fn quorum(view: &View<'_>, host: &HostName) -> Option<EtcdQuorum> {
    let members = &view.desired.etcd.members;
    let counts = member(view, host).is_some_and(|etcd| etcd.healthy || !etcd.leader_id.is_empty());
    let own = members.get(host).filter(|_| counts)?;
    let voters = voters(view);
    let others = voters.iter().filter(|member| **member != host);
    let peers: Vec<_> = others.map(|member| members[*member].client_url.clone()).collect();
    let needed = if peers.is_empty() { 0 } else { voters.len() / 2 + 1 };
    Some(EtcdQuorum { member: own.client_url.clone(), peers, needed })
}

/// Why the member on `host` must not be restarted now.
pub(super) fn restart_forbidden(view: &View<'_>, host: &HostName) -> Option<HoldReason> {
    let members = voters(view);
    let facts = view.host(host)?;
    if let Some(reason) = foreign(view, facts) {
        return Some(HoldReason::Foreign(reason));
    }
    if let Some(reason) = facts.etcd.reason() {
        return Some(HoldReason::Unknown(reason.to_owned()));
    }
    // A member that does not run or sees no leader takes nothing away, and its file may be the
    // cause. One that only says that it is not healthy may be slow and still hold the quorum.
    if !member(view, host).is_some_and(|etcd| etcd.healthy || !etcd.leader_id.is_empty()) {
        return None;
    }
    let others = members.iter().filter(|member| **member != host);
    let healthy =
        others.filter(|other| member(view, other).is_some_and(|etcd| etcd.healthy)).count();
    let quorum = members.len() / 2 + 1;
    (members.len() > 1 && healthy < quorum).then(|| {
        HoldReason::Quorum(format!(
            "{healthy} other members are known to be healthy, {quorum} are needed"
        ))
    })
}

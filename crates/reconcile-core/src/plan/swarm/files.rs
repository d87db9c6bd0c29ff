//! What services use: the network, configs and secrets, and the removal of old ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    action::{Action, SwarmAction, SwarmFile},
    desired::swarm::OWNER_LABEL,
    model::{ConfigFact, HostName, ObjectId, SwarmFacts},
    plan::{
        HoldReason, Verb,
        draft::{Draft, Drafts, View},
    },
};

pub(super) fn plan_network(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    let desired = &view.desired.swarm.network;
    let object = ObjectId::Network(desired.name.clone());
    let Some(fact) = facts.and_then(|facts| facts.networks.get(&desired.name)) else {
        let action = SwarmAction::CreateNetwork(desired.clone());
        let draft = Draft::new(
            object,
            Verb::Create,
            "it does not exist",
            60,
            Action::Swarm(manager.clone(), action),
        );
        drafts.step(draft.needs([ObjectId::Swarm]).change(
            "driver",
            None,
            Some("overlay".to_owned()),
        ));
        return;
    };
    // A network that applications brought along serves as it is, if it can carry the front.
    if fact.driver != "overlay" || fact.scope != "swarm" {
        let reason = format!("a {} network of scope {} has that name", fact.driver, fact.scope);
        drafts.hold(object, HoldReason::Foreign(reason));
    } else if fact.labels.contains_key(OWNER_LABEL)
        && (fact.attachable, fact.encrypted) != (desired.attachable, desired.encrypted)
    {
        let reason = format!(
            "attachable is {} and encrypted {}; Docker cannot change a network, and applications are attached to it",
            fact.attachable, fact.encrypted
        );
        drafts.hold(object, HoldReason::NeedsPerson(reason));
    }
}

pub(super) fn plan_files(
    view: &View<'_>,
    facts: Option<&SwarmFacts>,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    let swarm = &view.desired.swarm;
    let none = BTreeMap::new();
    let mut plan_file = |file: &SwarmFile,
                         object: ObjectId,
                         there: &BTreeMap<String, ConfigFact>,
                         action: SwarmAction| {
        match there.get(&file.name) {
            None => {
                let draft = Draft::new(
                    object,
                    Verb::Create,
                    "it does not exist",
                    60,
                    Action::Swarm(manager.clone(), action),
                );
                let digest = format!("sha256:{}", &file.content.digest()[..12]);
                drafts.step(draft.needs([ObjectId::Swarm]).change("content", None, Some(digest)));
            }
            Some(fact) if !ours(view, &fact.labels) => {
                let reason = "one of that name exists without our label".to_owned();
                drafts.hold(object, HoldReason::Foreign(reason));
            }
            Some(_) => {}
        }
    };
    for file in &swarm.configs {
        let there = facts.map_or(&none, |facts| &facts.configs);
        let action = SwarmAction::CreateConfig(file.clone());
        plan_file(file, ObjectId::Config(file.name.clone()), there, action);
    }
    for file in &swarm.secrets {
        let there = facts.map_or(&none, |facts| &facts.secrets);
        let action = SwarmAction::CreateSecret(file.clone());
        plan_file(file, ObjectId::Secret(file.name.clone()), there, action);
    }
}

pub(super) fn ours(view: &View<'_>, labels: &BTreeMap<String, String>) -> bool {
    labels.get(OWNER_LABEL) == Some(&view.desired.cluster)
}

/// Removes configs and secrets of ours that no service uses, beyond those kept for a rollback.
pub(super) fn plan_retention(
    view: &View<'_>,
    facts: &SwarmFacts,
    manager: &HostName,
    drafts: &mut Drafts,
) {
    let swarm = &view.desired.swarm;
    let used: BTreeSet<&str> = facts
        .services
        .values()
        .flat_map(|service| service.spec.configs.iter().chain(&service.spec.secrets))
        .map(|mount| mount.source.as_str())
        .collect();
    let bases = |files: &[SwarmFile]| -> BTreeSet<String> {
        files.iter().filter_map(|file| Some(file.name.rsplit_once('-')?.0.to_owned())).collect()
    };
    let desired: BTreeSet<&str> =
        swarm.configs.iter().chain(&swarm.secrets).map(|file| file.name.as_str()).collect();
    let superseded = |base: &str, there: &BTreeMap<String, ConfigFact>| -> Vec<String> {
        let mut names: Vec<_> = there
            .iter()
            .filter(|(name, fact)| {
                name.rsplit_once('-').is_some_and(|(prefix, _)| prefix == base)
                    && ours(view, &fact.labels)
                    && !used.contains(name.as_str())
                    && !desired.contains(name.as_str())
            })
            .collect();
        names.sort_by(|a, b| b.1.created_at.cmp(&a.1.created_at).then_with(|| a.0.cmp(b.0)));
        names.into_iter().skip(swarm.retention as usize).map(|(name, _)| name.clone()).collect()
    };
    let mut remove = |object: ObjectId, action: SwarmAction| {
        drafts.step(Draft::new(
            object,
            Verb::Remove,
            "superseded, unused and beyond retention",
            60,
            Action::Swarm(manager.clone(), action),
        ));
    };
    for base in bases(&swarm.configs) {
        for name in superseded(&base, &facts.configs) {
            remove(ObjectId::Config(name.clone()), SwarmAction::RemoveConfig { name });
        }
    }
    for base in bases(&swarm.secrets) {
        for name in superseded(&base, &facts.secrets) {
            remove(ObjectId::Secret(name.clone()), SwarmAction::RemoveSecret { name });
        }
    }
}

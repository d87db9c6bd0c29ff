//! What people changed by hand in a running cluster and the file can take in: parameters of
//! PostgreSQL, set in Patroni's dynamic configuration or by `ALTER SYSTEM`.

use std::collections::BTreeMap;

use reconcile_spec::valid::{Drift, DriftModes};
use serde_json::Value;

use crate::{
    action::{Action, PatroniAction},
    desired::Desired,
    model::{HostName, ObjectId, Observed},
    plan::{Plan, patroni::plain, plan},
    primary::primary,
};

/// What can be adopted, and what cannot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adoption {
    /// Parameters by name with the value that the cluster has; None: it has none.
    pub parameters: BTreeMap<String, Option<String>>,
    /// Differences that the file cannot take in this way, in words.
    pub others: Vec<String>,
    /// Why it is not known what was changed; the rest is then not all there is.
    pub unknown: Option<String>,
}

/// What differs from the file by hand.
pub fn adoption(desired: &Desired, observed: &Observed) -> Adoption {
    let plan = undone(desired, observed);
    let mut adoption = Adoption { unknown: unknown(&plan, observed), ..Adoption::default() };
    let primary = primary(desired, observed).ok();
    // What one replica has is not the cluster's.
    let leads = |host: &HostName| primary.as_ref() == Some(host);
    for step in &plan.steps {
        match (&step.object, &step.action) {
            (
                ObjectId::PatroniConfig,
                Action::Patroni(_, PatroniAction::PatchConfig { patch, .. }),
            ) => {
                let patch: Value = serde_json::from_str(patch).unwrap_or_default();
                take_config(&patch, &config(observed), &mut adoption);
            }
            (ObjectId::AlterSystem(host, _), _) if leads(host) => {}
            (object, _) => adoption.others.push(format!("{} {object}", step.verb.word())),
        }
    }
    // It overrides Patroni's, so it is what the cluster has.
    for step in &plan.steps {
        if let ObjectId::AlterSystem(host, name) = &step.object
            && leads(host)
        {
            let value = step.changes.first().and_then(|change| change.from.clone());
            adoption.parameters.insert(name.clone(), value);
        }
    }
    adoption
}

/// What keeps the differences from being seen: what is held is in no step.
fn unknown(plan: &Plan, observed: &Observed) -> Option<String> {
    let hides = |object: &ObjectId| {
        matches!(
            object,
            ObjectId::PatroniConfig
                | ObjectId::AlterSystem(..)
                | ObjectId::ProbeTable
                | ObjectId::Host(_)
                | ObjectId::EtcdCluster
        )
    };
    let held = plan.held.iter().find(|held| hides(&held.object));
    held.map(|held| format!("{}: {}", held.object, held.reason)).or_else(|| {
        config(observed).is_null().then(|| "no primary tells its configuration".to_owned())
    })
}

/// A unified diff of a file, for `git apply` and `patch -p1`.
pub fn patch(name: &str, before: &str, after: &str) -> String {
    let path = name.trim_start_matches("./").trim_start_matches('/');
    let diff = similar::TextDiff::from_lines(before, after);
    diff.unified_diff().header(&format!("a/{path}"), &format!("b/{path}")).to_string()
}

/// The plan that would undo everything, were it neither paused nor only reported.
fn undone(desired: &Desired, observed: &Observed) -> Plan {
    let mut desired = desired.clone();
    desired.policy.drift = DriftModes::all(Drift::Heal);
    desired.policy.pause = false;
    desired.only_looks = None;
    let mut observed = observed.clone();
    for facts in observed.hosts.values_mut() {
        if let crate::model::Observation::Known(facts) = facts {
            facts.pause = None;
        }
    }
    plan(&desired, &observed)
}

/// Patroni's dynamic configuration as the primary tells it.
fn config(observed: &Observed) -> Value {
    let mut facts = observed.hosts.values().filter_map(|facts| facts.known());
    let told = facts.find_map(|facts| {
        facts.patroni.present().and_then(|patroni| {
            let config = patroni.config.as_deref()?;
            (patroni.role == crate::model::PatroniRole::Primary).then_some(config)
        })
    });
    told.and_then(|config| serde_json::from_str(config).ok()).unwrap_or_default()
}

fn take_config(patch: &Value, observed: &Value, adoption: &mut Adoption) {
    let parameters = patch.pointer("/postgresql/parameters").and_then(Value::as_object);
    for name in parameters.into_iter().flat_map(|parameters| parameters.keys()) {
        let now = observed["postgresql"]["parameters"].get(name).filter(|now| !now.is_null());
        adoption.parameters.insert(name.clone(), now.map(plain));
    }
    let mut rest = patch.clone();
    if let Some(postgresql) = rest.get_mut("postgresql").and_then(Value::as_object_mut) {
        postgresql.remove("parameters");
    }
    let entries = rest.as_object().into_iter().flatten();
    for (name, wanted) in entries.filter(|(_, wanted)| **wanted != serde_json::json!({})) {
        let now = observed.get(name).map_or_else(|| "nothing".to_owned(), ToString::to_string);
        adoption.others.push(format!("Patroni's {name} is {now}, the file wants {wanted}"));
    }
}

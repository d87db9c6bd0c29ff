//! Puts drafts in order: needs first, then by object; holds what needs a held object; lets one
//! disruptive step through.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_spec::valid::{Permission, Policy};

use super::{Held, HoldReason, SetAside, Step, draft::Drafts};
use crate::{
    desired::Desired,
    model::{ObjectId, Observed},
    windows,
};

/// What holds every step, if anything does.
pub(super) fn pause(desired: &Desired, observed: &Observed) -> Option<HoldReason> {
    if let Some(why) = &desired.only_looks {
        return Some(HoldReason::Paused(why.clone()));
    }
    match observed.pause() {
        Some(pause) => Some(HoldReason::Paused(format!("{pause}; `reconcile resume` ends it"))),
        None if desired.policy.pause => Some(HoldReason::Paused("policy.pause is set".to_owned())),
        None => None,
    }
}

/// The steps in order, and all holds.
pub(super) fn arrange(
    drafts: Drafts,
    desired: &Desired,
    observed: &Observed,
    set_aside: &SetAside,
    pause: Option<&HoldReason>,
) -> (Vec<Step>, Vec<Held>) {
    let policy = &desired.policy;
    let Drafts { mut steps, mut held, restarts: _ } = drafts;
    steps.sort_by(|a, b| a.object.cmp(&b.object));
    bind(&mut steps);
    if let Some(reason) = pause {
        // Clients that wait in a pooler must not wait for a person. Who only looks has no lease, and
        // another operator may be about to move the primary.
        let may_go_on = |object: &ObjectId| {
            matches!(object, ObjectId::Pooler(_)) && desired.only_looks.is_none()
        };
        let (resumes, rest): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| may_go_on(&step.object));
        steps = resumes;
        held.extend(
            rest.into_iter().map(|step| Held { object: step.object, reason: reason.clone() }),
        );
    }
    hold_impact_on_doubt(&mut steps, &mut held);
    hold_by_policy(&mut steps, &mut held, policy, observed.at);
    steps.retain(|step| {
        let cause = set_aside.get(&step.object);
        held.extend(cause.map(|cause| Held {
            object: step.object.clone(),
            reason: HoldReason::Failed(cause.clone()),
        }));
        cause.is_none()
    });
    hold_dependents(&mut steps, &mut held);
    hold_halves(&mut steps, &mut held);
    hold_second_disruption(&mut steps, &mut held);
    hold_halves(&mut steps, &mut held);
    hold_dependents(&mut steps, &mut held);

    let mut placed: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let mut ordered = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let objects: BTreeSet<_> = steps.iter().map(|step| step.object.clone()).collect();
        let ready = |step: &super::draft::Draft| {
            step.needs.iter().all(|need| *need == step.object || !objects.contains(need))
        };
        let (mut now, later): (Vec<_>, Vec<_>) = steps.into_iter().partition(ready);
        if now.is_empty() {
            // A circle of needs is a mistake of the planner; say so rather than guess an order.
            held.extend(later.into_iter().map(|step| Held {
                reason: HoldReason::Impossible("its needs form a circle".to_owned()),
                object: step.object,
            }));
            break;
        }
        for step in now.drain(..) {
            let id = ordered.len() + 1;
            let after = step.needs.iter().filter_map(|need| placed.get(need).copied()).collect();
            placed.insert(step.object.clone(), id);
            ordered.push(Step {
                id,
                object: step.object,
                verb: step.verb,
                changes: step.changes,
                reason: step.reason,
                impact: step.impact,
                after,
                deadline_seconds: step.deadline_seconds,
                action: step.action,
            });
        }
        steps = later;
    }
    held.sort_by(|a, b| a.object.cmp(&b.object).then_with(|| a.reason.cmp(&b.reason)));
    held.dedup();
    (ordered, held)
}

/// Moves every step that needs a held object to the holds, until nothing moves any more. A held
/// object's own steps go too: what is held for one reason is not changed for another.
fn hold_dependents(steps: &mut Vec<super::draft::Draft>, held: &mut Vec<Held>) {
    loop {
        let blocked: BTreeSet<_> = held.iter().map(|held| held.object.clone()).collect();
        steps.retain(|step| !blocked.contains(&step.object));
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(steps)
            .into_iter()
            .partition(|step| !step.needs.iter().any(|need| blocked.contains(need)));
        *steps = stay;
        if go.is_empty() {
            return;
        }
        for step in go {
            if let Some(need) = step.needs.iter().find(|need| blocked.contains(*need)) {
                held.push(Held {
                    object: step.object.clone(),
                    reason: HoldReason::WaitsFor(need.clone()),
                });
            }
        }
    }
}

/// What changes along with a step comes after it.
fn bind(steps: &mut [super::draft::Draft]) {
    let bound: Vec<(ObjectId, BTreeSet<ObjectId>)> = steps
        .iter()
        .filter(|step| !step.together.is_empty())
        .map(|step| (step.object.clone(), step.together.clone()))
        .collect();
    for (first, others) in bound {
        for step in steps.iter_mut().filter(|step| others.contains(&step.object)) {
            step.needs.insert(first.clone());
        }
    }
}

/// Half of a change that only makes sense as a whole is not made: a password that is changed in the
/// database while its users cannot be told would lock them out. One that only waits for its turn
/// makes the other half wait for the same.
fn hold_halves(steps: &mut Vec<super::draft::Draft>, held: &mut Vec<Held>) {
    loop {
        let reason = |step: &super::draft::Draft| {
            let other = held.iter().find(|held| step.together.contains(&held.object))?;
            match &other.reason {
                HoldReason::OneAtATime(first) if step.together.contains(first) => None,
                HoldReason::OneAtATime(first) => Some(HoldReason::OneAtATime(first.clone())),
                _ => Some(HoldReason::WaitsFor(other.object.clone())),
            }
        };
        let Some((index, reason)) =
            steps.iter().enumerate().find_map(|(index, step)| Some((index, reason(step)?)))
        else {
            return;
        };
        let step = steps.remove(index);
        held.push(Held { object: step.object, reason });
        hold_dependents(steps, held);
    }
}

/// What there is to be known about the servers, and is not.
pub(super) fn doubt(held: &[Held]) -> Option<&ObjectId> {
    let doubt = held.iter().find(|held| {
        matches!(
            (&held.object, &held.reason),
            (ObjectId::Host(_) | ObjectId::EtcdCluster, _)
                | (ObjectId::PatroniConfig, HoldReason::NeedsPerson(_))
        )
    });
    doubt.map(|held| &held.object)
}

/// While a server is unknown, or there are servers that the file does not name, nothing that runs is
/// changed: the unknown one may be the primary, and new routes and rules would cut it off.
fn hold_impact_on_doubt(steps: &mut Vec<super::draft::Draft>, held: &mut Vec<Held>) {
    let Some(doubt) = doubt(held).cloned() else { return };
    let (stay, go): (Vec<_>, Vec<_>) =
        std::mem::take(steps).into_iter().partition(|step| step.impact == super::Impact::None);
    *steps = stay;
    held.extend(
        go.into_iter()
            .map(|step| Held { object: step.object, reason: HoldReason::WaitsFor(doubt.clone()) }),
    );
}

/// Holds what the policy does not allow to be done by itself.
fn hold_by_policy(
    steps: &mut Vec<super::draft::Draft>,
    held: &mut Vec<Held>,
    policy: &Policy,
    now: u64,
) {
    let refusal = |impact| forbidden(policy, now, impact);
    let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(steps)
        .into_iter()
        .partition(|step| step.action.ends_a_rollout() || refusal(step.impact).is_none());
    *steps = stay;
    held.extend(go.into_iter().filter_map(|step| {
        // Whoever reads it wants to know what will come.
        let what = |text: String| format!("{text}; what waits: {}", waiting(&step));
        let reason = match refusal(step.impact)? {
            HoldReason::Window(text) => HoldReason::Window(what(text)),
            HoldReason::Policy(text) => HoldReason::Policy(what(text)),
            other => other,
        };
        Some(Held { object: step.object, reason })
    }));
}

/// A step in a few words: its settings from and to, or its reason.
fn waiting(step: &super::draft::Draft) -> String {
    let brief = |value: &Option<String>| {
        let value = value.as_deref().unwrap_or("none");
        (value.len() <= 40 && !value.starts_with("sha256:")).then(|| value.to_owned())
    };
    let changes: Option<Vec<String>> = step
        .changes
        .iter()
        .map(|change| {
            Some(format!("{} {} → {}", change.field, brief(&change.from)?, brief(&change.to)?))
        })
        .collect();
    match changes {
        Some(changes) if !changes.is_empty() => changes.join(", "),
        _ => format!("{} ({})", step.verb.word(), step.reason),
    }
}

/// Why the policy lets no step of this impact through now.
pub(super) fn forbidden(policy: &Policy, now: u64, impact: super::Impact) -> Option<HoldReason> {
    let (field, permission) = match impact {
        super::Impact::None | super::Impact::Reload => return None,
        super::Impact::Restart => ("restart", policy.restart),
        super::Impact::Switchover => ("switchover", policy.switchover),
    };
    match permission {
        Permission::Allowed => None,
        Permission::InWindow if windows::is_open(&policy.windows, now) => None,
        Permission::Never => Some(HoldReason::Policy(format!("policy.{field} is `never`"))),
        Permission::InWindow => {
            let says = format!("policy.{field} is `inWindow`");
            Some(match windows::next(&policy.windows, now) {
                Some(next) => HoldReason::Window(format!("{says}, and a window opens {next}")),
                None => HoldReason::Policy(format!("{says}, and no window ever opens")),
            })
        }
    }
}

/// Lets only the first disruptive step through: afterwards the world is observed anew.
fn hold_second_disruption(steps: &mut Vec<super::draft::Draft>, held: &mut Vec<Held>) {
    let disruptive = || steps.iter().filter(|step| step.impact.disruptive());
    // Nothing else is begun on one node while another waits for what was begun before.
    let begun = disruptive().find(|step| step.action.ends_a_rollout());
    let Some(first) = begun.or_else(|| disruptive().next()).map(|step| step.object.clone()) else {
        return;
    };
    let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(steps)
        .into_iter()
        .partition(|step| !step.impact.disruptive() || step.object == first);
    *steps = stay;
    held.extend(
        go.into_iter().map(|step| Held {
            object: step.object,
            reason: HoldReason::OneAtATime(first.clone()),
        }),
    );
}

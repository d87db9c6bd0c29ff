//! Whole observations and converged worlds without an engine, for tests of plans.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    check::check,
    desired::Desired,
    model::{HostName, Observation, Observed},
    plan::{plan, probe_request, swarm_request, swarm_via},
};

use crate::{World, server::Reach};

/// Passes after which a world that is still not as desired never will be.
const PASSES: usize = 12;

impl World {
    /// All that the engine would observe now.
    pub fn observe(&self, desired: &Desired) -> Observed {
        let hosts: BTreeMap<_, _> = desired
            .servers
            .keys()
            .map(|host| {
                let answers = self
                    .servers
                    .get(host)
                    .is_some_and(|server| server.power && server.reach == Reach::Answers);
                let facts =
                    if answers { self.facts(host, &probe_request(desired, host)) } else { None };
                let reason = format!("connect to {host}: no answer");
                (host.clone(), facts.map_or(Observation::unknown(reason), Observation::Known))
            })
            .collect();
        let swarm = match swarm_via(desired, &hosts) {
            Observation::Known(None) => Observation::Known(None),
            Observation::Unknown { reason } => Observation::Unknown { reason },
            Observation::Known(Some(via)) => {
                match self.swarm_facts(&via, &swarm_request(desired)) {
                    Ok(facts) => Observation::Known(Some(facts)),
                    Err(cause) => Observation::unknown(cause),
                }
            }
        };
        let refuses = |host: &&HostName| {
            let server = self.servers.get(*host);
            server.is_some_and(|server| server.power && matches!(server.reach, Reach::Refuses(_)))
        };
        let barred: BTreeSet<_> = desired.servers.keys().filter(refuses).cloned().collect();
        Observed { hosts, swarm, at: self.now, barred }
    }

    /// Observes, plans, checks, and carries the plan out in its order until it is empty, nothing
    /// of it can be done, or it does not end. Errors of steps are left to the next pass.
    ///
    /// # Panics
    /// When a plan breaks a rule of the checker.
    #[must_use]
    pub fn apply_all(mut self, desired: &Desired) -> Self {
        for _ in 0..PASSES {
            if self.pass(desired) == 0 {
                break;
            }
        }
        self
    }

    /// One pass of that: the number of its steps.
    ///
    /// # Panics
    /// When the plan breaks a rule of the checker.
    pub fn pass(&mut self, desired: &Desired) -> usize {
        let observed = self.observe(desired);
        let plan = plan(desired, &observed);
        assert_eq!(check(desired, &observed, &plan), []);
        let (steps, mut failed) = (plan.steps.len(), Vec::new());
        for step in plan.steps {
            let skip = step.after.iter().any(|id| failed.contains(id));
            if skip || self.apply(&step.action, false).is_err() {
                failed.push(step.id);
            }
        }
        steps
    }

    /// The world that a desired state leads to from bare servers.
    pub fn converged(desired: &Desired) -> Self {
        let mut world = Self::bare(desired).apply_all(desired);
        world.writes.clear();
        world
    }
}

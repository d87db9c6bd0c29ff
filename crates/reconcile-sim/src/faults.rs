//! What goes wrong in a run, by the number of the effect or the look at which it does.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::model::HostName;

use crate::Random;

/// Where in an effect the operator (or its server) dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Nothing of the effect happened.
    Before,
    /// The first half happened: claims without the effect, a half-installed package, a
    /// Swarm without its label, a script without its last statement.
    Inside,
    /// All but the last part happened: a file was replaced and its unit was not told.
    Late,
    /// All of it happened, and nobody heard of it.
    After,
}

/// The end of the operator's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Effect, from 1.
    pub effect: u64,
    /// Where in it.
    pub position: Position,
}

/// The faults of a run. Effects and looks are counted from 1 over the whole run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// The operator ends here.
    pub crash: Option<Crash>,
    /// Effects that happen, but report an error.
    pub lost_answers: BTreeSet<u64>,
    /// Effects that happen by half and report an error.
    pub halves: BTreeSet<u64>,
    /// Effects that do not happen and report an error.
    pub refusals: BTreeSet<u64>,
    /// Looks that return what the world was at the previous look at the same thing.
    pub stale_reads: BTreeSet<u64>,
    /// Looks that fail.
    pub failed_reads: BTreeSet<u64>,
    /// Looks at these servers bring what they were at the first look, for the whole run.
    pub frozen: BTreeSet<HostName>,
    /// The server reboots just before this effect.
    pub reboots: BTreeMap<u64, HostName>,
    /// Answers arrive in an order drawn from this seed instead of the order of the questions.
    pub shuffle: Option<u64>,
}

impl Faults {
    /// No faults but a crash.
    pub fn crash(effect: u64, position: Position) -> Self {
        Self { crash: Some(Crash { effect, position }), ..Self::default() }
    }

    /// A few faults drawn from a seed, for a run of about so many effects and looks.
    pub fn random(random: &mut Random, effects: u64, reads: u64, hosts: &[HostName]) -> Self {
        let mut faults = Self { shuffle: Some(random.bits()), ..Self::default() };
        let mut draw = |set: &mut BTreeSet<u64>, per_mille: u64, count: u64| {
            for index in 1..=count {
                if random.chance(per_mille) {
                    set.insert(index);
                }
            }
        };
        draw(&mut faults.lost_answers, 30, effects);
        draw(&mut faults.halves, 20, effects);
        draw(&mut faults.refusals, 20, effects);
        draw(&mut faults.stale_reads, 60, reads);
        // Each is asked for twice, so that about as many are unknown in the end.
        draw(&mut faults.failed_reads, 200, reads);
        if random.chance(300)
            && let Some(host) = random.pick(hosts).cloned()
        {
            faults.reboots.insert(1 + random.below(effects), host);
        }
        if random.chance(700) {
            let position = match random.below(4) {
                0 => Position::Before,
                1 => Position::Inside,
                2 => Position::Late,
                _ => Position::After,
            };
            faults.crash = Some(Crash { effect: 1 + random.below(effects), position });
        }
        faults
    }
}

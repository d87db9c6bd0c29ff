//! What happens during a pass, for progress, logs and the journal. Events carry no decisions.

use std::{collections::BTreeMap, time::Duration};

use reconcile_core::{
    desired::Desired,
    model::{HostName, Observed, RefusedSource, Revision},
    plan::{Plan, Step},
    ports::EffectError,
    verify::VerifyReport,
};

use crate::{
    refusal::PassError,
    resume::Owed,
    switchover::{Order, Report, SwitchoverError},
};

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A pass begins; its number from 1.
    PassStarted(u32),
    /// All that could be learnt was learnt.
    Observed {
        /// How long it took.
        took: Duration,
        /// Servers that are known.
        known: usize,
        /// Servers in all.
        servers: usize,
        /// How long each server that is known took to answer.
        answers: &'a BTreeMap<HostName, Duration>,
    },
    /// All that a status is made of.
    Looked {
        /// What should be.
        desired: &'a Desired,
        /// What is.
        observed: &'a Observed,
        /// The plan between the two.
        plan: &'a Plan,
    },
    /// The plan stands.
    Planned(&'a Plan),
    /// A step begins.
    StepStarted(&'a Step),
    /// A step ended.
    StepFinished {
        /// The step.
        step: &'a Step,
        /// What came of it.
        result: &'a Result<(), EffectError>,
        /// How long it took.
        took: Duration,
    },
    /// A step waits for something that has not come to pass yet; the next pass looks again.
    StepWaits {
        /// The step.
        step: &'a Step,
        /// What it saw instead.
        seen: &'a EffectError,
    },
    /// Poolers are about to be paused for a transaction on the primary.
    SwitchBegins(&'a Order),
    /// How that ended.
    SwitchEnds(&'a Order, &'a Result<Report, SwitchoverError>),
    /// Poolers that an earlier transaction may have left paused are resumed.
    Resumed,
    /// A step was not started, since one that it needs failed or the run was asked to stop.
    StepSkipped(&'a Step),
    /// A newer desired state was read while steps are under way; they are the last of the old one.
    SourceAhead,
    /// A new desired state is in force.
    SourceChanged(Option<&'a Revision>),
    /// The desired state cannot be read; the last good one stays in force.
    SourceBroken(&'a RefusedSource),
    /// The plan was refused by the checker.
    PassRefused(&'a PassError),
    /// A pass ended; a proof of service may follow.
    PassEnded {
        /// How long it took.
        took: Duration,
        /// Steps that took effect.
        done: usize,
        /// Steps that failed.
        failed: usize,
    },
    /// The watch loop waits, and looked whether there is something new.
    Tick,
    /// The service proof begins.
    Verifying,
    /// The service proof ended.
    Verified(&'a VerifyReport),
}

/// Hears events.
pub trait Listener: Send + Sync {
    /// Hears one event; must not block.
    fn hear(&self, event: &Event<'_>);
    /// Why what was heard last could not be noted, if so: then nothing may be done that should have
    /// been.
    fn failure(&self) -> Option<String> {
        None
    }
    /// A transaction that was begun and whose poolers may still be paused.
    fn owes_resume(&self) -> Option<Owed> {
        None
    }
}

/// Hears nothing.
impl Listener for () {
    fn hear(&self, _: &Event<'_>) {}
}

//! Progress on standard error: bars on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reconcile_core::plan::{Step, counted};
use reconcile_engine::{Event, Listener};

use crate::lines::long;

/// Shows events of a run.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    steps: Mutex<BTreeMap<usize, ProgressBar>>,
}

impl Progress {
    /// Bars if standard error is a terminal and `plain` is not asked for.
    pub(crate) fn new(plain: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !plain;
        Self { bars: terminal.then(MultiProgress::new), steps: Mutex::default() }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // A terminal that went away cannot be told anything.
            Some(bars) => drop(bars.println(text)),
            None => drop(writeln!(anstream::stderr(), "{text}")),
        }
    }

    fn begin(&self, step: &Step) {
        let Some(bars) = &self.bars else {
            if long(step) {
                let minutes = step.deadline_seconds / 60;
                self.line(&format!("  begin {} (may take up to {minutes} minutes)", name(step)));
            }
            return;
        };
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(name(step));
        bar.enable_steady_tick(Duration::from_millis(120));
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).insert(step.id, bar);
    }

    fn end(&self, step: &Step) {
        let bar = self.steps.lock().unwrap_or_else(PoisonError::into_inner).remove(&step.id);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

fn name(step: &Step) -> String {
    format!("{} {}", step.verb.word(), step.object)
}

impl Listener for Progress {
    fn hear(&self, event: &Event<'_>) {
        match event {
            Event::PassStarted(_)
            | Event::SourceAhead
            | Event::SourceChanged(_)
            | Event::Looked { .. }
            | Event::PassEnded { .. }
            | Event::Tick
            | Event::SwitchBegins(_)
            | Event::SwitchEnds(_, Err(_)) => {}
            Event::SwitchEnds(_, Ok(report)) => self.line(&format!(
                "  writers waited in the poolers for {:.1} s at most",
                report.held.as_secs_f64()
            )),
            Event::Resumed => self.line("poolers that were left paused are resumed"),
            Event::SourceBroken(refused) => self.line(&refused.to_string()),
            Event::PassRefused(error) => self.line(&error.to_string()),
            Event::Observed { took, known, servers, .. } => self.line(&format!(
                "observed {known} of {servers} servers in {:.2} s",
                took.as_secs_f64()
            )),
            Event::Planned(plan) => {
                self.line(&format!(
                    "planned {}, {} queued, {} held",
                    counted(plan.steps.len(), "step"),
                    plan.queued().count(),
                    plan.stalled().count()
                ));
            }
            Event::StepStarted(step) => self.begin(step),
            Event::StepFinished { step, result, took } => {
                self.end(step);
                let seconds = took.as_secs_f64();
                match result {
                    Ok(()) => {
                        let also = step.disturbs().map(|what| format!(", {what}"));
                        let also = also.unwrap_or_default();
                        self.line(&format!("  ok    {} ({seconds:.1} s){also}", name(step)));
                    }
                    Err(error) => {
                        self.line(&format!("  FAIL  {} ({seconds:.1} s)", name(step)));
                        self.line(&format!("        {error}"));
                        for line in error.stderr.lines() {
                            self.line(&format!("        | {line}"));
                        }
                    }
                }
            }
            Event::StepWaits { step, seen } => {
                self.end(step);
                self.line(&format!("  wait  {}: {seen}", name(step)));
            }
            Event::StepSkipped(step) => self.line(&format!("  skip  {}", name(step))),
            Event::Verifying => self.line("proving service end to end"),
            Event::Verified(report) => {
                for proof in &report.proofs {
                    let mark = match proof {
                        proof if proof.holds => "ok  ",
                        proof if proof.untried => "?   ",
                        _ => "FAIL",
                    };
                    let why = proof.comes_of.as_ref().map(|why| format!("; {why}"));
                    self.line(&format!(
                        "  {mark}  {} ({} ms) {}{}",
                        proof.what,
                        proof.millis,
                        proof.detail,
                        why.unwrap_or_default()
                    ));
                }
            }
        }
    }
}

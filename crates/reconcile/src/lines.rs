//! What `--watch` says on standard error: what is new, once; a calm cluster is silent. All of it, and
//! more, is in the journal.

mod course;
mod holds;

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use reconcile_core::{
    leads::Leads,
    model::{ObjectId, PauseNote},
    plan::{Step, Verb},
    verify::{Proof, Serves, VerifyReport},
};
use reconcile_engine::{Event, Listener};
use tokio::time::Instant;

use crate::output;

/// Lines of one kind that are said at once; the rest is counted.
const MOST: usize = 5;

/// A step that is given so many seconds may take minutes.
const LONG: u64 = 600;

/// Says what happens, one line for each thing.
pub(crate) struct Lines {
    say: Box<dyn Fn(&str) + Send + Sync>,
    told: Mutex<Told>,
}

/// What was said so far.
#[derive(Default)]
struct Told {
    course: course::Course,
    holds: holds::Holds,
    /// How far the cluster was said to serve, and what fails.
    serves: Option<(Serves, BTreeSet<String>)>,
    /// When all was proven to serve.
    served: Option<Instant>,
    leads: Leads,
    /// The pause that was said to be in force.
    paused: Option<PauseNote>,
    /// What was said to be waited for.
    waits: BTreeSet<ObjectId>,
    /// It was said that the Swarm has no leader, last of this.
    leaderless: Option<ObjectId>,
    /// The newest desired state was said not to be taken.
    refused: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self::to(output::say)
    }
}

impl Lines {
    /// Lines that go elsewhere.
    fn to(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { say: Box::new(say), told: Mutex::default() }
    }

    fn say_all(&self, lines: &[String]) {
        for line in lines {
            (self.say)(line);
        }
    }
}

impl Told {
    fn pause(&mut self, pause: Option<&PauseNote>) -> Option<String> {
        let line = match pause {
            Some(pause) if self.paused.as_ref() != Some(pause) => Some(format!("paused {pause}")),
            None if self.paused.is_some() => Some("no longer paused".to_owned()),
            _ => None,
        };
        self.paused = pause.cloned();
        line
    }
}

impl Told {
    /// How far the cluster serves, where that is news, and what fails since.
    fn proof(&mut self, report: &VerifyReport) -> Vec<String> {
        let fails = report.proofs.iter().filter(|proof| !proof.holds);
        let key = |proof: &Proof| proof.comes_of.clone().unwrap_or_else(|| proof.about());
        let now = (report.serves(), fails.clone().map(key).collect());
        let age = self.served.map(|served| served.elapsed().as_secs());
        if now.0 == Serves::Wholly {
            self.served = Some(Instant::now());
        }
        if self.serves.as_ref() == Some(&now) {
            return Vec::new();
        }
        let mut lines = vec![match now.0 {
            Serves::Wholly => "the cluster is as desired and serves".to_owned(),
            Serves::Unknown => format!("not all could be proven: {}", report.told()),
            Serves::InDoubt => format!("a proof fails: {}", report.told()),
            Serves::Partly => format!("the cluster serves in part: {}", report.told()),
            // Half of it would be said too softly.
            Serves::NoWrites => report.told().replacen(
                "no way in takes writes, ",
                "the cluster takes no writes: ",
                1,
            ),
            Serves::Not => format!("the cluster does not serve: {}", report.told()),
        }];
        if let Some(age) = age.filter(|_| now.0 != Serves::Wholly) {
            lines[0].push_str(&format!("; all was proven to serve {age} s ago"));
        }
        let known = self.serves.replace(now).map(|(_, fails)| fails).unwrap_or_default();
        let news = fails.filter(|proof| proof.fails() && !known.contains(&key(proof)));
        let mut told = Vec::new();
        for proof in news {
            let line = format!("FAIL  {}", proof.cause());
            // What others come of is named once, and not where the first line does.
            let said = proof.comes_of.as_ref().is_some_and(|cause| lines[0].contains(cause));
            if !said && !told.contains(&line) {
                told.push(line);
            }
        }
        lines.extend(bounded(told, "fail; `reconcile status` lists them"));
        lines
    }
}

/// Whether a step may take minutes, so that its beginning is news: packages come over the network. What
/// is only waited for is told as that.
pub(crate) fn long(step: &Step) -> bool {
    step.deadline_seconds >= LONG && step.verb != Verb::Await
}

/// The first few lines, and how many more there are.
fn bounded(mut lines: Vec<String>, more: &str) -> Vec<String> {
    let rest = lines.len().saturating_sub(MOST);
    if rest > 0 {
        lines.truncate(MOST);
        lines.push(format!("and {rest} more {more}"));
    }
    lines
}

impl Listener for Lines {
    fn hear(&self, event: &Event<'_>) {
        let say = &self.say;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::SourceAhead => {
                say("a newer desired state was read; it is taken after the steps at hand");
            }
            Event::SourceChanged(revision) => {
                let mended = std::mem::take(&mut told.refused);
                if mended {
                    told.course.spoke(Instant::now());
                }
                let again = if mended { "the desired state is good again; " } else { "" };
                say(&match revision {
                    None => format!("{again}the desired state was read"),
                    Some(revision) => format!("{again}in force: {revision}"),
                });
            }
            Event::StepStarted(step) if long(step) => {
                let (verb, minutes) = (step.verb.word(), step.deadline_seconds / 60);
                say(&format!("begin {verb} {} (may take up to {minutes} minutes)", step.object));
            }
            Event::SourceBroken(refused) => {
                told.refused = true;
                let what = if refused.unread { "cannot be read" } else { "is not taken" };
                say(&format!("the desired state {what}; the last good one stays in force"));
                output::note(refused.to_string().trim_end());
            }
            Event::PassRefused(error) => say(&format!("nothing was done: {error}")),
            Event::Looked { desired, observed, plan } => {
                let now = Instant::now();
                told.waits.retain(|object| plan.steps.iter().any(|step| step.object == *object));
                let leaderless = told.leaderless.take();
                told.leaderless = leaderless.filter(|object| told.waits.contains(object));
                self.say_all(&told.pause(observed.pause()).into_iter().collect::<Vec<_>>());
                self.say_all(
                    &told
                        .leads
                        .looked(desired, observed)
                        .map(|news| news.told())
                        .into_iter()
                        .collect::<Vec<_>>(),
                );
                let held = told.holds.looked(plan, now);
                let all_told = told.holds.all_told();
                self.say_all(&told.course.begins(plan, now));
                self.say_all(&held);
                self.say_all(&told.course.ends(desired, plan, now, !held.is_empty(), all_told));
            }
            Event::StepFinished { step, result, took } => {
                let (verb, seconds) = (step.verb.word(), took.as_secs_f64());
                match result {
                    Ok(()) => {
                        let also = step.disturbs().map(|what| format!(", {what}"));
                        let also = also.unwrap_or_default();
                        say(&format!("ok    {verb} {} ({seconds:.1} s){also}", step.object));
                    }
                    Err(error) => {
                        say(&format!("FAIL  {verb} {} ({seconds:.1} s): {error}", step.object));
                    }
                }
            }
            Event::StepWaits { step, seen } => {
                // What all wait for is said once.
                let leaderless = seen.cause == "the Swarm has no leader yet";
                let known = leaderless && told.leaderless.is_some();
                if leaderless {
                    told.leaderless = Some(step.object.clone());
                }
                if !known && told.waits.insert(step.object.clone()) {
                    say(&format!("wait  {}: {seen}", step.object));
                }
            }
            Event::SwitchEnds(_, Ok(report)) => {
                let seconds = report.held.as_secs_f64();
                say(&format!("writers waited in the poolers for {seconds:.1} s at most"));
            }
            Event::Resumed => say("poolers that were left paused are resumed"),
            Event::Verified(report) => self.say_all(&told.proof(report)),
            Event::PassStarted(_)
            | Event::Observed { .. }
            | Event::Planned(_)
            | Event::PassEnded { .. }
            | Event::Tick
            | Event::StepStarted(_)
            | Event::StepSkipped(_)
            | Event::SwitchBegins(_)
            | Event::SwitchEnds(_, Err(_))
            | Event::Verifying => {}
        }
    }
}

#[cfg(test)]
mod tests;

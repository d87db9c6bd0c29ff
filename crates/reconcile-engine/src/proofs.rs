//! When service is proven: after a change, on a timer, and soon after anything that makes it likely that
//! the last proof holds no more. A proof takes a login through every way in, so it is not for every pass.

use std::time::Duration;

use reconcile_core::verify::VerifyReport;
use tokio::time::Instant;

use crate::{execute::Execution, watch::Rhythm};

/// Least time between a proof and one that is only asked for. It doubles, up to the timer's, while what
/// asks for it stays the same and the proof tells nothing new.
const SOON: Duration = Duration::from_secs(5);
/// Proofs that are only asked for take no more than one part in so many of the time.
const SHARE: u32 = 5;
/// Least time between two looks whether anything answers.
const ANSWERS: Duration = Duration::from_secs(5);

/// The proofs of service so far, and what was done and seen since.
#[derive(Default)]
pub(crate) struct Proofs {
    last: Option<Instant>,
    changed: bool,
    /// It was more than to wait: the next proof commits a row. What was only waited for leaves no trace.
    pub(crate) wrote: bool,
    /// The last one did not hold.
    failed: bool,
    /// Something on the clients' way gave no answer, or does again.
    silent: bool,
    /// So it was when it was last asked.
    mute: bool,
    asked: Option<Instant>,
    /// Digests of what serves clients, at the last proof and now.
    proven: String,
    seen: String,
    gap: Duration,
}

impl Proofs {
    pub(crate) fn note(&mut self, execution: &Execution) {
        self.changed |= execution.done() > 0;
        self.wrote |= execution.wrote;
    }

    /// What a pass saw: a task that is lost or replaced, another primary, a server that is back, …. Then it is
    /// asked whether everything `answers`, unless that was just done or a proof is to come, which tells more.
    pub(crate) async fn saw(&mut self, digest: &str, answers: impl Future<Output = bool>) {
        digest.clone_into(&mut self.seen);
        let lately = self.asked.is_some_and(|asked| asked.elapsed() < ANSWERS);
        if lately || self.last.is_none() || self.next().is_some() && !self.mute {
            return;
        }
        self.asked = Some(Instant::now());
        let mute = !answers.await;
        if mute {
            tracing::debug!("something on the clients' way does not answer");
            self.silent = true;
        } else if self.mute {
            // It lives again: that is not to wait for the next proof of what does not hold.
            (self.silent, self.gap) = (true, SOON);
        }
        self.mute = mute;
    }

    /// Whether clients are served does not depend on what is held, or fails: only the proof that
    /// follows a change waits for its end.
    pub(crate) fn due(&self, converged: bool, begun: Instant, rhythm: Rhythm) -> bool {
        converged && (self.changed || self.last.is_none())
            || self.last.unwrap_or(begun).elapsed() >= rhythm.prove_every
            || self.next().is_some_and(|next| Instant::now() >= next)
    }

    /// When a proof is to be made before its time.
    fn next(&self) -> Option<Instant> {
        let asked = self.failed || self.silent || self.seen != self.proven;
        self.last.filter(|_| asked).map(|last| last + self.gap)
    }

    /// When to look again, where it is to be at `due` without a proof.
    pub(crate) fn sooner(&self, due: Instant) -> Instant {
        self.next().map_or(due, |next| due.min(next))
    }

    pub(crate) fn made(
        &mut self,
        converged: bool,
        report: &VerifyReport,
        took: Duration,
        rhythm: Rhythm,
    ) {
        // Where nothing could be tried nothing is known to be wrong.
        let fails = report.fails();
        let news = self.seen != self.proven || fails != self.failed;
        let asked = self.silent || fails;
        let gap = if news || !asked { SOON } else { (self.gap * 2).min(rhythm.prove_every) };
        self.gap = gap.max(took * (SHARE - 1));
        self.last = Some(Instant::now());
        (self.failed, self.silent) = (fails, false);
        self.proven.clone_from(&self.seen);
        if converged && report.holds() {
            (self.changed, self.wrote) = (false, false);
        }
    }
}

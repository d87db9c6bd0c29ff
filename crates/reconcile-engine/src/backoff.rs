//! Pauses after failures: they double, with jitter, and start anew after a success.

use std::time::Duration;

/// First pause.
const FIRST: Duration = Duration::from_secs(1);
/// Longest pause: a server that comes back is noticed within this time at the latest.
const LONGEST: Duration = Duration::from_secs(60);

/// A growing pause.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause. `jitter` is a random number from 0 to 1 and takes up to half of it away, so
    /// that several operators or clusters do not knock in step.
    pub fn next_pause(&mut self, jitter: f64) -> Duration {
        let doubled = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1).min(16);
        doubled.min(LONGEST).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
    /// A success: the next failure starts anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_anew() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next_pause(0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!(backoff.next_pause(1.0), Duration::from_millis(500));
        for _ in 0..100 {
            assert!(backoff.next_pause(0.5) <= LONGEST);
        }
    }
}

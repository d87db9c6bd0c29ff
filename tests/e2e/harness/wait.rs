//! Waiting for a condition, with a deadline and the last thing seen.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Between two looks.
const TICK: Duration = Duration::from_millis(50);

/// Looks until `look` gives something; fails after `patience` with what it said last.
#[track_caller]
pub(crate) fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) if started.elapsed() > patience => {
                panic!("waited {} for {what}; last seen: {last}", seconds(started.elapsed()))
            }
            Err(_) => sleep(TICK),
        }
    }
}

/// A duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

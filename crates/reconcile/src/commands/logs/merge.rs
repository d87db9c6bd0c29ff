//! Several streams of lines as one in the order of time: each line is held for a moment, so that
//! earlier ones of slower servers come before it. Bounded; a clock that is off holds nobody up.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::line::Line;

/// Lines of what happened together arrive within this of each other, on a busy server as well.
pub(super) const HOLD: Duration = Duration::from_millis(500);
/// Beyond this nothing more is taken.
const LINES: usize = 50_000;
const BYTES: usize = 16 << 20;

/// Time first; of the same time, as they came.
type Key = (Timestamp, u64);

/// Lines that are held.
#[derive(Default)]
pub(super) struct Merge {
    lines: BTreeMap<Key, Line>,
    /// In the order of arrival.
    arrived: VecDeque<(Instant, Key)>,
    bytes: usize,
    count: u64,
}

impl Merge {
    /// Whether more can be taken.
    pub(super) fn has_room(&self) -> bool {
        self.lines.len() < LINES && self.bytes < BYTES
    }

    pub(super) fn push(&mut self, line: Line, now: Instant) {
        let key = (line.at, self.count);
        self.count += 1;
        self.bytes += line.text.len() + line.origin.len();
        self.lines.insert(key, line);
        self.arrived.push_back((now, key));
    }

    /// When the next line is to be shown.
    pub(super) fn due(&mut self) -> Option<Instant> {
        // Those that went before their turn.
        while let Some((_, key)) = self.arrived.front()
            && !self.lines.contains_key(key)
        {
            self.arrived.pop_front();
        }
        let (arrived, _) = self.arrived.front()?;
        Some(if self.has_room() { *arrived + HOLD } else { *arrived })
    }

    /// The next line that is due: the earliest of all, once one that is not before it was held for
    /// long enough.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Line> {
        if self.due()? > now {
            return None;
        }
        let (_, line) = self.lines.pop_first()?;
        self.bytes -= line.text.len() + line.origin.len();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, text: &str) -> Line {
        let at = Timestamp::from_millisecond(at).expect("a time");
        Line { at, origin: "node1".to_owned(), text: text.to_owned() }
    }

    fn all(merge: &mut Merge, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| merge.pop(now)).map(|line| line.text).collect()
    }

    #[test]
    fn a_line_waits_for_earlier_ones_and_not_longer() {
        let (mut merge, start) = (Merge::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        merge.push(line(20, "second"), after(0));
        assert_eq!(all(&mut merge, after(499)), [""; 0]);
        merge.push(line(10, "first"), after(400));
        merge.push(line(30, "third"), after(450));
        assert_eq!(all(&mut merge, after(500)), ["first", "second"]);
        assert_eq!(merge.due(), Some(after(950)));
        assert_eq!(all(&mut merge, after(950)), ["third"]);
        assert_eq!(merge.due(), None);
    }

    #[test]
    fn a_clock_that_is_behind_holds_nobody_up() {
        let (mut merge, start) = (Merge::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        merge.push(line(100_000, "of now"), after(0));
        let mut shown = None;
        for moment in 0..100 {
            let millis = moment * 10;
            merge.push(line(i64::try_from(moment).expect("small"), "of before"), after(millis));
            if all(&mut merge, after(millis)).contains(&"of now".to_owned()) {
                shown.get_or_insert(millis);
            }
        }
        assert_eq!(shown, Some(500));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut merge, now) = (Merge::default(), Instant::now());
        let mut count = 0;
        while merge.has_room() {
            merge.push(line(count, "a line"), now);
            count += 1;
        }
        assert_eq!(merge.lines.len(), LINES);
        // Full, it need not be held any longer.
        assert!(merge.pop(now).is_some());
        let mut merge = Merge::default();
        let long = "x".repeat(16 * 1024);
        while merge.has_room() {
            merge.push(line(0, &long), now);
        }
        assert!(merge.lines.len() < 1100);
    }
}

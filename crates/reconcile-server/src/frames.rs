//! The event stream's memory: the latest frames, bounded in number and bytes, so that a client
//! that was away for a moment misses nothing, and one that was away for long starts anew.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

/// Frames that are kept.
const MOST: usize = 512;
/// Bytes that are kept, the newest frame apart.
const MOST_BYTES: usize = 2 << 20;

/// A frame as it goes over the wire.
struct Frame {
    number: u64,
    snapshot: bool,
    bytes: Bytes,
}

/// What follows for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing for now.
    Nothing,
    /// This frame, with its number.
    Frame(u64, Bytes),
    /// Something that it has not seen is forgotten.
    StartAnew,
}

/// The latest frames.
pub(crate) struct Frames {
    /// Numbers are this process's own; a client of an earlier one starts anew.
    process: String,
    newest: u64,
    /// Whoever has seen this number has missed nothing that was forgotten.
    forgotten: u64,
    bytes: usize,
    ring: VecDeque<Frame>,
}

impl Frames {
    pub(crate) fn new(process: String) -> Self {
        Self { process, newest: 0, forgotten: 0, bytes: 0, ring: VecDeque::new() }
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// A change.
    pub(crate) fn push<T: Serialize>(&mut self, event: &str, data: &T) {
        self.newest += 1;
        // Plain data with string keys always serialises.
        let json = serde_json::to_vec(data).unwrap_or_default();
        let bytes = Bytes::from([&self.head(event)[..], &json, b"\n\n"].concat());
        self.keep(bytes, false);
    }

    /// The whole status, which makes earlier whole ones useless.
    pub(crate) fn push_snapshot(&mut self, json: &[u8]) {
        self.newest += 1;
        let bytes = Bytes::from([&self.head("status")[..], json, b"\n\n"].concat());
        if let Some(at) = self.ring.iter().position(|frame| frame.snapshot)
            && let Some(old) = self.ring.remove(at)
        {
            self.bytes -= old.bytes.len();
        }
        self.keep(bytes, true);
    }

    fn keep(&mut self, bytes: Bytes, snapshot: bool) {
        self.bytes += bytes.len();
        self.ring.push_back(Frame { number: self.newest, snapshot, bytes });
        while self.ring.len() > MOST || (self.bytes > MOST_BYTES && self.ring.len() > 1) {
            let Some(old) = self.ring.pop_front() else { break };
            self.bytes -= old.bytes.len();
            self.forgotten = old.number;
        }
    }

    /// The first lines of a frame with the newest number.
    pub(crate) fn head(&self, event: &str) -> Vec<u8> {
        format!("id: {}-{}\nevent: {event}\ndata: ", self.process, self.newest).into_bytes()
    }

    /// The number in a `Last-Event-ID` of this process.
    pub(crate) fn number(&self, id: &str) -> Option<u64> {
        let (process, number) = id.rsplit_once('-')?;
        (process == self.process).then(|| number.parse().ok())?
    }

    /// What follows `seen`.
    pub(crate) fn after(&self, seen: u64) -> Next {
        if seen < self.forgotten || seen > self.newest {
            return Next::StartAnew;
        }
        let next = self.ring.partition_point(|frame| frame.number <= seen);
        self.ring
            .get(next)
            .map_or(Next::Nothing, |frame| Next::Frame(frame.number, frame.bytes.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_number_and_bytes() {
        let mut frames = Frames::new("p".to_owned());
        for number in 0..2000 {
            frames.push("log", &number);
        }
        assert_eq!(frames.ring.len(), MOST);
        assert_eq!(frames.after(10), Next::StartAnew);
        assert_eq!(frames.after(2000), Next::Nothing);
        assert_eq!(frames.after(2001), Next::StartAnew);
        let large = "x".repeat(100_000);
        for _ in 0..100 {
            frames.push("log", &large);
        }
        assert!(frames.bytes <= MOST_BYTES, "{}", frames.bytes);
        assert_eq!(frames.bytes, frames.ring.iter().map(|frame| frame.bytes.len()).sum::<usize>());
    }

    #[test]
    fn a_snapshot_replaces_the_last_one_and_nothing_else() {
        let mut frames = Frames::new("p".to_owned());
        frames.push("log", &1);
        frames.push_snapshot(b"{}");
        frames.push("log", &2);
        frames.push_snapshot(b"{}");
        let mut seen = frames.number("p-0").expect("own number");
        let mut numbers = Vec::new();
        while let Next::Frame(number, _) = frames.after(seen) {
            numbers.push(number);
            seen = number;
        }
        assert_eq!(numbers, [1, 3, 4]);
        assert_eq!(frames.number("q-1"), None);
        assert_eq!(frames.number("p-x"), None);
    }
}

//! Lines of logs as the servers print them, and as they are shown.

use std::{cmp::Ordering, fmt};

use jiff::Timestamp;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: Timestamp,
    /// Server, and for a service its task.
    pub(super) origin: String,
    pub(super) text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, origin, text } = self;
        writeln!(f, "{at:.3} {origin}: {text}")
    }
}

/// By time; lines of the same moment stay in the order in which they were written.
pub(super) fn order(a: &Line, b: &Line) -> Ordering {
    a.at.cmp(&b.at)
}

/// Reads a server's journal, line by line.
pub(super) struct Journal {
    host: String,
    last: Option<Timestamp>,
}

impl Journal {
    pub(super) fn of(host: &str) -> Self {
        Self { host: host.to_owned(), last: None }
    }

    /// `1763800000.123456 host ident[pid]: text`; what begins with a blank belongs to the line
    /// before.
    pub(super) fn line(&mut self, line: &str) -> Option<Line> {
        let mut words = line.splitn(3, ' ');
        let stamp = words.next().and_then(seconds);
        let (at, text) = match (stamp, words.nth(1), self.last) {
            (Some(at), Some(rest), _) => (at, rest),
            (_, _, Some(last)) => (last, line.trim_start()),
            (_, _, None) => return None,
        };
        self.last = Some(at);
        Some(Line { at, origin: self.host.clone(), text: plain(text) })
    }
}

fn seconds(word: &str) -> Option<Timestamp> {
    let (whole, part) = word.split_once('.')?;
    let micros: i32 = part.get(..6)?.parse().ok()?;
    Timestamp::new(whole.parse().ok()?, micros * 1000).ok()
}

/// `2026-01-01T00:00:00.000000000Z stack_name.1.id@host    | text`.
pub(super) fn of_service(line: &str) -> Option<Line> {
    let (stamp, rest) = line.split_once(' ')?;
    let (task, text) = rest.split_once('|')?;
    let (task, host) = task.trim().rsplit_once('@')?;
    let task = super::short(task).rsplit_once('.').map_or(task, |(slot, _)| slot);
    let origin = format!("{host} {task}");
    Some(Line { at: stamp.parse().ok()?, origin, text: plain(text.trim_start()) })
}

/// Whoever can write to a log must not be able to write to the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_servers_become_one_stream_in_the_order_of_time() {
        let journal = |host: &str, text: &str| {
            let mut journal = Journal::of(host);
            text.lines().filter_map(|line| journal.line(line)).collect::<Vec<_>>()
        };
        let mut lines = journal(
            "node1",
            "of an entry before\n1763800002.500000 node1 etcd[7]: second\n        and more of it\n1763800003.000000 node1 etcd[7]: \u{1b}[31mfourth\n",
        );
        lines.extend(journal("node2", "1763800001.000000 node2 etcd[9]: first\n"));
        let service = "2025-11-22T08:26:42.750000000Z db-utils_haproxy.2.abc@node3    | third | with a bar\nno line\n";
        lines.extend(service.lines().filter_map(of_service));
        lines.sort_by(order);
        let told: Vec<_> =
            lines.iter().map(|line| format!("{}: {}", line.origin, line.text)).collect();
        assert_eq!(
            told,
            [
                "node2: etcd[9]: first",
                "node1: etcd[7]: second",
                "node1: and more of it",
                "node3 haproxy.2: third | with a bar",
                "node1: etcd[7]:  [31mfourth",
            ]
        );
    }
}

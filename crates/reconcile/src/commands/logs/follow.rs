//! `reconcile logs -f`: what is written from now on, of all servers as one stream, until it is told
//! to end. A stream that breaks is taken up where it broke; nothing stays on the servers.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reconcile_core::model::HostName;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Prepared, Reach, Writer,
    line::{Journal, Line, of_service, plain},
    merge::Merge,
    redact,
};
use crate::{
    failure::{Failure, Outcome},
    output,
    pipes::Out,
};

/// Streams that are slow to open hold the first lines up for so long.
const OPENING: Duration = Duration::from_secs(5);
/// Between tries of a stream that broke.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
/// A stream is taken up so much before its last line: those of one moment come in any order.
const OVERLAP: SignedDuration = SignedDuration::from_secs(2);
/// Lines of the overlap that are remembered.
const REMEMBERED: usize = 20_000;
const ON_THE_WAY: usize = 1024;
/// What is written at once.
const PIECE: usize = 32 * 1024;

/// One stream of lines.
enum Stream<'a> {
    Journal { unit: &'a str, host: &'a HostName },
    Service { service: &'a str, managers: &'a [HostName] },
}

enum News {
    Opened,
    Line(Line),
    Trouble(String),
}

/// Follows until Ctrl-C, SIGTERM, or until nobody reads any more.
pub(super) async fn follow(
    prepared: &Prepared,
    writer: &Writer,
    host: Option<&str>,
    reach: Reach,
) -> Result<Outcome, Failure> {
    let streams = match writer {
        Writer::Unit(unit, hosts) => {
            hosts.iter().map(|host| Stream::Journal { unit, host }).collect()
        }
        Writer::Service(service, managers) => vec![Stream::Service { service, managers }],
    };
    let wanted = |line: &Line| host.is_none_or(|host| line.origin.split(' ').next() == Some(host));
    let (sender, mut news) = mpsc::channel(ON_THE_WAY);
    let mut opening = streams.len();
    let all = streams.iter().map(|stream| one(prepared, stream, reach, sender.clone()));
    let mut all = std::pin::pin!(futures::future::join_all(all));
    let mut stop = std::pin::pin!(super::super::signal());
    let out = Out::standard_output();
    let mut merge = Merge::default();
    let mut begin = Instant::now() + OPENING;
    let mut told = HashSet::new();
    loop {
        let due = merge.due().map(|due| due.max(begin));
        let now = Instant::now();
        tokio::select! {
            biased;
            () = &mut stop => break,
            // A reader that is slow holds the streams up and no signal.
            () = out.room(), if due.is_some_and(|due| due <= now) => {
                let mut text = String::new();
                while text.len() < PIECE && let Some(line) = merge.pop(now) {
                    text.push_str(&redact(&line.to_string(), &prepared.secrets));
                }
                if !out.write(Bytes::from(text)).await {
                    break;
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or(now)), if due.is_some_and(|due| due > now) => {}
            Some(news) = news.recv(), if merge.has_room() => match news {
                News::Line(line) if wanted(&line) => merge.push(line, Instant::now()),
                News::Line(_) => {}
                News::Opened => {
                    opening = opening.saturating_sub(1);
                    if opening == 0 {
                        begin = begin.min(Instant::now() + super::merge::HOLD);
                    }
                }
                News::Trouble(text) => {
                    let text = plain(&redact(&text, &prepared.secrets));
                    if told.len() < REMEMBERED && told.insert(text.clone()) {
                        output::note(&format!("{text}; trying again"));
                    }
                }
            },
            _ = &mut all => break,
        }
    }
    Ok(Outcome::Done)
}

/// Follows one stream for ever.
async fn one(prepared: &Prepared, stream: &Stream<'_>, reach: Reach, to: mpsc::Sender<News>) {
    let (mut seen, mut tries) = (Seen::default(), 0);
    loop {
        let host = stream.host(tries);
        let attempt = format!("follow the log of {} on {host}", stream.name());
        let words = stream.words(reach, seen.resume());
        let error = match prepared.fleet.follow(host, &attempt, &words).await {
            Ok(mut following) => {
                if to.send(News::Opened).await.is_err() {
                    return;
                }
                let mut journal = Journal::of(host.as_str());
                let mut odd = None;
                loop {
                    let text = match following.next().await {
                        Ok(text) => text,
                        // What a command says of its own end is no line of a log.
                        Err(error) => match odd {
                            Some(odd) => break format!("{attempt}: {odd}"),
                            None => break error.to_string(),
                        },
                    };
                    let line = match stream {
                        Stream::Journal { .. } => journal.line(&text),
                        Stream::Service { .. } => of_service(&text),
                    };
                    let Some(line) = line else {
                        odd = Some(text);
                        continue;
                    };
                    tries = 0;
                    if seen.is_new(&line) && to.send(News::Line(line)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => error.to_string(),
        };
        if to.send(News::Trouble(error)).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN[tries.min(AGAIN.len() - 1)]).await;
        tries += 1;
    }
}

impl Stream<'_> {
    /// The server to ask; of several the next with each try.
    fn host(&self, tries: usize) -> &HostName {
        match self {
            Self::Journal { host, .. } => host,
            Self::Service { managers, .. } => &managers[tries % managers.len()],
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Journal { unit, .. } => unit,
            Self::Service { service, .. } => service,
        }
    }

    fn words(&self, reach: Reach, resume: Option<Timestamp>) -> Vec<String> {
        let lines = if resume.is_some() { "all".to_owned() } else { reach.lines.to_string() };
        let mut words: Vec<String>;
        match self {
            Self::Journal { unit, .. } => {
                let fixed = ["journalctl", "--no-pager", "--quiet", "--output=short-unix"];
                words = fixed.map(str::to_owned).to_vec();
                words.extend(["--follow".to_owned(), format!("--lines={lines}")]);
                words.push(format!("--unit={unit}"));
                match (resume, reach.seconds) {
                    (Some(resume), _) => words.push(format!("--since=@{}", resume.as_second())),
                    (None, Some(seconds)) => words.push(format!("--since=-{seconds}s")),
                    (None, None) => {}
                }
            }
            Self::Service { service, .. } => {
                let fixed = ["docker", "service", "logs", "--follow", "--timestamps", "--no-trunc"];
                words = fixed.map(str::to_owned).to_vec();
                words.extend(["--tail".to_owned(), lines]);
                match (resume, reach.seconds) {
                    (Some(resume), _) => words.extend(["--since".to_owned(), resume.to_string()]),
                    (None, Some(seconds)) => {
                        words.extend(["--since".to_owned(), format!("{seconds}s")]);
                    }
                    (None, None) => {}
                }
                words.push((*service).to_owned());
            }
        }
        words
    }
}

/// Which lines were shown already, as far as a stream that is taken up tells them again.
#[derive(Default)]
struct Seen {
    last: Option<Timestamp>,
    /// Up to here the stream before this one has told.
    resumed: Option<Timestamp>,
    order: VecDeque<(Timestamp, u64)>,
    known: HashSet<(Timestamp, u64)>,
}

impl Seen {
    /// From when on to ask; None: nothing was seen yet.
    fn resume(&mut self) -> Option<Timestamp> {
        self.resumed = self.last;
        self.last.and_then(|last| last.checked_sub(OVERLAP).ok())
    }

    fn is_new(&mut self, line: &Line) -> bool {
        let mut hasher = DefaultHasher::new();
        (&line.origin, &line.text).hash(&mut hasher);
        let key = (line.at, hasher.finish());
        // Two lines may well be alike; only what is told again is left out.
        if self.resumed.is_some_and(|resumed| line.at <= resumed) && self.known.contains(&key) {
            return false;
        }
        self.last = self.last.max(Some(line.at));
        if self.known.insert(key) {
            self.order.push_back(key);
        }
        let old = self.last.and_then(|last| last.checked_sub(OVERLAP + OVERLAP).ok());
        while let Some(first) = self.order.front()
            && (self.order.len() > REMEMBERED || old.is_some_and(|old| first.0 < old))
        {
            self.known.remove(first);
            self.order.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(millis: i64, text: &str) -> Line {
        let at = Timestamp::from_millisecond(millis).expect("a time");
        Line { at, origin: "node1".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_stream_that_is_taken_up_tells_nothing_twice_and_leaves_nothing_out() {
        let mut seen = Seen::default();
        assert_eq!(seen.resume(), None);
        for (millis, text) in [(10_000, "a"), (11_000, "b"), (11_000, "b"), (10_500, "late")] {
            assert!(seen.is_new(&line(millis, text)), "{text}");
        }
        assert_eq!(seen.resume(), Some(Timestamp::from_millisecond(9000).expect("a time")));
        let again =
            [(10_000, "a"), (10_500, "late"), (10_700, "missed"), (11_000, "b"), (11_001, "c")];
        let new = again.into_iter().filter(|(millis, text)| seen.is_new(&line(*millis, text)));
        assert_eq!(new.map(|(_, text)| text).collect::<Vec<_>>(), ["missed", "c"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for number in 0..3 * i64::try_from(REMEMBERED).expect("small") {
            assert!(seen.is_new(&line(1000, &number.to_string())));
        }
        assert_eq!((seen.order.len(), seen.known.len()), (REMEMBERED, REMEMBERED));
        seen.is_new(&line(60_000, "much later"));
        assert_eq!(seen.known.len(), 1);
    }
}

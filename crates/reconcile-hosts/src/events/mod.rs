//! What changes on a server, as events: units, files that reconcile keeps, packages. They say where
//! to look and never what is there.
//!
//! One process for each server, over the *streams* connection: `watch.pl` beside this file. It ends
//! with the connection, also when the operator was killed or its network cut, and leaves nothing.

use std::{fmt::Write as _, sync::Arc};

use reconcile_core::{
    model::HostName,
    ports::{EffectError, Retry},
    probe::ProbeRequest,
};
use reconcile_dial::BoxStream;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, ReadHalf, WriteHalf},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};

use crate::{
    Ssh,
    fault::{Fault, spoken},
    forward, limits,
    ssh::Line,
};

/// The program, sent on its own standard input: it is in no argument and in no file there.
const PROGRAM: &str = include_str!("watch.pl");
/// Written by each installation and removal of a package.
const PACKAGES: &str = "/var/lib/dpkg/status";

/// What a server tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// Something may have changed: `unit NAME` or `file PATH`.
    Changed(String),
    /// Something cannot be heard there, and why.
    Deaf(String),
}

/// The events of one server; dropped, its process there ends.
pub struct HostEvents {
    ssh: Ssh,
    host: HostName,
    lines: Lines<BufReader<ReadHalf<BoxStream>>>,
    to: WriteHalf<BoxStream>,
    ping: Interval,
    heard: Instant,
    /// What could not be heard from the start.
    deaf: Vec<String>,
}

impl Ssh {
    /// Follows what a probe with `request` would look at.
    ///
    /// # Errors
    /// Where the server cannot be reached, or the watching process does not run there.
    pub async fn events(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostEvents, EffectError> {
        let attempt = attempt(host);
        let stream = self.perl(host).await.map_err(|fault| fault.at(host, &attempt))?;
        let (from, to) = tokio::io::split(stream);
        let mut ping = interval(limits::PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let lines = BufReader::new(from).lines();
        let mut events = HostEvents {
            ssh: self.clone(),
            host: host.clone(),
            lines,
            to,
            ping,
            heard: Instant::now(),
            deaf: Vec::new(),
        };
        events.send(&input(request)).await?;
        events.listening().await?;
        Ok(events)
    }

    /// A perl, as root, that reads its program from the stream. A connection that turns out to be dead
    /// is replaced once.
    pub(crate) async fn perl(&self, host: &HostName) -> Result<BoxStream, Fault> {
        let command = if self.target(host)?.needs_sudo() { "sudo -n perl -" } else { "perl -" };
        let mut fresh = false;
        loop {
            let connection = self.connection(host, Line::Streams).await?;
            let permit = timeout(limits::CHANNEL, Arc::clone(&connection.execs).acquire_owned());
            let permit =
                permit.await.map_err(|_| Fault::later("too many streams are open there"))?;
            let permit = permit.map_err(|_| Fault::soon("the connection is closing"))?;
            match forward::open_command(&connection, permit, command).await {
                Err(_) if connection.is_closed() && !fresh => fresh = true,
                result => return result,
            }
        }
    }
}

impl HostEvents {
    /// The next event. An error ends the stream: whatever changes until the next one is not heard.
    pub async fn next(&mut self) -> Result<HostEvent, EffectError> {
        if let Some(what) = self.deaf.pop() {
            return Ok(HostEvent::Deaf(what));
        }
        loop {
            tokio::select! {
                line = self.lines.next_line() => {
                    let line = match line {
                        Ok(Some(line)) => line,
                        Ok(None) => return Err(self.ended("the process there ended", Retry::Soon)),
                        Err(error) => return Err(self.ended(&error.to_string(), Retry::Soon)),
                    };
                    self.heard = Instant::now();
                    match line.split_once(' ') {
                        Some(("unit" | "file", _)) => return Ok(HostEvent::Changed(line)),
                        Some(("lost", what)) => return Ok(HostEvent::Deaf(what.to_owned())),
                        // `ready`, `alive`.
                        _ => {}
                    }
                }
                _ = self.ping.tick() => {
                    if self.heard.elapsed() > limits::SILENCE {
                        // Nothing else on a dead connection should have to find that out.
                        self.ssh.drop_dead(&self.host).await;
                        let cause = format!("no sign of life for {}", spoken(limits::SILENCE));
                        return Err(self.ended(&cause, Retry::Later));
                    }
                    self.send("\n").await?;
                }
            }
        }
    }

    /// Waits until the process there listens: what changes from then on is told.
    async fn listening(&mut self) -> Result<(), EffectError> {
        let listening = async {
            loop {
                match self.lines.next_line().await {
                    Ok(Some(line)) if line == "ready" => return Ok(()),
                    Ok(Some(line)) => {
                        self.deaf.extend(line.strip_prefix("lost ").map(str::to_owned));
                    }
                    Ok(None) => return Err("the process there ended".to_owned()),
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        let cause = match timeout(limits::CHANNEL, listening).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => cause,
            Err(_) => format!("it did not listen within {}", spoken(limits::CHANNEL)),
        };
        Err(self.ended(&cause, Retry::Later))
    }

    async fn send(&mut self, text: &str) -> Result<(), EffectError> {
        let sent = self.to.write_all(text.as_bytes()).await;
        sent.map_err(|error| self.ended(&error.to_string(), Retry::Soon))
    }

    fn ended(&self, cause: &str, retry: Retry) -> EffectError {
        EffectError::new(Some(&self.host), attempt(&self.host), cause, retry)
    }
}

fn attempt(host: &HostName) -> String {
    format!("follow the events of {host}")
}

/// The program and what it is to watch.
fn input(request: &ProbeRequest) -> String {
    let mut text = PROGRAM.to_owned();
    let files = request.files.iter().map(|file| file.path.as_str());
    for path in files.chain([PACKAGES, request.pause.as_str()]) {
        let _infallible = writeln!(text, "file {path}");
    }
    for unit in &request.units {
        let _infallible = writeln!(text, "unit {unit}");
    }
    text.push_str("go\n");
    text
}

//! What stays open on a server between two probes, so that a pass need not start it again: a root
//! shell that runs one probe's script after the other, a psql, and `probe/quick.pl`, which spares the
//! script where all is well. Starting processes, with sudo, costs a server most of what a probe takes.
//!
//! They only save time. The first probe of a connection is an ordinary command; whatever is wrong
//! with one of them closes it, and the question is put as a command again. Both end with the
//! connection, for their input ends.

mod reader;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reconcile_core::probe::{ProbeRequest, SqlProbe};
use reconcile_dial::BoxStream;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use self::reader::Quick;
use crate::{
    connect::Connection,
    fault::{Fault, spoken},
    forward, limits,
    probe::{FIRST, Marks, PSQL_SECONDS, Sections, marking_script, psql_command, psql_text},
};

/// How long an answer to the whole question is built upon. What is inside databases other than the
/// first is not asked again before, since each takes a connection of its own, ten times what is
/// asked in it; and what has [`Marks`] is asked again where they changed. An effect of ours ends it
/// at once.
const FRESH: Duration = Duration::from_secs(30);

/// How long what Docker tells is asked for after a mark of it changed: a node that joined, or has a
/// new role, says so a moment later.
const SETTLING: Duration = Duration::from_secs(10);

/// A resident ends after this long by itself: one whose connection was lost without a word would
/// stay for hours, and a session of PostgreSQL with it.
const TERM: Duration = Duration::from_secs(300);

/// The quick reader has this long; it takes hundredths of a second.
const QUICK: Duration = Duration::from_secs(3);

/// What the quick reader found odd may be a moment's, such as an answer that was late.
const ODD: Duration = Duration::from_secs(5);

/// The residents of one connection.
#[derive(Default)]
pub(crate) struct Residents {
    /// A probe went well as a command: there will be more of them.
    worthwhile: bool,
    /// Since when sshd has no room for them beside others.
    unwelcome: Option<Instant>,
    shell: Option<Resident>,
    psql: Option<(ProbeRequest, Resident)>,
    quick: Option<Resident>,
    /// Since when the quick reader found something odd, and for how long looking is the script's.
    odd: Option<(Instant, Duration)>,
    /// When the question was put that the last answer is to: what came before it is not the server's time.
    pub(crate) asked: Option<SystemTime>,
    known: Option<Known>,
}

/// The last answer to a whole question.
struct Known {
    request: ProbeRequest,
    at: Instant,
    effects: u64,
    /// Since when the marks of files are as they are.
    settled: Instant,
    sections: Sections,
    /// None: no PostgreSQL answered.
    server: Option<Server>,
    /// Of databases other than the first.
    inside: Vec<u8>,
}

/// While this is the same, what is inside is worth keeping.
#[derive(Debug, Default, PartialEq, Eq)]
struct Server {
    standby: bool,
    databases: BTreeSet<String>,
}

/// As much of a row as is needed here.
#[derive(Deserialize)]
struct Row {
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    standby: bool,
}

/// Gives root shells on a server.
pub(crate) trait Shells {
    /// The input and output of a new one; None: there can be none now.
    async fn open(&self) -> Option<BoxStream>;
}

/// Root shells over SSH.
pub(crate) struct Remote<'a> {
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) sudo: bool,
}

impl Shells for Remote<'_> {
    async fn open(&self) -> Option<BoxStream> {
        let permit = Arc::clone(&self.connection.execs).try_acquire_owned().ok()?;
        // TERM, and what the server's clock may be faster.
        let command = if self.sudo {
            "sudo -n sh -c 'exec timeout 330 sh -s'"
        } else {
            "exec timeout 330 sh -s"
        };
        forward::open_command(self.connection, permit, command).await.ok()
    }
}

impl Residents {
    /// The sections of a probe's answer; None: it is to be asked with a command. `effects` counts
    /// what was done on the servers so far.
    ///
    /// # Errors
    /// Where the server took the question and gave no answer in time.
    pub(crate) async fn ask(
        &mut self,
        way: &impl Shells,
        request: &ProbeRequest,
        effects: u64,
        deadline: Duration,
    ) -> Result<Option<Sections>, Fault> {
        if !self.worthwhile || self.unwelcome.is_some() {
            return Ok(None);
        }
        if let Some(known) = self.known.take_if(|known| known.holds(request, effects)) {
            let answer = self.ask_rest(way, &known, deadline).await?;
            if let Some(sections) = answer {
                let same = sections.bytes("marks") == known.sections.bytes("marks");
                let settled = if same { known.settled } else { Instant::now() };
                self.known = Some(Known { sections: sections.clone(), settled, ..known });
                return Ok(Some(sections));
            }
        }
        let script = marking_script(request, &Marks::default());
        let answer = self.shell(way, &script, deadline).await?;
        if let Some(sections) = &answer {
            self.learn(request, sections, effects);
        }
        Ok(answer)
    }

    /// Asks for what is not known, or may have changed; None: all of it is to be asked.
    async fn ask_rest(
        &mut self,
        way: &impl Shells,
        known: &Known,
        deadline: Duration,
    ) -> Result<Option<Sections>, Fault> {
        let settled = known.settled.elapsed() >= SETTLING;
        let marks = Marks {
            sockets: known.sections.text("sockets"),
            files: if settled { known.sections.text("marks") } else { String::new() },
        };
        let (answer, rows) = if let (Some(server), Some(sql)) = (&known.server, &known.request.sql)
        {
            let without = ProbeRequest { sql: None, ..known.request.clone() };
            let script = marking_script(&without, &marks);
            let mut psql = self.psql.take();
            let (answer, rows) = futures::future::join(
                self.look(way, &without, &script, &marks, deadline),
                psql_rows(&mut psql, way, &known.request, sql),
            )
            .await;
            let rows = rows.filter(|rows| self::server(rows).as_ref() == Some(server));
            let Some(mut rows) = rows else { return answer.map(|_| None) };
            self.psql = psql;
            rows.extend_from_slice(&known.inside);
            (answer, Some(rows))
        } else {
            let script = marking_script(&known.request, &marks);
            let answer = if known.request.sql.is_none() {
                self.look(way, &known.request, &script, &marks, deadline).await
            } else {
                self.shell(way, &script, deadline).await
            };
            (answer, None)
        };
        let Some(mut sections) = answer? else { return Ok(None) };
        if let Some(rows) = rows {
            sections.put("sql", rows);
            sections.put("sql.rc", b"0\n".to_vec());
        }
        // A service that was started anew may say something else, whatever the marks are.
        if unit_lines(&sections) != unit_lines(&known.sections) {
            tracing::debug!("a unit says something else; everything is asked");
            return Ok(None);
        }
        for name in ["listeners", "ss.rc", "ss.err", "packages", "packages.err"] {
            sections.fill(&known.sections, name);
        }
        if sections.bytes("docker") == Some(b"OK") {
            // It answers, and what it said before may have been nothing, or its own trouble.
            let Some(info) = known.sections.bytes("docker").filter(|info| docker_told(info)) else {
                return Ok(None);
            };
            sections.put("docker", info.to_vec());
        }
        Ok(Some(sections))
    }

    /// What was answered could not be understood, so nothing is built upon it.
    pub(crate) fn forget(&mut self) {
        self.known = None;
    }

    /// Makes room on the connection for good; false: it was made long before, so they are not what
    /// is in the way.
    pub(crate) fn leave(&mut self) -> bool {
        let since = *self.unwelcome.get_or_insert_with(Instant::now);
        self.known = None;
        self.shell = None;
        self.psql = None;
        self.quick = None;
        since.elapsed() < limits::REAP
    }

    /// Takes note of an answer to the whole question.
    pub(crate) fn learn(&mut self, request: &ProbeRequest, sections: &Sections, effects: u64) {
        self.worthwhile = true;
        let before = self.known.take();
        let marks = sections.bytes("marks");
        let before =
            before.filter(|known| marks.is_some() && known.sections.bytes("marks") == marks);
        let settled = before.map_or_else(Instant::now, |known| known.settled);
        let asked = request.sql.is_some() && sections.bytes("sql.rc").is_some();
        let whole = sections.status("sql") == Some(0) && sections.errors("sql").is_empty();
        if asked && !whole {
            return;
        }
        let rows = sections.bytes("sql").unwrap_or_default();
        let server = server(rows);
        if asked && server.is_none() {
            return;
        }
        let of_others = |line: &&[u8]| {
            serde_json::from_slice::<Row>(line)
                .is_ok_and(|row| row.kind == "inside" && row.name != FIRST)
        };
        let rows = rows.split_inclusive(|byte| *byte == b'\n').filter(of_others);
        let inside = rows.flatten().copied().collect();
        self.known = Some(Known {
            request: request.clone(),
            at: Instant::now(),
            effects,
            settled,
            sections: sections.clone(),
            server,
            inside,
        });
    }

    /// Looks at what is as it was at the last whole answer, or runs the script that finds out.
    async fn look(
        &mut self,
        way: &impl Shells,
        request: &ProbeRequest,
        script: &str,
        marks: &Marks,
        deadline: Duration,
    ) -> Result<Option<Sections>, Fault> {
        let spared = !marks.files.is_empty() && (!request.docker || marks.tell_of_docker());
        if spared && self.odd.is_none_or(|(since, lasts)| since.elapsed() >= lasts) {
            let quick = self.quick.take().filter(Resident::has_time);
            self.asked = Some(SystemTime::now());
            match timeout(QUICK, reader::look(quick, way, request, marks)).await {
                Ok(Quick::Told(quick, sections)) => {
                    self.quick = Some(quick);
                    self.odd = None;
                    return Ok(Some(sections));
                }
                Ok(Quick::Moved(quick)) => self.quick = Some(quick),
                Ok(Quick::Odd(quick, why)) => {
                    tracing::debug!(why, "the probe's script looks");
                    self.quick = Some(quick);
                    self.leave_to_script();
                }
                gone_or_late => {
                    let late = gone_or_late.is_err();
                    tracing::debug!(late, "the quick reader is gone; the probe's script looks");
                    self.leave_to_script();
                }
            }
        }
        self.shell(way, script, deadline).await
    }

    /// For a moment, and for longer where it was so the time before.
    fn leave_to_script(&mut self) {
        let lasts = self.odd.map_or(ODD, |(_, lasts)| (lasts * 2).min(FRESH));
        self.odd = Some((Instant::now(), lasts));
    }

    /// Runs a probe's script in the shell, which is opened where it is not.
    async fn shell(
        &mut self,
        way: &impl Shells,
        script: &str,
        deadline: Duration,
    ) -> Result<Option<Sections>, Fault> {
        let mut shell = match self.shell.take().filter(Resident::has_time) {
            Some(shell) => shell,
            None => match Resident::open(way).await {
                Some(shell) => shell,
                None => return Ok(None),
            },
        };
        self.asked = Some(SystemTime::now());
        // A script ends with an exit: in a subshell that is the script's own.
        let question = |end: &str| format!("(\n{script}) </dev/null\nprintf '%s\\n' '{end}'\n");
        match timeout(deadline, shell.ask(question)).await {
            Ok(Some(answer)) => match Sections::parse(&answer) {
                Ok(sections) => {
                    self.shell = Some(shell);
                    Ok(Some(sections))
                }
                Err(_) => Ok(None),
            },
            Ok(None) => Ok(None),
            Err(_) => Err(Fault::later(format!(
                "the probe's shell did not answer within {}; it was closed",
                spoken(deadline)
            ))),
        }
    }
}

impl Known {
    fn holds(&self, request: &ProbeRequest, effects: u64) -> bool {
        self.at.elapsed() < FRESH && self.effects == effects && self.request == *request
    }
}

/// What the units are, in whatever order they tell it.
fn unit_lines(sections: &Sections) -> Vec<Vec<String>> {
    let text = sections.text("units");
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    blocks
        .map(|block| {
            let mut lines: Vec<_> = block.trim().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        })
        .collect()
}

/// Docker's `/info`, as much as is needed to know whether it stays as it is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    server_errors: Option<Vec<String>>,
    swarm: Swarm,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Swarm {
    local_node_state: String,
    #[serde(default)]
    control_available: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    cluster: Option<serde_json::Value>,
}

/// Whether Docker told all it was asked for, and is in a state that only lasts.
fn docker_told(info: &[u8]) -> bool {
    serde_json::from_slice::<Info>(info).is_ok_and(|Info { server_errors, swarm }| {
        let lasts = matches!(swarm.local_node_state.as_str(), "active" | "inactive");
        let led =
            !swarm.control_available || swarm.cluster.is_some_and(|cluster| !cluster.is_null());
        server_errors.is_none_or(|errors| errors.is_empty())
            && swarm.error.is_empty()
            && lasts
            && led
    })
}

/// Which server answered; None where a row is not one.
fn server(rows: &[u8]) -> Option<Server> {
    let mut server = None;
    let mut databases = BTreeSet::new();
    for line in rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let row: Row = serde_json::from_slice(line).ok()?;
        match row.kind.as_str() {
            "server" => server = Some(row.standby),
            "database" => {
                databases.insert(row.name);
            }
            _ => {}
        }
    }
    Some(Server { standby: server?, databases })
}

/// The rows of the first database; None: they are to be asked for with a psql of their own.
async fn psql_rows(
    place: &mut Option<(ProbeRequest, Resident)>,
    way: &impl Shells,
    request: &ProbeRequest,
    sql: &SqlProbe,
) -> Option<Vec<u8>> {
    let asking = async {
        let mut psql = match place.take() {
            Some((whose, psql)) if whose == *request && psql.has_time() => psql,
            _ => {
                let mut psql = Resident::open(way).await?;
                let command = psql_command(sql, request.postgres_bin_dir.as_deref());
                let start = |end: &str| format!("exec {command} -c '\\echo {end}' -f - 2>&1\n");
                // Only now it is psql that reads: the shell would take more than its line.
                psql.ask(start).await?;
                psql
            }
        };
        let text = psql_text(sql);
        let rows = psql.ask(|end| format!("{text}\\echo {end}\n")).await?;
        Some((psql, rows))
    };
    let (psql, rows) = timeout(Duration::from_secs(PSQL_SECONDS), asking).await.ok()??;
    *place = Some((request.clone(), psql));
    Some(rows)
}

/// A program that reads one question after the other.
struct Resident {
    stream: BoxStream,
    asked: u64,
    since: Instant,
}

impl Resident {
    async fn open(way: &impl Shells) -> Option<Self> {
        Some(Self { stream: way.open().await?, asked: 0, since: Instant::now() })
    }

    /// Whether it stays long enough for one more question.
    fn has_time(&self) -> bool {
        self.since.elapsed() < TERM
    }

    /// Sends what is no question.
    async fn send(&mut self, text: &str) -> Option<()> {
        self.stream.write_all(text.as_bytes()).await.ok()?;
        self.stream.flush().await.ok()
    }

    /// How the next answer ends.
    fn next_end(&self) -> String {
        format!("@@answered {}", self.asked + 1)
    }

    /// The answer to a question that ends with printing a line that it is given; None where the
    /// program ended or printed too much: then nothing more may be asked of it.
    async fn ask(&mut self, question: impl FnOnce(&str) -> String) -> Option<Vec<u8>> {
        let end = self.next_end();
        self.asked += 1;
        self.send(&question(&end)).await?;
        let mut answer = Vec::new();
        let last = format!("{end}\n");
        loop {
            let read = self.stream.read_buf(&mut answer).await.ok()?;
            if read == 0 || answer.len() > limits::STDOUT {
                return None;
            }
            if let Some(rest) = answer.strip_suffix(last.as_bytes()) {
                let length = rest.len();
                answer.truncate(length);
                return Some(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The service proof: what to try end to end, and what came of it.

mod seen;

use std::collections::BTreeSet;

use serde::Serialize;

pub use seen::{concluded, missing_primary, observed_proofs};

use crate::model::{HostName, SecretText};

/// What to prove.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyRequest {
    /// The nodes with a front to go through, with the address and ports to dial *on that node*.
    pub fronts: Vec<Front>,
    /// Those of nodes that are not known, through which nothing can be tried.
    pub unseen: Vec<Front>,
    /// Role for the probe.
    pub role: String,
    /// Its password.
    pub password: SecretText,
    /// Database that holds the probe table `reconcile.probe (node text primary key, token text, at timestamptz)`.
    pub database: String,
    /// Commit a row and read it back through the read port; else the write is rolled back, so
    /// that a pass which changes nothing leaves no trace.
    pub commit: bool,
    /// A word that makes this proof's rows its own.
    pub token: String,
}

/// One node's way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Front {
    /// Server through which to dial.
    pub host: HostName,
    /// Address as the server dials it.
    pub address: String,
    /// Port for writes.
    pub write_port: u16,
    /// Port for reads; None where none is published.
    pub read_port: Option<u16>,
    /// What the ports are, in words, such as `HAProxy`.
    pub through: String,
}

/// What a way in is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// Writes.
    Write,
    /// Reads.
    Read,
}

/// One proof.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// What was proven, such as `write through HAProxy on node1`.
    pub what: String,
    /// Server concerned.
    pub host: Option<HostName>,
    /// Of a client's way in, through that server: what for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Whether it held.
    pub holds: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What was seen: the serving address, or the error.
    pub detail: String,
    /// It could not be tried: nothing is known, neither that it holds nor that it fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub untried: bool,
    /// What it comes of that it does not hold, where that is something else, such as
    /// `node2 does not answer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comes_of: Option<String>,
    /// What gave no sign of life there: services by their names without the stack's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<&'static str>,
}

impl Proof {
    /// It is known not to hold.
    pub fn fails(&self) -> bool {
        !self.holds && !self.untried
    }

    /// The proof in a line.
    pub fn line(&self) -> String {
        format!("{}: {}", self.what, self.detail)
    }

    /// What is to be named where it does not hold.
    pub fn cause(&self) -> String {
        self.comes_of.clone().unwrap_or_else(|| self.line())
    }

    /// What it is about: a write that is kept and one that is rolled back go the same way.
    pub fn about(&self) -> String {
        match (self.way, &self.host) {
            (Some(way), Some(host)) => format!("{way:?} {host}"),
            _ => self.what.clone(),
        }
    }
}

/// All proofs of one verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// The proofs, in order of the request.
    pub proofs: Vec<Proof>,
}

/// How far the cluster serves its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Every proof holds.
    Wholly,
    /// Nothing that was tried fails, and not all could be tried.
    Unknown,
    /// Every way in that was tried serves, and something else does not hold; or those that were tried do not,
    /// and others may.
    InDoubt,
    /// Some ways in serve, others do not.
    Partly,
    /// No way in takes writes; some serve reads.
    NoWrites,
    /// No way in serves.
    Not,
}

/// Servers by how their ways in are.
struct Ways<'a> {
    good: BTreeSet<&'a HostName>,
    bad: BTreeSet<&'a HostName>,
    unknown: BTreeSet<&'a HostName>,
}

impl VerifyReport {
    /// True if every proof holds and there is at least one.
    pub fn holds(&self) -> bool {
        !self.proofs.is_empty() && self.proofs.iter().all(|proof| proof.holds)
    }

    /// Something is known not to hold.
    pub fn fails(&self) -> bool {
        self.proofs.iter().any(Proof::fails)
    }

    /// How far it serves.
    pub fn serves(&self) -> Serves {
        let ways = self.proofs.iter().filter(|proof| proof.way.is_some());
        let (writes, reads) = (self.good(Way::Write), self.good(Way::Read));
        let untried = ways.clone().any(|proof| proof.way == Some(Way::Write) && proof.untried);
        match () {
            () if self.holds() => Serves::Wholly,
            () if !self.fails() => Serves::Unknown,
            () if !ways.clone().any(Proof::fails) => Serves::InDoubt,
            () if writes.is_empty() && untried => Serves::InDoubt,
            () if writes.is_empty() && reads.is_empty() => Serves::Not,
            () if writes.is_empty() => Serves::NoWrites,
            () => Serves::Partly,
        }
    }

    /// The servers whose way in of a kind serves.
    fn good(&self, way: Way) -> BTreeSet<&HostName> {
        let good = self.proofs.iter().filter(|proof| proof.way == Some(way) && proof.holds);
        good.filter_map(|proof| proof.host.as_ref()).collect()
    }

    fn ways(&self) -> Ways<'_> {
        let hosts = |of: fn(&Proof) -> bool| -> BTreeSet<&HostName> {
            let ways = self.proofs.iter().filter(|proof| proof.way.is_some() && of(proof));
            ways.filter_map(|proof| proof.host.as_ref()).collect()
        };
        let bad = hosts(Proof::fails);
        let unknown: BTreeSet<_> = &hosts(|proof| proof.untried) - &bad;
        let good = &(&hosts(|proof| proof.holds) - &bad) - &unknown;
        Ways { good, bad, unknown }
    }

    /// What does not hold, each once, first what others come of. `fails`: that is known; else what could
    /// not be tried.
    pub fn causes(&self, fails: bool) -> Vec<String> {
        let such = |proof: &&Proof| if fails { proof.fails() } else { proof.untried };
        let mut found: Vec<&Proof> = self.proofs.iter().filter(such).collect();
        found.sort_by_key(|proof| {
            let leader = proof.what == LEADER || proof.comes_of.as_deref().is_some_and(no_primary);
            (!leader, proof.comes_of.is_none(), proof.silent.is_empty(), proof.way.is_none())
        });
        let mut causes: Vec<String> = Vec::new();
        for proof in found {
            let cause = proof.cause();
            // One that says more says this, too.
            if !causes.iter().any(|known| says(known, &cause)) {
                causes.push(cause);
            }
        }
        gathered(causes)
    }

    /// What does not serve and what does, in one sentence; the first cause is named, the rest counted.
    pub fn told(&self) -> String {
        let Ways { good, bad, unknown } = self.ways();
        let all = good.len() + bad.len() + unknown.len();
        let causes = self.causes(true);
        let why = match causes.as_slice() {
            [] => String::new(),
            [why] => why.clone(),
            [why, more @ ..] => format!("{why} (and {} more)", more.len()),
        };
        let mut unseen = self.causes(false);
        unseen.retain(|cause| !why.contains(cause.as_str()));
        let unseen = unseen.join("; ");
        let besides = if unseen.is_empty() { String::new() } else { format!("; {unseen}") };
        let does = if good.len() == 1 { "serves" } else { "serve" };
        let serve = format!("{} of {all} ways in {does}", good.len());
        match self.serves() {
            Serves::Wholly => "all ways in serve".to_owned(),
            Serves::Unknown if good.is_empty() && unseen.is_empty() => {
                "nothing could be proven".to_owned()
            }
            Serves::Unknown if good.is_empty() => {
                format!("it is not known whether it serves: {unseen}")
            }
            Serves::Unknown if unknown.is_empty() => format!("{serve}; {unseen}"),
            Serves::Unknown => format!("{serve} ({}); {unseen}", names(&good)),
            Serves::InDoubt if !bad.is_empty() && !unknown.is_empty() => {
                let does = if bad.len() == 1 { "does" } else { "do" };
                format!(
                    "of {all} ways in {} {does} not serve, and of {} it is not known: {why}{besides}",
                    names(&bad),
                    names(&unknown)
                )
            }
            Serves::InDoubt if good.is_empty() => format!("{why}{besides}"),
            // A leader is not known, and a write went through a moment later: that is no calm.
            Serves::InDoubt if no_primary(&why) => {
                format!("{why}; {} of {all} ways in took a write all the same{besides}", good.len())
            }
            Serves::InDoubt => format!("{serve}, but {why}{besides}"),
            Serves::Not => format!("none of {all} ways in serves: {why}{besides}"),
            Serves::NoWrites => {
                let reads = self.good(Way::Read);
                let does = if reads.len() == 1 { "serves" } else { "serve" };
                format!(
                    "no way in takes writes, {} of {all} {does} reads ({}): {why}{besides}",
                    reads.len(),
                    names(&reads),
                )
            }
            Serves::Partly if good.is_empty() => {
                format!("none of {all} ways in serves wholly: {why}{besides}")
            }
            Serves::Partly if self.by_themselves(&bad) => {
                let others = causes.iter().filter(|cause| !bad.iter().any(|one| of(cause, one)));
                let more = match others.count() {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                let own = causes.iter().filter(|cause| bad.iter().any(|one| of(cause, one)));
                let own: Vec<_> = own.map(String::as_str).collect();
                format!("{serve} ({}); {}{more}{besides}", names(&good), own.join("; "))
            }
            Serves::Partly => {
                format!("{serve} ({}), {} not: {why}{besides}", names(&good), names(&bad))
            }
        }
    }

    /// True where what these ways in do not serve comes of something that is said of their servers.
    fn by_themselves(&self, bad: &BTreeSet<&HostName>) -> bool {
        let ways = self.proofs.iter().filter(|proof| proof.way.is_some() && proof.fails());
        let mut said = ways.map(|proof| (proof.comes_of.as_deref(), proof.host.as_ref()));
        !bad.is_empty()
            && said
                .all(|(cause, host)| cause.zip(host).is_some_and(|(cause, host)| of(cause, host)))
    }
}

/// Whether a cause is said of a server.
fn of(cause: &str, host: &HostName) -> bool {
    let said = cause.split([' ', ',']).take_while(|word| !WORDS.contains(word));
    said.into_iter().any(|word| word == host.as_str())
}

/// Whether one cause says another, too.
fn says(known: &str, cause: &str) -> bool {
    known.contains(cause)
        || SAID.iter().any(|(one, many)| {
            let host = cause.strip_suffix(one);
            let words = || known.split([' ', ',']);
            known.ends_with(many) && host.is_some_and(|host| words().any(|word| word == host))
        })
}

/// Where what is said of servers begins.
const WORDS: [&str; 6] = ["does", "do", "cannot", "is", "are", "of"];

fn names(hosts: &BTreeSet<&HostName>) -> String {
    hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ")
}

/// What is said of several servers is said once.
fn gathered(causes: Vec<String>) -> Vec<String> {
    let mut gathered: Vec<(Vec<String>, &str)> = Vec::new();
    let mut all = Vec::new();
    for cause in causes {
        let one = |(one, _): &(&'static str, &'static str)| {
            let host = cause.strip_suffix(one)?;
            (!host.contains(' ')).then(|| (host.to_owned(), *one))
        };
        match SAID.iter().find_map(one) {
            None => all.push(cause),
            Some((host, said)) => {
                if let Some((hosts, _)) = gathered.iter_mut().find(|(_, other)| *other == said) {
                    hosts.push(host);
                } else {
                    gathered.push((vec![host], said));
                    // Its place among the others.
                    all.push(said.to_owned());
                }
            }
        }
    }
    for cause in &mut all {
        if let Some((hosts, said)) = gathered.iter().find(|(_, said)| said == cause) {
            let many = SAID.iter().find(|(one, _)| one == said).map_or(*said, |(_, many)| *many);
            *cause = format!("{}{}", hosts.join(", "), if hosts.len() == 1 { said } else { many });
        }
    }
    all
}

/// What is said of one server, and of several.
const SAID: [(&str, &str); 3] = [
    (" does not answer", " do not answer"),
    (" cannot be looked at", " cannot be looked at"),
    (DRAINED, " are set to drain in the Swarm"),
];
/// Of a node on which nothing of ours is to run, by somebody's will.
const DRAINED: &str = " is set to drain in the Swarm";
/// The proof that there is one primary.
const LEADER: &str = "one leader";

fn no_primary(cause: &str) -> bool {
    cause.starts_with("no primary")
}

//! All facts of a server in one round trip: the script's text, and the parser of its answer.
//!
//! What cannot be learned is never taken for absent. A fact that is an `Observation` becomes
//! unknown alone; for the others (files, packages, units, …) there is no unknown, so their failure
//! fails the probe of the server.

mod parse_etcd;
mod parse_host;
mod parse_net;
mod parse_patroni;
mod parse_sql;
pub(crate) mod quick;
mod script;
mod sections;
mod sql;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reconcile_core::{
    model::{HostFacts, HostName},
    ports::EffectError,
    probe::ProbeRequest,
};

pub use script::{Marks, marking_script, probe_script};
pub(crate) use script::{PSQL_SECONDS, psql_command};
pub(crate) use sections::Sections;
pub(crate) use sql::{FIRST, first as psql_text};

use crate::{
    Ssh,
    apply::judge,
    fault::{Fault, one_line, tail},
    resident::Remote,
    ssh::Line,
};

/// A probe takes a tenth of a second, two where a service does not answer, and ten times that on a
/// server under full load.
const DEADLINE: Duration = Duration::from_secs(20);

/// Our clock before the script was sent and after its answer came, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    /// Before.
    pub sent: i64,
    /// After.
    pub received: i64,
}

/// The facts in the script's answer.
///
/// # Errors
/// In plain words, where the answer is cut off or lacks what cannot be unknown.
pub fn parse_probe(
    request: &ProbeRequest,
    stdout: &[u8],
    clock: RoundTrip,
) -> Result<HostFacts, String> {
    facts(request, &Sections::parse(stdout)?, clock)
}

fn facts(
    request: &ProbeRequest,
    sections: &Sections,
    clock: RoundTrip,
) -> Result<HostFacts, String> {
    let listeners = parse_net::listeners(sections)?;
    Ok(HostFacts {
        os: parse_host::os(sections)?,
        boot_id: sections.line("boot")?.to_owned(),
        clock_offset_ms: parse_host::clock_offset(sections, clock)?,
        packages: parse_host::packages(request, sections)?,
        files: parse_host::files(request, sections)?,
        units: parse_host::units(request, sections)?,
        data_dirs: parse_host::data_dirs(request, sections)?,
        disks: parse_host::disks(sections)?,
        docker: parse_net::docker(request, sections),
        manifest: parse_host::manifest(sections)?,
        pooler_held: request.pooler_of.is_some() && sections.bytes("guard").is_some(),
        pause: parse_host::pause(request, sections),
        access: parse_host::access(sections),
        etcd: parse_etcd::etcd(request, sections, &listeners),
        patroni: parse_patroni::patroni(request, sections, &listeners),
        sql: parse_sql::sql(request, sections),
        listeners,
    })
}

impl Ssh {
    /// Learns all facts of a server with one command.
    ///
    /// # Errors
    /// Where the server cannot be reached or asked, or its answer lacks what cannot be unknown.
    pub async fn probe(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        let attempt = || format!("observe {host}");
        // Connected first, so that the clocks are compared over the script's time alone.
        let connected = self.connection(host, Line::Control).await;
        let connection = connected.map_err(|fault| fault.at(host, attempt()))?;
        let effects = self.effects();
        self.count_probe(host);
        // Two probes at a time do not share them.
        if let Ok(mut residents) = connection.residents.try_lock() {
            let sent = now();
            let sudo = self.target(host).is_ok_and(crate::HostTarget::needs_sudo);
            let way = Remote { connection: &connection, sudo };
            let answer = residents.ask(&way, request, effects, DEADLINE).await;
            let sent = residents.asked.map_or(sent, millis);
            let clock = RoundTrip { sent, received: now() };
            if let Some(sections) = answer.map_err(|fault| fault.at(host, attempt()))? {
                return facts(request, &sections, clock).map_err(|cause| {
                    residents.forget();
                    Fault::later(one_line(&cause)).at(host, attempt())
                });
            }
        }
        let sent = now();
        let output = self.run_inner(host, &probe_script(request), DEADLINE).await;
        let clock = RoundTrip { sent, received: now() };
        let output = output.map_err(|fault| fault.at(host, attempt()))?;
        judge(&output, &[]).map_err(|fault| fault.at(host, attempt()))?;
        let understood = Sections::parse(&output.stdout).and_then(|sections| {
            let facts = facts(request, &sections, clock)?;
            if let Ok(mut residents) = connection.residents.try_lock() {
                residents.learn(request, &sections, effects);
            }
            Ok(facts)
        });
        understood.map_err(|cause| {
            let said = tail(&output.stderr, crate::limits::STDERR_LINES);
            Fault::later(one_line(&cause)).with_stderr(said).at(host, attempt())
        })
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    millis(SystemTime::now())
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

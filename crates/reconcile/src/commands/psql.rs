//! `reconcile psql`: a session on the primary, as the server's user postgres over its local socket.
//! No password takes part in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use reconcile_core::{
    desired::patroni::SOCKET_DIR,
    model::{HostName, Observation, Observed},
    plan::probe_request,
    ports::Fleet as _,
    primary::primary,
};
use reconcile_engine::observe::HOST_DEADLINE;
use reconcile_hosts::{Input, Program, Said, Session, Terminal};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{Prepared, converge::prepare};
use crate::{
    cli::{Cli, PsqlArgs},
    failure::{Failure, Outcome},
    output,
    pipes::{Out, standard_input},
    source,
    terminal::{self, Raw},
};

/// Once one says that it is the primary, the others have this long to say that they are, too.
const OBJECTION: Duration = Duration::from_secs(1);
/// Between asking psql to give up its statement and telling it to end.
const GRACE: Duration = Duration::from_millis(500);
/// What a shell makes of a program whose reader went away.
const BROKEN_PIPE: u8 = 141;
/// And of one that was told to end.
const TERMINATED: u8 = 143;
const INTERRUPTED: u8 = 130;

pub(super) async fn run(cli: &Cli, arguments: &PsqlArgs) -> Result<Outcome, Failure> {
    let source = source::read_in_force_and_say(cli)?;
    let [spec] = source.clusters.as_slice() else {
        return Err(Failure::usage("psql is of one cluster").hint("choose it with --cluster"));
    };
    let prepared = prepare(spec, &source.base)?;
    let observed = ask_all(&prepared).await;
    let host = primary(&prepared.desired, &observed).map_err(|error| {
        Failure::new(error.to_string()).hint("`reconcile status` says how the servers are")
    })?;
    let program = program(&prepared, arguments);
    let attempt = format!("run psql on {host}");
    let terminal =
        terminal::both_ways().then(|| Terminal { kind: terminal::kind(), size: terminal::size() });
    let failed = |error: &dyn std::error::Error| Failure::new(error.to_string());
    let session = prepared
        .fleet
        .session(&host, &attempt, &program, terminal.as_ref())
        .await
        .map_err(|error| failed(&error))?;
    if terminal.is_some() {
        tracing::info!(%host, "psql runs on the primary");
        return typed(session).await;
    }
    piped(&prepared, &host, session).await
}

/// Asks every server. Who is silent does not hold up who waits, where the primary is known.
async fn ask_all(prepared: &Prepared) -> Observed {
    let desired = &prepared.desired;
    let silent = || Observation::unknown("it has not answered yet");
    let hosts: BTreeMap<_, _> =
        desired.patroni.members.keys().map(|host| (host.clone(), silent())).collect();
    let swarm = Observation::unknown("it was not asked");
    let mut observed = Observed { hosts, swarm, at: prepared.fleet.now(), barred: BTreeSet::new() };
    let mut answers: FuturesUnordered<_> = desired
        .patroni
        .members
        .keys()
        .map(|host| async move {
            let request = probe_request(desired, host);
            let answer = timeout(HOST_DEADLINE, prepared.fleet.observe_host(host, &request)).await;
            let facts = match answer {
                Ok(Ok(facts)) => Observation::Known(facts),
                Ok(Err(error)) => Observation::unknown(error.to_string()),
                Err(_) => {
                    Observation::unknown(format!("no answer within {} s", HOST_DEADLINE.as_secs()))
                }
            };
            (host, facts)
        })
        .collect();
    let mut until = Instant::now() + 2 * HOST_DEADLINE;
    while let Ok(Some((host, facts))) = timeout_at(until, answers.next()).await {
        observed.hosts.insert(host.clone(), facts);
        if primary(desired, &observed).is_ok() {
            until = until.min(Instant::now() + OBJECTION);
        }
    }
    observed
}

fn program(prepared: &Prepared, arguments: &PsqlArgs) -> Program {
    let port = prepared.spec.postgresql.port.to_string();
    let environment = [
        ("PGHOST", SOCKET_DIR),
        ("PGPORT", &port),
        ("PGDATABASE", "postgres"),
        ("PGCLIENTENCODING", "UTF8"),
        // There on every Debian; the server's own may not know what our terminal shows.
        ("LC_ALL", "C.UTF-8"),
    ];
    Program {
        user: "postgres".to_owned(),
        words: std::iter::once("psql".to_owned()).chain(arguments.arguments.clone()).collect(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
    }
}

fn status(status: u32) -> Outcome {
    // Its own are below 4, and a shell's below 256.
    Outcome::Status(u8::try_from(status).unwrap_or(u8::MAX))
}

fn hears(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::from_error("listen for signals", &error))
}

/// Sends standard input there, apart from what comes back: either side may be slow to take it.
fn feed(input: Input) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut from = standard_input();
        while let Some(bytes) = from.recv().await {
            if !input.send(bytes).await {
                return;
            }
        }
        input.end().await;
    })
}

/// In a terminal: every key goes there, and what comes is shown as it is.
async fn typed(mut session: Session) -> Result<Outcome, Failure> {
    let input = session.input();
    let mut resized = hears(SignalKind::window_change())?;
    let mut told_to_end = hears(SignalKind::terminate())?;
    let mut hung_up = hears(SignalKind::hangup())?;
    let raw = Raw::begin().map_err(|error| Failure::from_error("use the terminal", &error))?;
    // It may have changed while we connected.
    input.resize(terminal::size()).await;
    let out = Out::standard_output();
    let feeding = feed(input.clone());
    let ended = loop {
        tokio::select! {
            said = async { out.room().await; session.next().await } => match said {
                Ok(Said::Output(bytes) | Said::Error(bytes)) => {
                    if !out.write(bytes).await {
                        break Ok(Outcome::Status(BROKEN_PIPE));
                    }
                }
                Ok(Said::Ended(code)) => break Ok(status(code)),
                Err(error) => break Err(Failure::new(error.to_string())),
            },
            _ = resized.recv() => input.resize(terminal::size()).await,
            _ = told_to_end.recv() => break Ok(Outcome::Status(TERMINATED)),
            _ = hung_up.recv() => break Ok(Outcome::Status(TERMINATED)),
        }
    };
    feeding.abort();
    drop(session);
    let _terminal_may_be_gone = out.finish().await;
    drop(raw);
    ended
}

/// In a script: standard input goes there, both outputs come back apart.
async fn piped(
    prepared: &Prepared,
    host: &HostName,
    mut session: Session,
) -> Result<Outcome, Failure> {
    let input = session.input();
    let (out, err) = (Out::standard_output(), Out::standard_error());
    let mut interrupted = hears(SignalKind::interrupt())?;
    let mut told_to_end = hears(SignalKind::terminate())?;
    let feeding = feed(input);
    let mut interrupts = 0;
    let ended = loop {
        tokio::select! {
            // A reader that is slow keeps psql waiting, and no signal.
            said = async { out.room().await; err.room().await; session.next().await } => {
                let kept = match said {
                    Ok(Said::Output(bytes)) => out.write(bytes).await,
                    Ok(Said::Error(bytes)) => err.write(bytes).await,
                    Ok(Said::Ended(code)) => break Ok(status(code)),
                    Err(error) => break Err(Failure::new(error.to_string())),
                };
                if !kept {
                    end(prepared, host, &session).await;
                    break Ok(Outcome::Status(BROKEN_PIPE));
                }
            }
            _ = interrupted.recv() => {
                interrupts += 1;
                if interrupts > 1 {
                    end(prepared, host, &session).await;
                    break Ok(Outcome::Status(INTERRUPTED));
                }
                tell(prepared, host, &session, "INT").await;
            }
            _ = told_to_end.recv() => {
                end(prepared, host, &session).await;
                break Ok(Outcome::Status(TERMINATED));
            }
        }
    };
    feeding.abort();
    drop(session);
    if let Ok(Outcome::Status(BROKEN_PIPE | INTERRUPTED | TERMINATED)) = ended {
        return ended;
    }
    for way in [out, err] {
        tokio::select! {
            written = way.finish() => {
                if let Err(error) = written
                    && error.kind() != std::io::ErrorKind::BrokenPipe
                {
                    return Err(Failure::from_error("write what psql said", &error));
                }
            }
            _ = interrupted.recv() => return Ok(Outcome::Status(INTERRUPTED)),
            _ = told_to_end.recv() => return Ok(Outcome::Status(TERMINATED)),
        }
    }
    ended
}

/// Has psql give up its statement, and end.
async fn end(prepared: &Prepared, host: &HostName, session: &Session) {
    tell(prepared, host, session, "INT").await;
    tokio::time::sleep(GRACE).await;
    tell(prepared, host, session, "TERM").await;
}

async fn tell(prepared: &Prepared, host: &HostName, session: &Session, signal: &str) {
    let Some(process) = session.process() else { return };
    if let Err(error) = prepared.fleet.signal(host, process, signal).await {
        output::note(&format!("{error}; psql may still run there"));
    }
}

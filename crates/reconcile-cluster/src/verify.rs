//! The service proof: a write through every way in, and a read of it through the same.

use std::{future::Future, time::Duration};

use futures::future::{join, join_all};
use reconcile_core::verify::{Front, Proof, VerifyReport, VerifyRequest, Way};
use reconcile_dial::Dialer;
use tokio::time::{Instant, sleep};

use crate::session::{Failure, Session};

/// How long fresh services get until their ports serve; only where something was just changed.
const SETTLE: Duration = Duration::from_secs(8);
/// How long a committed row may take to the standbys.
const REPLICATE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);

/// Proves that the cluster serves: through every front a write, and where a read port is published
/// a read. Fronts are tried side by side, and the proofs come in the order of the request.
///
/// With `commit` the row stays and must show up at the read port; without it the write is rolled
/// back and each proof gets one try.
pub async fn verify(dialer: &dyn Dialer, request: &VerifyRequest) -> VerifyReport {
    let proofs = join_all(request.fronts.iter().map(|front| prove(dialer, request, front))).await;
    VerifyReport { proofs: proofs.into_iter().flatten().collect() }
}

/// With `commit` the write comes first: the read is to find its row.
async fn prove(dialer: &dyn Dialer, request: &VerifyRequest, front: &Front) -> Vec<Proof> {
    let deed = if request.commit { "commit" } else { "write" };
    let settle = if request.commit { SETTLE } else { Duration::ZERO };
    let write = proof(deed, Way::Write, front, persist(settle, || write(dialer, request, front)));
    let Some(port) = front.read_port else { return vec![write.await] };
    let read = async |written| {
        proof("read", Way::Read, front, read(dialer, request, front, port, written)).await
    };
    if request.commit {
        let write = write.await;
        let read = read(write.holds).await;
        return vec![write, read];
    }
    // Where nothing answers each waits to its end.
    let (write, read) = join(write, read(false)).await;
    vec![write, read]
}

async fn proof(
    deed: &str,
    way: Way,
    front: &Front,
    work: impl Future<Output = Result<String, Failure>>,
) -> Proof {
    let start = Instant::now();
    let seen = work.await;
    Proof {
        what: format!("{deed} through {} on {}", front.through, front.host),
        host: Some(front.host.clone()),
        way: Some(way),
        holds: seen.is_ok(),
        millis: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        detail: seen.unwrap_or_else(|failure| failure.cause),
        ..Proof::default()
    }
}

/// Tries until it works, cannot work, or `limit` is over.
async fn persist<F>(limit: Duration, attempt: impl Fn() -> F) -> Result<String, Failure>
where
    F: Future<Output = Result<String, Failure>>,
{
    let start = Instant::now();
    let mut tries = 1;
    loop {
        match attempt().await {
            Ok(seen) if tries == 1 => return Ok(seen),
            Ok(seen) => return Ok(format!("{seen}, at try {tries}")),
            Err(failure) if failure.final_word || start.elapsed() + PAUSE >= limit => {
                let cause = match tries {
                    1 => failure.cause,
                    _ => format!("{} (last of {tries} tries)", failure.cause),
                };
                return Err(Failure { cause, ..failure });
            }
            Err(_) => sleep(PAUSE).await,
        }
        tries += 1;
    }
}

async fn write(
    dialer: &dyn Dialer,
    request: &VerifyRequest,
    front: &Front,
) -> Result<String, Failure> {
    let (node, token) = (literal(front.host.as_str())?, literal(&request.token)?);
    let end = if request.commit { "COMMIT" } else { "ROLLBACK" };
    let session = Session::open(dialer, request, front, front.write_port).await?;
    // One message, so one round trip; an error anywhere in it keeps the rest from running.
    let row = session
        .run(&format!(
            "BEGIN; \
             INSERT INTO reconcile.probe (node, token, at) VALUES ({node}, {token}, now()) \
             ON CONFLICT (node) DO UPDATE SET token = excluded.token, at = excluded.at; \
             SELECT {SERVER}; \
             {end}"
        ))
        .await?;
    let done = if request.commit { "committed" } else { "written and rolled back" };
    Ok(format!("{done} on {}", row.get(0).unwrap_or("an unknown server")))
}

async fn read(
    dialer: &dyn Dialer,
    request: &VerifyRequest,
    front: &Front,
    port: u16,
    written: bool,
) -> Result<String, Failure> {
    if !request.commit {
        return read_once(dialer, request, front, port, false).await;
    }
    let limit = if written { REPLICATE } else { SETTLE };
    persist(limit, || read_once(dialer, request, front, port, written)).await
}

async fn read_once(
    dialer: &dyn Dialer,
    request: &VerifyRequest,
    front: &Front,
    port: u16,
    expect: bool,
) -> Result<String, Failure> {
    let node = literal(front.host.as_str())?;
    let session = Session::open(dialer, request, front, port).await?;
    let row = session
        .run(&format!(
            "SELECT pg_is_in_recovery(), {SERVER}, \
             (SELECT token FROM reconcile.probe WHERE node = {node})"
        ))
        .await
        // A standby may not have replayed the table's creation yet.
        .map_err(|failure| Failure { final_word: failure.final_word && !expect, ..failure })?;
    let role = if row.get(0) == Some("t") { "standby" } else { "primary" };
    let server = row.get(1).unwrap_or("an unknown server");
    if expect && row.get(2) != Some(request.token.as_str()) {
        let cause = format!("{role} {server} does not show the committed row yet");
        return Err(Failure { cause, final_word: false });
    }
    let seen = if expect { ", the committed row is there" } else { "" };
    Ok(format!("read from {role} {server}{seen}"))
}

/// The address that served, or `a local socket` where the pooler does not come by TCP.
const SERVER: &str = "coalesce(host(inet_server_addr()), 'a local socket')";

/// Text as an SQL literal. The simple protocol has no parameters, so only plain words are taken.
fn literal(text: &str) -> Result<String, Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(format!("'{text}'"));
    }
    Err(Failure { cause: format!("{text:?} is no word for the probe table"), final_word: true })
}

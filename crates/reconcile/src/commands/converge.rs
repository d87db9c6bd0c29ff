//! `reconcile -f FILE`: converge once, prove service, exit.

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::{join, join_all};
use reconcile_core::{
    desired::{Desired, Secrets, desired},
    model::{Observed, SecretText},
    plan::{counted, verify_request},
    poolers::stopped,
    ports::Fleet as _,
    verify::{Front, Proof, VerifyReport, VerifyRequest, concluded, observed_proofs},
};
use reconcile_engine::{
    Converged, Event, Journal, Leased, Listener, PassError, converge, lease::Wait, look,
    resume::await_end,
};
use reconcile_spec::{ValidSpec, secrets::RECONCILE_PROBE};
use tokio_util::sync::CancellationToken;

use crate::{
    base::Base,
    cli::Cli,
    failure::{Failure, Outcome},
    fleet::{Part, RealFleet, Silent},
    lease::{self, Lease},
    output,
    progress::Progress,
    secrets, source,
    state::{self, Lock},
};

/// A cluster with everything that is needed to work on it.
pub(crate) struct Prepared {
    pub(crate) spec: ValidSpec,
    pub(crate) secrets: Secrets,
    pub(crate) desired: Desired,
    pub(crate) fleet: RealFleet,
}

/// Reads secrets, makes the desired state and the way to the servers.
pub(crate) fn prepare(spec: &ValidSpec, base: &Base) -> Result<Prepared, Failure> {
    let prepared = prepare_again(spec, base, None)?;
    key_files(spec, base)?;
    Ok(prepared)
}

/// The same after a change: the way to the servers stays where it leads to the same ones.
pub(crate) fn prepare_again(
    spec: &ValidSpec,
    base: &Base,
    before: Option<&RealFleet>,
) -> Result<Prepared, Failure> {
    let secrets = secrets::read(spec, base)?;
    let desired = desired(spec, &secrets).map_err(|missing| {
        let mut failure = Failure::new(format!("secrets of cluster {} are missing", spec.name));
        for secret in missing {
            failure = failure.caused_by(secret);
        }
        failure
    })?;
    let fleet = RealFleet::new(spec, &desired, &secrets, base, before);
    Ok(Prepared { spec: spec.clone(), secrets, desired, fleet })
}

/// Keys that are not there open no server: where that is so of all, it is said before any is asked. With an
/// agent the file may be the name of a key in there, and one server that can be asked is worth asking.
fn key_files(spec: &ValidSpec, base: &Base) -> Result<(), Failure> {
    let mut missing = BTreeSet::new();
    for host in &spec.hosts {
        let path = host.ssh.identity_file.as_ref().map(|path| base.resolve(path));
        let Some(path) = path.filter(|_| !host.ssh.agent) else { return Ok(()) };
        if !fs::metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return Ok(());
        }
        missing.insert(path);
    }
    let failure = Failure::new(format!("no server of cluster {} can be logged in to", spec.name));
    let told = missing.iter().map(|path| format!("key file {} does not exist", path.display()));
    Err(told.fold(failure, Failure::caused_by).hint(
        "ssh.identityFile names the key; a path that is not absolute starts at the file's folder",
    ))
}

/// An unsafe plan is a mistake of ours; say so.
pub(super) fn unsafe_plan(error: &PassError) -> Failure {
    Failure::from_error("plan", error).hint(
        "this is a mistake in reconcile, nothing was changed; please report it with `plan -o json`",
    )
}

/// A switchover that was killed in the middle leaves poolers paused: resume them before anything.
/// One that cannot be resumed now is told, keeps nothing else from being done, and is tried again
/// in every pass.
pub(super) async fn resume_what_was_left(
    prepared: &Prepared,
    journal: &Journal<'_>,
    lease: &Lease,
) {
    // A switchover from the same folder may have been cut off while we waited for the lease.
    if let Err(error) = journal.catch_up() {
        output::note(&format!("{error}; what was left open meanwhile is seen on the servers only"));
    }
    let Some(left) = journal.owes_resume() else { return };
    let candidate = &left.candidate;
    let in_place = left.begun.as_ref().is_some_and(|(leader, _)| leader.as_str() == candidate);
    let what = if in_place { "a restart in place of" } else { "a switchover to" };
    output::note(&format!("{what} {candidate} was cut off; resuming the poolers"));
    let age = left.begun.as_ref().map_or(0, |(_, begun)| state::now().saturating_sub(*begun));
    await_end(&prepared.fleet, &prepared.desired, &left, Duration::from_secs(age)).await;
    if !lease.held.holds() {
        // Another operator may have paused them for a switchover of its own by now.
        return;
    }
    let failed =
        reconcile_engine::resume::resume_owed(&prepared.fleet, &prepared.desired, journal).await;
    for error in failed {
        output::note(&format!(
            "{error}; its clients wait until it is, RESUME on its admin console helps"
        ));
    }
}

/// Proves service end to end.
pub(super) async fn prove(prepared: &Prepared, observed: &Observed, commit: bool) -> VerifyReport {
    let password =
        prepared.secrets.get(RECONCILE_PROBE).cloned().unwrap_or_else(|| SecretText::new(""));
    let token = format!(
        "{:x}",
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos())
    );
    let request = verify_request(&prepared.spec, observed, password, commit, token);
    let (mut ways, signs) = if commit {
        // What was just changed has come up when its ways in serve.
        let ways = prepared.fleet.verify(&request).await.proofs;
        (ways, signs(prepared, observed).await)
    } else {
        let (ways, signs) = join(prepared.fleet.verify(&request), signs(prepared, observed)).await;
        (ways.proofs, signs)
    };
    if signs.iter().any(|sign| sign.silent.iter().any(|part| *part != Part::Way.service())) {
        again(&prepared.fleet, &request, &mut ways).await;
    }
    let mut proofs = observed_proofs(&prepared.desired, observed);
    proofs.extend(signs.into_iter().chain(ways));
    concluded(&prepared.desired, observed, &request.unseen, proofs)
}

/// Tries ways in that failed once more, while something behind them is silent: a session that was handed on
/// to that one says nothing of the way in. A way in that is silent itself is not waited for again.
async fn again(fleet: &RealFleet, request: &VerifyRequest, ways: &mut [Proof]) {
    for _ in 0..RETRIES {
        let failed = |front: &&Front| {
            ways.iter().any(|way| way.host.as_ref() == Some(&front.host) && way.fails())
        };
        let fronts: Vec<_> = request.fronts.iter().filter(failed).cloned().collect();
        if fronts.is_empty() {
            return;
        }
        let request = VerifyRequest { fronts, commit: false, ..request.clone() };
        for proof in fleet.verify(&request).await.proofs.into_iter().filter(|proof| proof.holds) {
            let about = proof.about();
            if let Some(way) = ways.iter_mut().find(|way| way.fails() && way.about() == about) {
                let detail = format!("{}; a session before failed: {}", proof.detail, way.detail);
                *way = Proof { detail, ..proof };
            }
        }
    }
}

/// How often a way in is tried again while something is silent: it hands sessions on in turn.
const RETRIES: usize = 2;

/// The ways in whose pooler runs: only of those is a sign of life asked.
fn fronts(prepared: &Prepared, observed: &Observed) -> Vec<Front> {
    let request =
        verify_request(&prepared.spec, observed, SecretText::new(""), false, String::new());
    let fronts = request.fronts.into_iter();
    fronts.filter(|front| !stopped(&prepared.desired, observed, &front.host)).collect()
}

/// Whether each node's way in, poolers and router give a sign of life. A way in passes by a dead router or pooler
/// of its own node, whose clients it had still wait in it.
/// What is silent once is asked again: a connection to a server may just be made anew.
pub(super) async fn signs(prepared: &Prepared, observed: &Observed) -> Vec<Proof> {
    let (fronts, spec) = (fronts(prepared, observed), &prepared.spec);
    let mut nodes = join_all(fronts.iter().map(async |front| {
        let began = Instant::now();
        let mut silent = prepared.fleet.silent(front, spec).await;
        if !silent.is_empty() {
            silent = prepared.fleet.silent(front, spec).await;
        }
        (front, began.elapsed(), silent)
    }))
    .await;
    // A way in hands on to the poolers of all nodes: which of them does not answer is known then.
    let poolers = |silent: &[Silent]| silent.iter().any(|silent| silent.part.pools());
    if nodes.iter().any(|(_, _, silent)| poolers(silent)) {
        for (_, _, silent) in &mut nodes {
            silent.retain(|silent| silent.part != Part::Way);
        }
    }
    let proof = |(front, took, silent): (&Front, Duration, Vec<Silent>)| Proof {
        what: format!("signs of life on {}", front.host),
        host: Some(front.host.clone()),
        holds: silent.is_empty(),
        silent: silent.iter().map(|silent| silent.part.service()).collect(),
        millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        detail: if silent.is_empty() {
            "its way in, poolers and router answer".to_owned()
        } else {
            let words: Vec<_> =
                silent.iter().map(|silent| format!("{}: {}", silent.name, silent.why)).collect();
            words.join("; ")
        },
        ..Proof::default()
    };
    nodes.into_iter().map(proof).collect()
}

/// Whether everything that clients come through answered when it was asked once.
pub(super) async fn answers(prepared: &Prepared, observed: &Observed) -> bool {
    let (fronts, spec) = (fronts(prepared, observed), &prepared.spec);
    let all = join_all(fronts.iter().map(|front| prepared.fleet.silent(front, spec))).await;
    all.iter().all(Vec::is_empty)
}

/// Converges under the lease; where nothing is to be done, without. None: somebody else holds it.
async fn under_lease(
    prepared: &Prepared,
    journal: &Journal<'_>,
    lock: &Lock,
    stop: &CancellationToken,
) -> Result<Option<Converged>, Failure> {
    if journal.owes_resume().is_none() {
        journal.hear(&Event::PassStarted(1));
        let last = look(&prepared.fleet, &prepared.desired, journal)
            .await
            .map_err(|error| unsafe_plan(&error))?;
        if last.plan.steps.is_empty() {
            let nothing = Converged {
                last,
                errors: Vec::new(),
                steps_done: 0,
                wrote: false,
                passes: 1,
                stopped: false,
            };
            return Ok(Some(nothing));
        }
    }
    let lease = match Lease::win(prepared, Some(lock), Wait::For(lease::PATIENCE), stop).await {
        Ok(lease) => lease,
        Err(error) => {
            output::note(&format!("nothing was done: {}", lease::told(&error)));
            return Ok(None);
        }
    };
    resume_what_was_left(prepared, journal, &lease).await;
    let fleet = Leased { fleet: &prepared.fleet, held: Arc::clone(&lease.held) };
    let converged = converge(&fleet, &prepared.desired, journal, &lease.until(stop)).await;
    let lost = !lease.held.holds();
    lease.release().await;
    if lost {
        output::note("the lease was lost on the way; the next run goes on");
    }
    converged.map(Some).map_err(|error| unsafe_plan(&error))
}

pub(super) async fn run(cli: &Cli) -> Result<Outcome, Failure> {
    let origin = source::origin(cli)?;
    let texts = origin.texts()?;
    let source = source::parse_new(cli, &texts)?;
    if let Some(revision) = &source.revision {
        output::note(&revision.to_string());
    }
    let stop = super::stop_on_signal();
    let accepts_only = cli.git.allow_rewind && source.revision.is_some();
    let mut worst = Outcome::Done;
    for spec in &source.clusters {
        let prepared = prepare(spec, &source.base)?;
        let folder = state::folder(cli, spec.name.as_str())?;
        // What somebody else is to carry out is accepted only where it was asked for by its name.
        let Some(lock) = (if accepts_only {
            state::lock_unless_watched(&folder)?
        } else {
            Some(state::lock(&folder)?)
        }) else {
            origin.accept(&texts)?;
            output::print(&format!(
                "accepted for cluster {}; the running --watch carries it out\n",
                spec.name
            ))?;
            continue;
        };
        origin.accept(&texts)?;
        let outcome = run_one(cli, &prepared, (&folder, &lock), &stop).await?;
        worst = match (worst, outcome) {
            (Outcome::Failed, _) | (_, Outcome::Failed) => Outcome::Failed,
            (Outcome::Held, _) | (_, Outcome::Held) => Outcome::Held,
            _ => Outcome::Done,
        };
    }
    Ok(worst)
}

async fn run_one(
    cli: &Cli,
    prepared: &Prepared,
    (folder, lock): (&Path, &Lock),
    stop: &CancellationToken,
) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let progress = Progress::new(cli.plain);
    let journal = Journal::open(folder, &progress)
        .map_err(|error| Failure::from_error("keep the journal", &error))?;
    let Some(converged) = under_lease(prepared, &journal, lock, stop).await? else {
        return Ok(Outcome::Held);
    };
    let seconds = started.elapsed().as_secs_f64();
    let name = &prepared.desired.cluster;
    if converged.stopped {
        output::note(&format!("stopped; the next run goes on ({seconds:.1} s)"));
        return Ok(Outcome::Failed);
    }
    if !converged.is_converged() {
        output::print(&reconcile_core::plan::text(&converged.last.plan, false))?;
    }
    if !converged.errors.is_empty() {
        output::note(&format!(
            "{} of the last pass's steps failed; what does not depend on them was done ({seconds:.1} s)",
            converged.errors.len()
        ));
        return Ok(Outcome::Failed);
    }
    if !converged.last.plan.steps.is_empty() {
        output::note(&format!("cluster {name}: not converged after {} passes", converged.passes));
        return Ok(Outcome::Failed);
    }
    journal.hear(&Event::Verifying);
    // A run that changed nothing leaves no trace: its proof is rolled back.
    let report = prove(prepared, &converged.last.observed, converged.wrote).await;
    journal.hear(&Event::Verified(&report));
    let seconds = started.elapsed().as_secs_f64();
    if !converged.last.plan.held.is_empty() {
        // What could not be tried is no failure.
        let served = if report.holds() {
            format!("{} of service hold", counted(report.proofs.len(), "proof"))
        } else {
            report.told()
        };
        output::note(&format!("cluster {name}: something is held; {served} ({seconds:.1} s)"));
        return Ok(Outcome::Held);
    }
    if !report.holds() {
        let told = report.told();
        output::note(&format!("cluster {name} is as desired, but {told} ({seconds:.1} s)"));
        return Ok(Outcome::Failed);
    }
    output::print(&format!(
        "cluster {name} is as desired and serves: {} done, {} hold ({seconds:.1} s)\n",
        counted(converged.steps_done, "step"),
        counted(report.proofs.len(), "proof")
    ))?;
    Ok(Outcome::Done)
}

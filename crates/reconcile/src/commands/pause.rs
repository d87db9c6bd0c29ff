//! `reconcile pause` and `reconcile resume`: every operator of the cluster changes nothing until then.

use futures::future::join_all;
use reconcile_core::{
    model::{HostName, PauseNote},
    ports::EffectError,
    windows::written,
};

use super::converge::{Prepared, prepare};
use crate::{
    cli::{Cli, PauseArgs},
    failure::{Failure, Outcome},
    lease, output, source, state,
};

/// Tells the servers that nothing is to be changed for a while.
pub(super) async fn pause(cli: &Cli, arguments: &PauseArgs) -> Result<Outcome, Failure> {
    let until = state::now().saturating_add(arguments.length);
    let reason = arguments.reason.clone().unwrap_or_default();
    if reason.chars().any(char::is_control) {
        return Err(Failure::usage("a reason is one line of text"));
    }
    let prepared = cluster(cli)?;
    let number = last(&prepared).await?.map_or(0, |note| note.number) + 1;
    let note = PauseNote { number, until, by: lease::who(), reason };
    tell(&prepared, &note, "paused").await?;
    output::print(&format!(
        "{} is paused until {}; `reconcile resume` ends it sooner\n",
        prepared.desired.cluster,
        written(until)
    ))?;
    Ok(Outcome::Done)
}

/// Ends a pause.
pub(super) async fn resume(cli: &Cli) -> Result<Outcome, Failure> {
    let prepared = cluster(cli)?;
    let cluster = &prepared.desired.cluster;
    let Some(last) = last(&prepared).await?.filter(|note| note.lasts(state::now())) else {
        output::print(&format!("{cluster} is not paused\n"))?;
        return Ok(Outcome::Done);
    };
    let note =
        PauseNote { number: last.number + 1, until: 0, by: lease::who(), reason: String::new() };
    tell(&prepared, &note, "resumed").await?;
    output::print(&format!("{cluster} goes on; it was paused {last}\n"))?;
    Ok(Outcome::Done)
}

fn cluster(cli: &Cli) -> Result<Prepared, Failure> {
    let source = source::read_in_force_and_say(cli)?;
    let [spec] = source.clusters.as_slice() else {
        return Err(Failure::usage("a pause is of one cluster").hint("choose it with --cluster"));
    };
    prepare(spec, &source.base)
}

/// The note that counts; an error where fewer than a majority of the servers can be asked.
async fn last(prepared: &Prepared) -> Result<Option<PauseNote>, Failure> {
    let servers: Vec<&HostName> = prepared.desired.servers.keys().collect();
    let answers = join_all(servers.iter().map(|host| prepared.fleet.pause_note(host))).await;
    let known: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    if known.len() * 2 <= servers.len() {
        return Err(few(&answers, "read the pause"));
    }
    Ok(known.into_iter().flatten().max().cloned())
}

/// Tells every server; those that cannot be told are named, and a majority must have been.
async fn tell(prepared: &Prepared, note: &PauseNote, word: &str) -> Result<(), Failure> {
    let servers: Vec<&HostName> = prepared.desired.servers.keys().collect();
    let answers = join_all(servers.iter().map(|host| prepared.fleet.note_pause(host, note))).await;
    let told = answers.iter().filter(|answer| answer.is_ok()).count();
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        output::note(&error.to_string());
    }
    if told * 2 <= servers.len() {
        let failure = few(&answers, &format!("have the cluster {word}"));
        return Err(if told > 0 {
            failure.caused_by("where it was noted it is in force, for whoever reaches that server")
        } else {
            failure
        });
    }
    Ok(())
}

fn few<T>(answers: &[Result<T, EffectError>], what: &str) -> Failure {
    let good = answers.iter().filter(|answer| answer.is_ok()).count();
    Failure::new(format!(
        "{what}: only {good} of {} servers could be asked; a majority must be",
        answers.len()
    ))
    .hint("a process that runs --watch is stopped with SIGTERM, and finishes the step at hand")
}

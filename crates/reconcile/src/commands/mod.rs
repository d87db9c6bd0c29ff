//! Each command in its own file.

mod adopt;
mod converge;
mod events;
mod lab;
mod logs;
mod pause;
mod plan;
mod psql;
mod render;
mod report;
mod secrets;
mod status;
mod switchover;
mod watch;

pub(crate) use converge::{Prepared, prepare_again};
pub(crate) use watch::Watched;

use clap::CommandFactory as _;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Cli, Command},
    failure::{Failure, Outcome},
    output, source,
};

/// Runs what was asked for.
pub(crate) async fn run(mut cli: Cli) -> Result<Outcome, Failure> {
    let command = cli.command.take();
    if cli.watch
        && let Some(command) = &command
    {
        let failure = Failure::usage(
            "`--watch` before a command means nothing: it is to stay and keep the cluster, without one",
        );
        return Err(match command {
            Command::Status(_) => failure.hint("`reconcile status --watch` looks again and again"),
            _ => failure.hint("leave `--watch` or the command out"),
        });
    }
    match command {
        None if cli.watch => watch::run(&cli, &stop_on_signal()).await,
        None => converge::run(&cli).await,
        Some(Command::Plan(arguments)) => plan::plan(&cli, &arguments).await,
        Some(Command::Apply(arguments)) => plan::apply(&cli, &arguments).await,
        Some(Command::Status(arguments)) => status::run(&cli, &arguments).await,
        Some(Command::Switchover(arguments)) => switchover::run(&cli, &arguments).await,
        Some(Command::Adopt(arguments)) => adopt::run(&cli, &arguments).await,
        Some(Command::Pause(arguments)) => pause::pause(&cli, &arguments).await,
        Some(Command::Resume) => pause::resume(&cli).await,
        Some(Command::Events(arguments)) => events::run(&cli, &arguments),
        Some(Command::Logs(arguments)) => logs::run(&cli, &arguments).await,
        Some(Command::Psql(arguments)) => psql::run(&cli, &arguments).await,
        Some(Command::Report(arguments)) => report::run(&cli, &arguments).await,
        Some(Command::Validate) => validate(&cli),
        Some(Command::Render(arguments)) => render::run(&cli, &arguments),
        Some(Command::Schema(arguments)) => {
            output::print(&if arguments.markdown {
                reconcile_spec::reference()
            } else {
                reconcile_spec::json_schema()
            })?;
            Ok(Outcome::Done)
        }
        Some(Command::Secrets(command)) => secrets::run(&cli, &command),
        Some(Command::Lab(arguments)) => lab::run(&arguments, cli.plain).await,
        Some(Command::ManPages { dir }) => {
            clap_mangen::generate_to(Cli::command(), &dir).map_err(|error| {
                Failure::from_error(format!("write pages to {}", dir.display()), &error)
            })?;
            Ok(Outcome::Done)
        }
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "reconcile", &mut script);
            output::print(&String::from_utf8_lossy(&script))?;
            Ok(Outcome::Done)
        }
    }
}

fn validate(cli: &Cli) -> Result<Outcome, Failure> {
    let source = source::read(cli)?;
    for spec in &source.clusters {
        if let Some(warning) = reconcile_core::desired::access::warning(spec) {
            output::note(&format!("warning: {warning}"));
        }
        let valid = format!("cluster {} is valid: {} hosts", spec.name, spec.hosts.len());
        match crate::secrets::check(spec, &source.base)? {
            Ok(count) => output::print(&format!("{valid}; all {count} secrets are there\n"))?,
            Err(why) => {
                output::print(&format!("{valid}\n"))?;
                output::note(&format!("the secrets of {} were not checked: {why}", spec.name));
            }
        }
    }
    Ok(Outcome::Done)
}

/// First Ctrl-C (or SIGTERM): finish the steps at hand. Second: abort.
fn stop_on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        signal().await;
        output::note("stopping after the steps at hand; again to abort");
        cancel.cancel();
        signal().await;
        abort();
    });
    token
}

#[expect(clippy::exit, reason = "the second signal aborts without waiting for anything")]
fn abort() -> ! {
    std::process::exit(130)
}

/// Waits for Ctrl-C or SIGTERM.
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

//! The `reconcile` binary: command line, settings, output, exit codes.
//!
//! The only room that prints, reads the environment, or exits. It decides nothing about clusters.

mod base;
mod cli;
mod commands;
mod failure;
mod fleet;
mod follow;
mod kept;
mod lease;
mod lines;
mod listen;
mod notify;
mod output;
mod pipes;
mod progress;
mod rollout;
mod secrets;
mod source;
mod state;
mod still;
mod switching;
mod terminal;
mod triggers;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failure::Failure::new(format!("start the asynchronous runtime: {error}"))
                .report();
        }
    };
    output::log_to_stderr(cli.verbose);
    match runtime.block_on(commands::run(cli)) {
        Ok(outcome) => outcome.into(),
        Err(failure) => failure.report(),
    }
}

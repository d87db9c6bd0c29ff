//! Runs the lab from the command line: `lab up|down|status|exec|stop|start|cut|heal|reset`.
//!
//! For trying the library by hand; the product's own command line is another room.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program talks to its user"
)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use reconcile_lab::{Event, LabOptions, Progress, Scope, Stage};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Clone)]
struct Which {
    /// The lab's name
    #[arg(long, default_value = "lab", global = true)]
    name: String,
    /// The folder that holds labs
    #[arg(long, default_value = ".lab", global = true)]
    dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Have the lab run
    Up {
        #[command(flatten)]
        which: Which,
        /// How many servers
        #[arg(long, default_value_t = 3)]
        servers: u8,
        /// Servers without a Docker engine
        #[arg(long)]
        no_docker: bool,
    },
    /// Take the lab away
    Down {
        #[command(flatten)]
        which: Which,
        /// Also the image, the mirror, the registry, and the engine that was started
        #[arg(long)]
        all: bool,
    },
    /// Show the lab as JSON
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Put all servers back to bare
    Reset {
        #[command(flatten)]
        which: Which,
    },
    /// Run a command in a server as root
    Exec {
        #[command(flatten)]
        which: Which,
        /// The server
        server: String,
        /// The command
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
    /// Cut a server's power
    Stop(OfServer),
    /// Switch a server on
    Start(OfServer),
    /// Pull a server's network cable
    Cut(OfServer),
    /// Put a server's network cable in again
    Heal(OfServer),
}

#[derive(Args)]
struct OfServer {
    #[command(flatten)]
    which: Which,
    /// The server
    server: String,
}

struct Lines(Instant);

impl Progress for Lines {
    fn event(&self, event: Event) {
        let at = self.0.elapsed().as_secs_f32();
        match event {
            Event::Began(Stage::Servers) => eprintln!("[{at:6.1}] servers …"),
            Event::Detail(stage, text) => eprintln!("[{at:6.1}] {stage}: {text}"),
            Event::Ended(stage, took) => {
                eprintln!("[{at:6.1}] {stage}: done in {:.1} s", took.as_secs_f32());
            }
            _ => {}
        }
    }
}

fn options(which: &Which) -> LabOptions {
    LabOptions { name: which.name.clone(), dir: which.dir.clone(), ..LabOptions::default() }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&*error);
            while let Some(inner) = cause {
                eprintln!("caused by: {inner}");
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let lines = Lines(Instant::now());
    match command {
        Command::Up { which, servers, no_docker } => {
            let options = LabOptions { servers, docker: !no_docker, ..options(&which) };
            let lab = reconcile_lab::up(&options, &lines).await?;
            println!("{}", serde_json::to_string_pretty(&lab)?);
        }
        Command::Down { which, all } => {
            let scope = if all { Scope::Everything } else { Scope::Lab };
            reconcile_lab::down(&options(&which), scope, &lines).await?;
        }
        Command::Status { which } => {
            let status = reconcile_lab::status(&options(&which)).await?;
            println!("{}", serde_json::to_string_pretty(&status)?);
        }
        Command::Reset { which } => {
            reconcile_lab::reset(&options(&which), None, &lines).await?;
        }
        Command::Exec { which, server, argv } => {
            let output = reconcile_lab::exec(&options(&which), &server, &argv).await?;
            std::io::stdout().write_all(&output.stdout)?;
            std::io::stderr().write_all(&output.stderr)?;
            return Ok(ExitCode::from(u8::try_from(output.code).unwrap_or(255)));
        }
        Command::Stop(OfServer { which, server }) => {
            reconcile_lab::stop(&options(&which), &server).await?;
        }
        Command::Start(OfServer { which, server }) => {
            reconcile_lab::start(&options(&which), &server).await?;
        }
        Command::Cut(OfServer { which, server }) => {
            reconcile_lab::cut(&options(&which), &server).await?;
        }
        Command::Heal(OfServer { which, server }) => {
            reconcile_lab::heal(&options(&which), &server).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

//! What may be typed. Parsing does nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps a highly available PostgreSQL cluster on Linux servers as a YAML file says it must be.
///
/// `reconcile -f FILE` converges once and exits: 0 done, 1 error, 2 usage, 3 something is held,
/// 4 changes pending (only under `plan --exit-code`).
#[derive(Debug, Parser)]
#[command(
    name = "reconcile",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = false
)]
pub(crate) struct Cli {
    /// What to do; without a command: converge.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The desired-state file, a folder of such files, or git+ssh://HOST/REPOSITORY#BRANCH:PATH
    /// (also git+https:// and git+file:///).
    #[arg(short, long, global = true, env = "RECONCILE_FILE", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// What is taken from Git.
    #[command(flatten)]
    pub(crate) git: GitArgs,

    /// File with the age identities that open encrypted secrets; default: the systemd credential
    /// `age-identity`, where there is one.
    #[arg(long, global = true, env = "RECONCILE_AGE_IDENTITY_FILE", value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,

    /// Only this cluster, where the file has several.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,

    /// Say more on standard error; twice for what the SSH and Docker clients do.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Stay, and keep the cluster as desired.
    #[arg(short, long)]
    pub(crate) watch: bool,

    /// Seconds between two passes of `--watch` while nothing happens.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval: u64,

    /// Folder for the journal and the lock; default: reconcile/ in the user's state folder.
    #[arg(long, global = true, env = "RECONCILE_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// Plain lines instead of progress bars, also on a terminal.
    #[arg(long, global = true)]
    pub(crate) plain: bool,

    /// Where and to whom `--watch` shows the status. Last, for its heading is that of all that follow.
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}

/// A Git source.
#[derive(Debug, Args)]
#[command(next_help_heading = "Git source")]
pub(crate) struct GitArgs {
    /// Take only commits that a key of this file has signed (ssh-keygen's ALLOWED SIGNERS).
    #[arg(long, global = true, env = "RECONCILE_ALLOWED_SIGNERS", value_name = "FILE")]
    pub(crate) allowed_signers: Option<PathBuf>,
    /// Take the branch also where it was moved back or to another history.
    #[arg(long, global = true)]
    pub(crate) allow_rewind: bool,
    /// The SSH key to log in with at the Git host, such as a deploy key; default: the user's own.
    #[arg(long, global = true, env = "RECONCILE_GIT_SSH_KEY", value_name = "FILE")]
    pub(crate) git_ssh_key: Option<PathBuf>,
    /// The Git host's SSH key, as in known_hosts; default: the user's own file.
    #[arg(long, global = true, env = "RECONCILE_GIT_KNOWN_HOSTS", value_name = "FILE")]
    pub(crate) git_known_hosts: Option<PathBuf>,
    /// File with the token to log in with over HTTPS; default: the user's credential helpers.
    #[arg(long, global = true, env = "RECONCILE_GIT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) git_token_file: Option<PathBuf>,
    /// Certificate of the authority that the HTTPS host's is of, PEM; default: the system's.
    #[arg(long, global = true, env = "RECONCILE_GIT_CA", value_name = "FILE")]
    pub(crate) git_ca: Option<PathBuf>,
    /// Seconds between two looks at the branch; up to a fifth is taken away at random.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) git_interval: u64,
}

/// The status endpoint of `--watch`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Status endpoint of --watch")]
pub(crate) struct ListenArgs {
    /// Where to show the status, page and metrics: ADDRESS:PORT, or `off`; default: 127.0.0.1:7432
    /// where that is free. Any address but loopback needs TLS and a token.
    #[arg(long, env = "RECONCILE_LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// The certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "listen_key")]
    pub(crate) listen_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "listen_cert")]
    pub(crate) listen_key: Option<PathBuf>,
    /// File with the bearer token that callers must send; else RECONCILE_LISTEN_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub(crate) listen_token_file: Option<PathBuf>,
    /// File with the secret that a Git host signs its webhook with; else RECONCILE_WEBHOOK_SECRET.
    #[arg(long, value_name = "FILE")]
    pub(crate) webhook_secret_file: Option<PathBuf>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what would be done, and do nothing.
    Plan(PlanArgs),
    /// Carry out a saved plan, if neither the file nor the world has moved since.
    Apply(ApplyArgs),
    /// Show conditions, servers and services as they are now.
    Status(StatusArgs),
    /// Hand the primary over to a replica; clients wait in the poolers meanwhile.
    Switchover(SwitchoverArgs),
    /// Take what was changed by hand in the cluster into the file, as a patch.
    Adopt(AdoptArgs),
    /// Have every operator of the cluster change nothing for a while.
    Pause(PauseArgs),
    /// End a pause.
    Resume,
    /// Show the journal: what was done, when, and with what result.
    Events(EventsArgs),
    /// Show what a component wrote, of all servers as one stream in the order of time.
    Logs(LogsArgs),
    /// Open psql on the primary, as the server's user postgres.
    Psql(PsqlArgs),
    /// Write a bundle for whoever is to help: specification, plan, status, journal, logs; no secret.
    Report(ReportArgs),
    /// Check the file, and the secrets where they are given, and say everything that is wrong.
    Validate,
    /// Write every file of every server, and the stack, as they would be.
    Render(RenderArgs),
    /// Print the JSON Schema of the file.
    Schema(SchemaArgs),
    /// Secrets of the cluster.
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Real servers on this machine, to try the operator on (needs root).
    Lab(LabArgs),
    /// Write the manual's pages into a folder.
    #[command(hide = true)]
    ManPages {
        /// The folder.
        dir: PathBuf,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How a table or plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For people, with every field.
    Wide,
    /// For machines.
    Json,
    /// For machines and people.
    Yaml,
}

/// How the journal is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventsFormat {
    /// For people.
    Text,
    /// For machines, one object a line.
    Json,
    /// For machines and people, one list.
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Format.
    #[arg(short, long, default_value = "text")]
    pub(crate) output: Format,
    /// Save the plan to this file, for `reconcile apply`.
    #[arg(long, value_name = "PLAN")]
    pub(crate) out: Option<PathBuf>,
    /// Exit with 4 when the plan has steps, with 3 when it only holds.
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The saved plan.
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Format.
    #[arg(short, long, default_value = "text")]
    pub(crate) output: Format,
    /// Leave the service proof out.
    #[arg(long)]
    pub(crate) no_proof: bool,
    /// Look again and again, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Seconds between two looks of `--watch`.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval: u64,
}

#[derive(Debug, Args)]
pub(crate) struct SwitchoverArgs {
    /// The replica to hand over to; default: the one with the least lag.
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,
    /// Go on although transactions have been open for more than 2 s, or clients keep sessions: those
    /// that do not come through the poolers are cut off.
    #[arg(long)]
    pub(crate) regardless: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Write the file instead of printing the patch.
    #[arg(long)]
    pub(crate) write: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// For how long, such as 30m, 2h, 1d; at most 30 days. It ends by itself.
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = pause_length)]
    pub(crate) length: u64,
    /// Why, for whoever looks at the status meanwhile.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Format.
    #[arg(short, long, default_value = "text")]
    pub(crate) output: EventsFormat,
    /// Only so many of the last entries.
    #[arg(long, default_value_t = 200)]
    pub(crate) last: usize,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// A unit (etcd, patroni, docker) or a service (haproxy, pgbouncer, …).
    pub(crate) component: String,
    /// Only of this server.
    pub(crate) host: Option<String>,
    /// Only so far back, such as 90s, 10m, 2h, 1d.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub(crate) since: Option<u64>,
    /// Go on with what is written from now on, until Ctrl-C.
    // `-f` is the file's.
    #[arg(short = 'F', long)]
    pub(crate) follow: bool,
    /// Only so many of the last lines of each server.
    #[arg(short = 'n', long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) lines: u32,
}

/// The length of a pause in seconds.
fn pause_length(text: &str) -> Result<u64, String> {
    const LONGEST: u64 = 30 * 86_400;
    let length = seconds(text)?;
    if (1..=LONGEST).contains(&length) { Ok(length) } else { Err("from 1s to 30d".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct PsqlArgs {
    /// Arguments for psql, such as `-d auth` or `-c 'select 1'`.
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<String>,
}

/// A length of time in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let count = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[count.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err("a number with s, m, h or d behind it".to_owned()),
    };
    let count: u32 =
        count.parse().map_err(|_| "a number with s, m, h or d behind it".to_owned())?;
    Ok(u64::from(count) * unit)
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The bundle, a tar archive; default: reconcile-report-CLUSTER.tar.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Write into this directory instead of standard output. Secrets are written as placeholders.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Only the specification with every default filled in.
    #[arg(long)]
    pub(crate) spec: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// As pages for people instead.
    #[arg(long, hide = true)]
    pub(crate) markdown: bool,
}

/// Commands about secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Write a strong random value for every secret that the file needs and that is not there yet.
    Init,
    /// List the secrets that the file needs and whether they are there; never their values.
    List,
}

#[derive(Debug, Args)]
pub(crate) struct LabArgs {
    /// Name of the lab; labs of different names live side by side.
    #[arg(long, global = true, default_value = "lab")]
    pub(crate) name: String,
    /// Folder in which each lab keeps its state.
    #[arg(long, global = true, default_value = ".lab")]
    pub(crate) dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: LabCommand,
}

/// Commands about the lab.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Bring the lab up: build what is missing, boot the servers. Does nothing to a running lab.
    Up {
        /// How many servers.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        servers: u8,
        /// Servers without a Docker engine.
        #[arg(long)]
        no_docker: bool,
    },
    /// Take the lab away: servers, disks, network, state.
    Down {
        /// Also the images, the package mirror, and the engine that the lab started.
        #[arg(long)]
        all: bool,
    },
    /// Show the lab.
    Status {
        /// Format.
        #[arg(short, long, default_value = "text")]
        output: Format,
    },
    /// Run a command on a server as root.
    Exec {
        /// Server.
        server: String,
        /// Command and arguments.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Power cut of a server.
    Stop {
        /// Server.
        server: String,
    },
    /// Boot a server.
    Start {
        /// Server.
        server: String,
    },
    /// Sever a server's network, both ways.
    Cut {
        /// Server.
        server: String,
    },
    /// Mend a server's network.
    Heal {
        /// Server.
        server: String,
    },
    /// Every server back to bare, or one alone.
    Reset {
        /// Server.
        server: Option<String>,
    },
}

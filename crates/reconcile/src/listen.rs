//! The status endpoint of `--watch`: its settings, and the loop's words carried to its board.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reconcile_engine::{Event, Listener, lease::Held};
use reconcile_server::{About, Board, Lease, Listen, ListenError, Served, Token};
use tokio::sync::mpsc;

use crate::{
    cli::{Cli, ListenArgs},
    failure::Failure,
    output,
};

/// Where it listens if nothing else is said.
const DEFAULT: &str = "127.0.0.1:7432";

/// Hands events to the board and on to another listener.
pub(crate) struct Publish<'a> {
    board: Arc<Board>,
    /// The lease under which the loop acts.
    held: Mutex<Option<Arc<Held>>>,
    next: &'a dyn Listener,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(cli: &Cli, cluster: &str, next: &'a dyn Listener) -> Self {
        let about = About {
            cluster: cluster.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interval: Duration::from_secs(cli.interval),
        };
        Self { board: Arc::new(Board::new(about)), held: Mutex::default(), next }
    }

    /// Whether the loop advances.
    pub(crate) fn alive(&self) -> impl Fn() -> bool + Send + 'static {
        let board = Arc::clone(&self.board);
        move || match board.alive() {
            Ok(()) => true,
            Err(why) => {
                tracing::error!(why, "systemd's watchdog is not told any more");
                false
            }
        }
    }

    /// The loop acts under this lease from here on.
    pub(crate) fn holds(&self, held: &Arc<Held>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(held));
        self.lease();
    }

    /// It has none, and why.
    pub(crate) fn waits(&self, why: &str) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.board.lease(&Lease::Waits(why.to_owned()));
    }

    /// Tells how long the lease lasts.
    fn lease(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_ref() {
            let (token, left) = (held.claimant().token, held.left());
            self.board.lease(&if left.is_zero() {
                Lease::Waits("it was not renewed in time".to_owned())
            } else {
                Lease::Held { token, left }
            });
        }
    }

    /// Listens as asked. Where nothing was asked for and the default address is taken, the
    /// cluster is kept all the same.
    pub(crate) fn start(
        &self,
        arguments: &ListenArgs,
        dirty: mpsc::Sender<()>,
    ) -> Result<Option<Served>, Failure> {
        let asked = arguments.listen.as_deref();
        if asked == Some("off") {
            return Ok(None);
        }
        let listen = settings(arguments, asked.unwrap_or(DEFAULT))?;
        match reconcile_server::start(listen, Arc::clone(&self.board), dirty) {
            Ok(served) => {
                output::note(&format!("status and page on {}", served.url()));
                Ok(Some(served))
            }
            Err(error @ ListenError::Bind { .. }) if asked.is_none() => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                output::note(&format!(
                    "no status endpoint: {error}{cause}; --listen names another"
                ));
                Ok(None)
            }
            Err(error) if error.is_usage() => Err(Failure::usage(error.to_string()).hint(
                "--listen-cert, --listen-key and --listen-token-file name the files; \
                     or listen on 127.0.0.1 and reach it through `ssh -L`",
            )),
            Err(error) => Err(Failure::from_error("show the status", &error)),
        }
    }
}

fn settings(arguments: &ListenArgs, address: &str) -> Result<Listen, Failure> {
    let address: SocketAddr = address.parse().map_err(|_| {
        Failure::usage(format!("`--listen {address}` is not an address with a port"))
            .hint("such as 127.0.0.1:7432, [::1]:7432, 0.0.0.0:7432, or off")
    })?;
    let tls = arguments.listen_cert.clone().zip(arguments.listen_key.clone());
    let token = word(arguments.listen_token_file.as_deref(), "RECONCILE_LISTEN_TOKEN")?;
    let webhook = word(arguments.webhook_secret_file.as_deref(), "RECONCILE_WEBHOOK_SECRET")?;
    Ok(Listen { address, tls, token, webhook })
}

/// A secret word from a file, else from the environment.
fn word(file: Option<&Path>, variable: &str) -> Result<Option<Token>, Failure> {
    let (text, from) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::from_error(format!("read {}", path.display()), &error))?;
            (text, path.display().to_string())
        }
        None => match std::env::var(variable) {
            Ok(text) => (text, variable.to_owned()),
            Err(std::env::VarError::NotPresent) => return Ok(None),
            Err(error) => return Err(Failure::usage(format!("{variable}: {error}"))),
        },
    };
    Token::new(&text).map(Some).map_err(|error| Failure::usage(format!("{from}: {error}")))
}

impl Listener for Publish<'_> {
    fn hear(&self, event: &Event<'_>) {
        self.lease();
        let board = &self.board;
        match event {
            Event::PassStarted(number) => board.pass_started(*number),
            Event::Observed { answers, .. } => board.observed(answers),
            Event::Looked { desired, observed, plan } => board.looked(desired, observed, plan),
            Event::StepStarted(step) => board.step_started(step),
            Event::StepFinished { step, result, took } => {
                let error = result.as_ref().err().map(ToString::to_string);
                board.step_finished(step, error.as_deref(), *took);
            }
            Event::StepSkipped(step) => board.step_skipped(step),
            Event::SourceChanged(revision) => board.source_changed(*revision),
            Event::SourceBroken(refused) => board.source_broken(refused),
            Event::PassRefused(error) => board.pass_refused(&error.to_string()),
            Event::PassEnded { took, done, failed } => board.pass_ended(*took, *done, *failed),
            Event::Verified(report) => board.verified(report),
            Event::Tick
            | Event::SourceAhead
            | Event::Planned(_)
            | Event::StepWaits { .. }
            | Event::Verifying
            | Event::SwitchBegins(_)
            | Event::SwitchEnds(..)
            | Event::Resumed => board.tick(),
        }
        self.next.hear(event);
    }
}

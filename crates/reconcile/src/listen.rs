//! The status endpoint of `--watch`: its settings, and the loop's words carried to its board.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reconcile_engine::{Event, Listener, lease::Held, settled::Drifts};
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
    drifts: Mutex<Drifts>,
    next: &'a dyn Listener,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(cli: &Cli, cluster: &str, next: &'a dyn Listener) -> Self {
        let about = About {
            cluster: cluster.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interval: Duration::from_secs(cli.interval),
        };
        Self {
            board: Arc::new(Board::new(about)),
            held: Mutex::default(),
            drifts: Mutex::default(),
            next,
        }
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

    /// It has none, why, and who has.
    pub(crate) fn waits(&self, why: &str, keeper: Option<&str>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let keeper = keeper.map(str::to_owned);
        self.board.lease(&Lease::Waits { why: why.to_owned(), keeper });
    }

    /// Tells how long the lease lasts.
    fn lease(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_ref() {
            let (token, left) = (held.claimant().token, held.left());
            self.board.lease(&if left.is_zero() {
                Lease::Waits { why: "it was not renewed in time".to_owned(), keeper: None }
            } else {
                Lease::Held { token, left }
            });
        }
    }

    /// Listens as asked. Where nothing was asked for and the default address is taken, the
    /// cluster is kept all the same.
    pub(crate) fn start(
        &self,
        asked: Asked,
        dirty: mpsc::Sender<()>,
    ) -> Result<Option<Served>, Failure> {
        let (listen, by_default) = match asked {
            Asked::Off => return Ok(None),
            Asked::On { listen, by_default } => (listen, by_default),
        };
        match reconcile_server::start(listen, Arc::clone(&self.board), dirty) {
            Ok(served) => {
                output::note(&format!("status and page on {}", served.url()));
                Ok(Some(served))
            }
            Err(error @ ListenError::Bind { .. }) if by_default => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                output::note(&format!(
                    "no status endpoint: {error}{cause}; --listen names another"
                ));
                Ok(None)
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// Where to show the status.
pub(crate) enum Asked {
    Off,
    On {
        listen: Listen,
        /// Nobody asked for it.
        by_default: bool,
    },
}

/// What was asked for; what is wrong with it is said before anything else is done.
pub(crate) fn asked(arguments: &ListenArgs) -> Result<Asked, Failure> {
    let asked = arguments.listen.as_deref();
    if asked == Some("off") {
        return Ok(Asked::Off);
    }
    let listen = settings(arguments, asked.unwrap_or(DEFAULT))?;
    listen.check().map_err(|error| failed(&error))?;
    Ok(Asked::On { listen, by_default: asked.is_none() })
}

fn failed(error: &ListenError) -> Failure {
    if error.is_usage() {
        return Failure::usage(error.to_string()).hint(
            "--listen-cert, --listen-key and --listen-token-file name the files; \
             or listen on 127.0.0.1 and reach it through `ssh -L`",
        );
    }
    Failure::from_error("show the status", error)
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
            Event::Looked { desired, observed, plan } => {
                let mut drifts = self.drifts.lock().unwrap_or_else(PoisonError::into_inner);
                let news = drifts.looked(desired, plan);
                drop(drifts);
                let told = news.iter().map(|drift| match drift.left {
                    Some(left) => format!("{} [left: {left}]", drift.told),
                    None => drift.told.clone(),
                });
                board.drifted(&told.collect::<Vec<_>>());
                board.looked(desired, observed, plan);
            }
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use clap::Parser as _;
    use reconcile_core::plan::plan;
    use reconcile_sim::{World, fixture};

    use super::*;

    #[test]
    fn what_drifted_is_in_the_status_as_it_is_in_the_terminal() {
        let cli = Cli::parse_from(["reconcile", "--watch", "--listen", "127.0.0.1:0"]);
        let publish = Publish::new(&cli, "main", &());
        let asked = asked(&cli.listen).expect("an address");
        let served = publish.start(asked, mpsc::channel(1).0).expect("it listens").expect("on");
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        let mut world = World::converged(&desired);
        let look = |world: &World| {
            let observed = world.observe(&desired);
            let plan = plan(&desired, &observed);
            publish.hear(&Event::Looked { desired: &desired, observed: &observed, plan: &plan });
            let address = served.address();
            let mut stream = TcpStream::connect(address).expect("connected");
            let request =
                format!("GET /status HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        };
        assert!(!look(&world).contains("\"kind\":\"drift\""));
        let file = world.server_mut("node1").files.get_mut("/etc/default/etcd").expect("ours");
        file.bytes.extend_from_slice(b"TOKEN=canary-4711\n");
        for _ in 0..2 {
            let status = look(&world);
            let told = "drift node1:/etc/default/etcd (files): has 1 line by hand\"";
            assert_eq!(status.matches(told).count(), 1, "{status}");
            let events = status.split("\"events\":").nth(1).expect("a history");
            assert!(!events.contains("canary"), "{events}");
        }
    }

    #[test]
    fn what_is_asked_for_wrongly_is_said_before_anything_listens() {
        let asked = |address: &str| {
            let cli = Cli::parse_from(["reconcile", "--watch", "--listen", address]);
            asked(&cli.listen)
        };
        assert!(matches!(asked("off"), Ok(Asked::Off)));
        assert!(matches!(asked("127.0.0.1:0"), Ok(Asked::On { by_default: false, .. })));
        for (wrong, why) in [("foo", "is not an address with a port"), ("0.0.0.0:1", "missing")] {
            let text = asked(wrong).map(|_| ()).expect_err("refused").text();
            assert!(text.contains(why), "{text}");
        }
    }
}

//! One PostgreSQL session through a dialed stream, with the simple protocol only: poolers in
//! transaction mode are in the path.

use std::{future::Future, time::Duration};

use reconcile_core::verify::{Front, VerifyRequest};
use reconcile_dial::{Dialer, Target};
use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// Longest wait for a session: dialing, and the pooler's own log-in behind it.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// In plain words.
    pub(crate) cause: String,
    /// Trying again cannot help: a refused log-in, a missing privilege.
    pub(crate) final_word: bool,
}

/// An open session. Dropping it closes the stream, which rolls back what is open.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Logs in through a port of `front`.
    pub(crate) async fn open(
        dialer: &dyn Dialer,
        request: &VerifyRequest,
        front: &Front,
        port: u16,
    ) -> Result<Self, Failure> {
        let target = Target::Tcp { host: front.address.clone(), port };
        let mut config = Config::new();
        config
            .user(&request.role)
            .password(request.password.expose())
            .dbname(&request.database)
            .application_name("reconcile");
        within(CONNECT, &format!("no session at {target}"), async {
            let stream = dialer
                .dial(front.host.as_str(), target.clone())
                .await
                .map_err(|error| passing(error.to_string()))?;
            let (client, connection) = config
                .connect_raw(stream, NoTls)
                .await
                .map_err(|error| failure(&error).of(&format!("log in at {target}")))?;
            // Its end shows as an error of the client.
            let driver = tokio::spawn(async { drop(connection.await) });
            Ok(Self { client, driver })
        })
        .await
    }

    /// Runs statements in one round trip and gives back the last row of all.
    pub(crate) async fn run(&self, sql: &str) -> Result<SimpleQueryRow, Failure> {
        within(ANSWER, "no answer", async {
            let messages = self.client.simple_query(sql).await.map_err(|error| failure(&error))?;
            let row = messages.into_iter().rev().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            row.ok_or_else(|| passing("the answer holds no row".to_owned()))
        })
        .await
    }
}

impl Failure {
    fn of(mut self, attempt: &str) -> Self {
        self.cause = format!("{attempt}: {}", self.cause);
        self
    }
}

fn passing(cause: String) -> Failure {
    Failure { cause, final_word: false }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = || Err(passing(format!("{what} within {} s", limit.as_secs())));
    timeout(limit, work).await.unwrap_or_else(|_| late())
}

/// The server's own words, or the innermost cause.
fn failure(error: &tokio_postgres::Error) -> Failure {
    if let Some(server) = error.as_db_error() {
        let code = server.code().code();
        // Classes 28 (refused log-in) and 42 (missing privilege or object).
        let final_word = code.starts_with("28") || code.starts_with("42");
        let cause = format!("{} (SQLSTATE {code})", server.message());
        return Failure { cause, final_word };
    }
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    passing(last.to_string())
}

//! PgBouncer's admin console: PAUSE and RESUME. It speaks the simple protocol only.

use std::time::Duration;

use reconcile_core::{
    model::{HostName, SecretText},
    ports::{EffectError, Retry},
};
use reconcile_dial::{Dialer, Target};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Longest wait for a session on the console.
const CONNECT: Duration = Duration::from_secs(3);

/// A pooler's console.
#[derive(Debug, Clone)]
pub struct Console {
    /// Server through which to dial.
    pub host: HostName,
    /// The pooler's address as that server dials it.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// User of the console.
    pub user: String,
    /// Its password.
    pub password: SecretText,
}

/// What PgBouncer says to RESUME where nothing is paused.
const NOT_PAUSED: &str = "not paused";
/// What it says to PAUSE where everything is.
const PAUSED_ALREADY: &str = "already suspended/paused";

impl Console {
    /// Opens a session and asks for the version.
    pub async fn reach(&self, dialer: &dyn Dialer) -> Result<(), EffectError> {
        self.command(dialer, "SHOW VERSION", None).await.map(drop)
    }

    /// Waits until all server connections are free, and holds new work back. The caller bounds the
    /// time; dropping the future leaves the pooler pausing, so RESUME must follow.
    pub async fn pause(&self, dialer: &dyn Dialer) -> Result<(), EffectError> {
        self.command(dialer, "PAUSE", Some(PAUSED_ALREADY)).await.map(drop)
    }

    /// Lets work go on. A pooler that is not paused is success.
    pub async fn resume(&self, dialer: &dyn Dialer) -> Result<(), EffectError> {
        self.command(dialer, "RESUME", Some(NOT_PAUSED)).await.map(drop)
    }

    /// Pools in session mode with clients that hold a server connection, in words. They keep it until
    /// they leave.
    pub async fn sessions(&self, dialer: &dyn Dialer) -> Result<Vec<String>, EffectError> {
        let answer = self.command(dialer, "SHOW POOLS", None).await?;
        Ok(answer.iter().filter_map(|message| self.session_pool(message)).collect())
    }

    fn session_pool(&self, message: &SimpleQueryMessage) -> Option<String> {
        let SimpleQueryMessage::Row(row) = message else { return None };
        let text = |name: &str| row.try_get(name).ok().flatten();
        let held: u64 = text("sv_active")?.parse().ok()?;
        let (mode, database, user) = (text("pool_mode")?, text("database")?, text("user")?);
        (mode == "session" && held > 0).then(|| {
            let clients = if held == 1 { "client keeps" } else { "clients keep" };
            format!(
                "{held} {clients} a session of {user} in {database} through the pooler on {}",
                self.host
            )
        })
    }

    async fn command(
        &self,
        dialer: &dyn Dialer,
        command: &str,
        harmless: Option<&str>,
    ) -> Result<Vec<SimpleQueryMessage>, EffectError> {
        let attempt = format!("{command} the pooler on {}", self.host);
        let fail =
            |cause: String, retry| EffectError::new(Some(&self.host), &attempt, cause, retry);
        let target = Target::Tcp { host: self.address.clone(), port: self.port };
        let mut config = Config::new();
        config
            .user(&self.user)
            .password(self.password.expose())
            .dbname("pgbouncer")
            .application_name("reconcile");
        let open = async {
            let stream = dialer
                .dial(self.host.as_str(), target)
                .await
                .map_err(|error| fail(error.to_string(), Retry::Later))?;
            config
                .connect_raw(stream, NoTls)
                .await
                .map_err(|error| fail(words(&error), Retry::Later))
        };
        let (client, connection) =
            tokio::time::timeout(CONNECT, open).await.unwrap_or_else(|_| {
                Err(fail(format!("no session within {} s", CONNECT.as_secs()), Retry::Later))
            })?;
        // The connection must be driven while the answer is awaited, and ends with it.
        tokio::select! {
            answer = client.simple_query(command) => match answer {
                Ok(answer) => Ok(answer),
                Err(error) if harmless.is_some_and(|text| words(&error).contains(text)) => {
                    Ok(Vec::new())
                }
                Err(error) => Err(fail(words(&error), Retry::Soon)),
            },
            _ended = connection => Err(fail("the connection ended early".to_owned(), Retry::Soon)),
        }
    }
}

/// The server's own words, or the innermost cause.
fn words(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        return server.message().to_owned();
    }
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

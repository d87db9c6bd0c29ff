//! The application's own way into the database: one statement over one new connection.

use std::{net::Ipv4Addr, time::Duration};

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

/// Where and as whom to connect.
#[derive(Clone)]
pub(crate) struct Login {
    /// Address.
    pub(crate) address: Ipv4Addr,
    /// Port.
    pub(crate) port: u16,
    /// Role.
    pub(crate) user: String,
    /// Its password.
    pub(crate) password: String,
    /// Database.
    pub(crate) database: String,
}

/// For one statement: while a role moves, poolers let clients wait.
const STATEMENT: Duration = Duration::from_secs(10);

impl Login {
    /// Runs a statement; gives the first column of the first row, or an empty text.
    pub(crate) fn ask(&self, statement: &str) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let whole = async { tokio::time::timeout(STATEMENT, self.statement(statement)).await };
        let place = format!("{}:{}", self.address, self.port);
        match runtime.block_on(whole) {
            Ok(result) => result.map_err(|error| format!("{place}: `{statement}`: {error}")),
            Err(_) => {
                Err(format!("{place}: `{statement}`: no answer in {} s", STATEMENT.as_secs()))
            }
        }
    }

    /// How to connect, with patience for the connection.
    pub(super) fn config(&self, patience: Duration) -> Config {
        let mut config = Config::new();
        config
            .host(self.address.to_string())
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(&self.database)
            .connect_timeout(patience);
        config
    }

    async fn statement(&self, statement: &str) -> Result<String, String> {
        let (client, connection) =
            self.config(STATEMENT).connect(NoTls).await.map_err(|error| told(&error))?;
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(statement).await.map_err(|error| told(&error));
        connection.abort();
        let first = messages?.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(first.unwrap_or_default())
    }
}

/// With the server's own words, which the error's text leaves out.
pub(super) fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => db.to_string(),
        None => error.to_string(),
    }
}

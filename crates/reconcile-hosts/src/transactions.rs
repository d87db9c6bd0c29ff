//! Transactions that have been open for long on a server's PostgreSQL: what a PAUSE would wait for,
//! or a switchover cut off.

use std::time::Duration;

use reconcile_core::{model::HostName, ports::EffectError};
use serde::Deserialize;

use crate::{
    Ssh,
    apply::judge,
    fault::Fault,
    shell::{quote, script},
};

const DEADLINE: Duration = Duration::from_secs(10);
/// More are not told.
const MOST: u32 = 5;

#[derive(Debug, Deserialize)]
struct Row {
    pid: i64,
    user: String,
    database: String,
    client: String,
    state: String,
    seconds: u64,
}

/// The script that asks. What the statements say is not asked: it may hold anything.
pub fn transactions_script(socket_dir: &str, port: u16, older_than: Duration) -> String {
    let sql = format!(
        "select json_build_object('pid', pid, 'user', usename, 'database', datname, \
         'client', coalesce(host(client_addr), 'the socket'), 'state', coalesce(state, ''), \
         'seconds', floor(extract(epoch from clock_timestamp() - xact_start))) \
         from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() \
         and xact_start < clock_timestamp() - interval '{} s' order by xact_start limit {MOST}",
        older_than.as_secs()
    );
    script(&format!(
        "at 'asking PostgreSQL for long transactions'\n\
         timeout -k 1 8 setpriv --reuid=postgres --regid=postgres --init-groups \
         env -i PATH=\"$PATH\" LC_ALL=C PGAPPNAME=reconcile PGCONNECT_TIMEOUT=5 PGCLIENTENCODING=UTF8 \
         psql -XAtq -v ON_ERROR_STOP=1 -h {dir} -p {port} -U postgres -d postgres -c {sql} ||\n\
         fail later 'PostgreSQL does not tell'\n",
        dir = quote(socket_dir),
        sql = quote(&sql),
    ))
}

fn told(line: &str) -> Result<String, String> {
    let row: Row = serde_json::from_str(line).map_err(|error| format!("its answer: {error}"))?;
    let Row { pid, user, database, client, state, seconds } = row;
    Ok(format!(
        "pid {pid} of {user} in {database} from {client} is in a transaction for {seconds} s ({state})"
    ))
}

impl Ssh {
    /// Transactions on the server's PostgreSQL that are open for longer, the oldest first, in words.
    pub async fn long_transactions(
        &self,
        host: &HostName,
        (socket_dir, port): (&str, u16),
        older_than: Duration,
    ) -> Result<Vec<String>, EffectError> {
        let attempt = format!("ask PostgreSQL on {host} for long transactions");
        let text = transactions_script(socket_dir, port, older_than);
        let output = self.run_inner(host, &text, DEADLINE).await;
        let judged = output.and_then(|output| judge(&output, &[]).map(|()| output));
        let output = judged.map_err(|fault| fault.at(host, &attempt))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows = text.lines().filter(|line| line.starts_with('{')).map(told);
        rows.collect::<Result<_, _>>().map_err(|cause| Fault::later(cause).at(host, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_told_in_words() {
        let row = r#"{"pid" : 812, "user" : "app", "database" : "auth", "client" : "192.0.2.11", "state" : "idle in transaction", "seconds" : 312}"#;
        let words = "pid 812 of app in auth from 192.0.2.11 is in a transaction for 312 s (idle in transaction)";
        assert_eq!(told(row).as_deref(), Ok(words));
        assert!(told("{").is_err());
    }
}

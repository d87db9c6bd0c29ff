//! Clients that write all the time over long connections, and an oracle of what must be there:
//! every acknowledged row exactly once, and no row that nobody wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_postgres::{Client, NoTls};

use super::{Login, seconds};

/// A write that has no answer by then counts as failed; a wait below it counts as a wait.
const ANSWER: Duration = Duration::from_secs(60);
/// From a failure until the client tries again.
const AGAIN: Duration = Duration::from_millis(200);
/// Each client's pause between two writes: ten clients make 50 writes per second.
const PACE: Duration = Duration::from_millis(200);
const CLIENTS: usize = 10;

/// A row: which client wrote it and its number there.
type Row = (usize, u64);

/// One write as its client saw it.
#[derive(Clone)]
struct Write {
    row: Row,
    began: Instant,
    ended: Instant,
    error: Option<String>,
}

/// A load that runs until it is ended.
pub(crate) struct Load {
    table: String,
    read: Login,
    started: Instant,
    writes: Arc<Mutex<Vec<Write>>>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Starts ten clients with 50 writes per second together, spread over these ways in, and
    /// returns when each has written once.
    #[track_caller]
    pub(crate) fn start(logins: &[Login]) -> Self {
        let read = logins[0].clone();
        let table = format!("load_{}", std::process::id());
        let create = format!(
            "drop table if exists {table}; create table {table} (client int not null, number bigint not null)"
        );
        super::until("a table for the load", super::PATIENCE, || read.ask(&create));
        let writes = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = watch::channel(false);
        let clients: Vec<_> = logins.iter().cycle().take(CLIENTS).cloned().enumerate().collect();
        let (log, into) = (Arc::clone(&writes), table.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let clients = clients.into_iter().map(|(number, login)| {
                    let (log, stopped, table) = (Arc::clone(&log), stopped.clone(), into.clone());
                    tokio::spawn(client(number, login, table, log, stopped))
                });
                for client in clients.collect::<Vec<_>>() {
                    client.await.expect("a client only notes errors");
                }
            });
        });
        let load = Self { table, read, started: Instant::now(), writes, stop, thread };
        super::until("every client to have written", super::PATIENCE, || {
            let writes = load.writes.lock().unwrap_or_else(PoisonError::into_inner);
            let ready: BTreeSet<_> =
                writes.iter().filter(|w| w.error.is_none()).map(|w| w.row.0).collect();
            if ready.len() == CLIENTS { Ok(()) } else { Err(format!("{} have", ready.len())) }
        });
        load
    }

    /// What was seen since `since`, so far.
    pub(crate) fn since(&self, since: Instant) -> Seen {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let writes = writes.iter().filter(|write| write.ended >= since);
        Seen::of(self.started, writes.cloned().collect())
    }

    /// An error until every client has an acknowledged write that it began after `since`.
    pub(crate) fn all_wrote(&self, since: Instant) -> Result<(), String> {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let late = writes.iter().filter(|write| write.began >= since && write.error.is_none());
        let clients: BTreeSet<_> = late.map(|write| write.row.0).collect();
        if clients.len() == CLIENTS {
            return Ok(());
        }
        let last = writes.iter().rev().find_map(|write| write.error.clone()).unwrap_or_default();
        Err(format!("{} of {CLIENTS} clients, last error {last}", clients.len()))
    }

    /// Ends the load, and compares what is in the database with what was acknowledged. Fails if an
    /// acknowledged row is missing or a row is there that should not be.
    #[track_caller]
    pub(crate) fn end(self) -> Seen {
        self.stop.send(true).expect("the clients listen until they stop");
        self.thread.join().expect("the clients only note errors");
        let writes =
            std::mem::take(&mut *self.writes.lock().unwrap_or_else(PoisonError::into_inner));
        let seen = Seen::of(self.started, writes);
        let question = format!(
            "select coalesce(string_agg(client || ':' || number, ' '), '') from {}",
            self.table
        );
        let told = super::until("the rows", super::PATIENCE, || self.read.ask(&question));
        let mut there: BTreeMap<Row, usize> = BTreeMap::new();
        for row in told.split_whitespace() {
            let (client, number) = row.split_once(':').expect("client:number");
            let row = (client.parse().expect("a number"), number.parse().expect("a number"));
            *there.entry(row).or_default() += 1;
        }
        let lost: Vec<_> = seen.acknowledged().filter(|row| !there.contains_key(row)).collect();
        assert!(lost.is_empty(), "{} acknowledged rows are lost: {lost:?}\n{seen}", lost.len());
        let tried: BTreeSet<_> = seen.writes.iter().map(|write| write.row).collect();
        let odd: Vec<_> =
            there.iter().filter(|(row, count)| !tried.contains(row) || **count > 1).collect();
        assert!(odd.is_empty(), "rows that should not be there: {odd:?}\n{seen}");
        super::until("the load's table to be gone", super::PATIENCE, || {
            self.read.ask(&format!("drop table {}", self.table))
        });
        seen
    }
}

/// What the clients saw.
pub(crate) struct Seen {
    started: Instant,
    writes: Vec<Write>,
}

impl Seen {
    fn of(started: Instant, mut writes: Vec<Write>) -> Self {
        writes.sort_by_key(|write| write.ended);
        Self { started, writes }
    }

    fn acknowledged(&self) -> impl Iterator<Item = Row> {
        self.writes.iter().filter(|write| write.error.is_none()).map(|write| write.row)
    }

    /// Writes that were acknowledged.
    pub(crate) fn done(&self) -> usize {
        self.acknowledged().count()
    }

    /// Writes that failed.
    pub(crate) fn failed(&self) -> usize {
        self.writes.len() - self.done()
    }

    /// The longest that a client waited for an acknowledged write.
    pub(crate) fn longest_wait(&self) -> Duration {
        let done = self.writes.iter().filter(|write| write.error.is_none());
        done.map(|write| write.ended - write.began).max().unwrap_or_default()
    }

    /// The longest time in which no write of any client was acknowledged.
    pub(crate) fn longest_silence(&self) -> Duration {
        let done: Vec<_> = self.writes.iter().filter(|write| write.error.is_none()).collect();
        done.windows(2).map(|pair| pair[1].ended - pair[0].ended).max().unwrap_or_default()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes, {} failed, longest wait {}, longest without any {}",
            self.done(),
            self.failed(),
            seconds(self.longest_wait()),
            seconds(self.longest_silence())
        )?;
        for write in self.writes.iter().filter(|write| write.error.is_some()).take(10) {
            let at = seconds(write.ended - self.started);
            write!(f, "\n  at {at}, {:?}: {}", write.row, write.error.as_deref().unwrap_or(""))?;
        }
        Ok(())
    }
}

async fn client(
    number: usize,
    login: Login,
    table: String,
    log: Arc<Mutex<Vec<Write>>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connection: Option<Client> = None;
    // Not all in the same instant.
    let start = tokio::time::Instant::now() + PACE * u32::try_from(number).unwrap_or(0) / 10;
    let mut pace = tokio::time::interval_at(start, PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 1.. {
        tokio::select! {
            _ = pace.tick() => {}
            _ = stopped.changed() => return,
        }
        let began = Instant::now();
        let result = write(&mut connection, &login, &table, (number, count)).await;
        let failed = result.is_err();
        let error = result.err();
        let write = Write { row: (number, count), began, ended: Instant::now(), error };
        log.lock().unwrap_or_else(PoisonError::into_inner).push(write);
        if failed {
            connection = None;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// One write. Simple queries, for the poolers
/// of the lab pool by transaction and are older than PgBouncer's prepared statements.
async fn write(
    connection: &mut Option<Client>,
    login: &Login,
    table: &str,
    (client, number): Row,
) -> Result<(), String> {
    let insert = format!("insert into {table} values ({client}, {number})");
    // Transactions of several round trips too: a pooler that is paused lets them end.
    let statements = if number.is_multiple_of(3) {
        vec!["begin".to_owned(), insert, "commit".to_owned()]
    } else {
        vec![insert]
    };
    let whole = async {
        let client = match connection {
            Some(client) => client,
            None => connection.insert(login.connect().await?),
        };
        for statement in &statements {
            let answer = client.simple_query(statement).await;
            answer.map_err(|error| format!("{statement}: {}", super::sql::told(&error)))?;
        }
        Ok(())
    };
    match tokio::time::timeout(ANSWER, whole).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer in {} s", ANSWER.as_secs())),
    }
}

impl Login {
    /// A connection that stays until it is dropped.
    async fn connect(&self) -> Result<Client, String> {
        let (client, connection) = self
            .config(Duration::from_secs(5))
            .connect(NoTls)
            .await
            .map_err(|error| super::sql::told(&error))?;
        tokio::spawn(connection);
        Ok(client)
    }
}

//! The fleet of SSH connections: up to two for each server, opened when first needed, used by all,
//! replaced when dead.
//!
//! *control* carries commands, *streams* carries forwarded sockets. They are apart because one
//! stream can slow a whole connection down, and a probe must not wait for that.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reconcile_core::{lease::Claimant, model::HostName, ports::EffectError};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    connect::{self, Connection, Endpoint},
    exec::{self, Output},
    fault::{Fault, spoken},
    forward, lease, limits,
    target::{HostTarget, JumpTarget},
};

/// All servers that can be reached. Cheap to clone; connections are shared and close with the last.
#[derive(Clone)]
pub struct Ssh {
    inner: Arc<Inner>,
}

struct Inner {
    hosts: BTreeMap<HostName, Host>,
    jumps: HashMap<Through, Slot>,
    handshakes: Semaphore,
    /// Whose effects these are.
    claimant: std::sync::RwLock<Option<(String, Claimant)>>,
    /// How many effects were begun.
    effects: AtomicU64,
}

/// A jump host with what it is logged in to with.
type Through = (JumpTarget, Option<std::path::PathBuf>, bool, Option<std::path::PathBuf>);

struct Host {
    target: HostTarget,
    control: Slot,
    streams: Slot,
    probes: AtomicU64,
}

/// Which of a server's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Control,
    Streams,
}

/// How long sshd may take to notice that a session was closed, and how often it is asked.
const LEAVING: Duration = Duration::from_millis(200);
const LEAVING_TRIES: u32 = 5;

impl Ssh {
    /// A fleet that has not connected to anything yet.
    pub fn new(targets: impl IntoIterator<Item = HostTarget>) -> Self {
        let mut hosts = BTreeMap::new();
        let mut jumps = HashMap::new();
        for target in targets {
            if let Some(through) = through(&target) {
                jumps.entry(through).or_insert_with(Slot::default);
            }
            let host = Host {
                control: Slot::default(),
                streams: Slot::default(),
                probes: AtomicU64::new(0),
                target,
            };
            hosts.insert(host.target.name.clone(), host);
        }
        let handshakes = Semaphore::new(limits::HANDSHAKES);
        Self {
            inner: Arc::new(Inner {
                hosts,
                jumps,
                handshakes,
                claimant: std::sync::RwLock::default(),
                effects: AtomicU64::new(0),
            }),
        }
    }

    /// Effects from here on are refused by servers that know a newer holder of this cluster's lease.
    pub fn carry(&self, cluster: &str, claimant: &Claimant) {
        let mut place = self.inner.claimant.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some((cluster.to_owned(), claimant.clone()));
        drop(place);
        // Somebody else may have acted until now.
        self.count_effect();
    }

    /// The script of an effect, with the fence before it.
    pub(crate) fn fenced(&self, text: String) -> String {
        self.count_effect();
        let claimant = self.inner.claimant.read().unwrap_or_else(PoisonError::into_inner);
        match claimant.as_ref() {
            Some((cluster, claimant)) => lease::fenced(&text, cluster, claimant),
            None => text,
        }
    }

    /// Runs a shell script as root on a server: one command, the script on its standard input.
    /// `attempt` says in an error what it was for, such as `install packages on node1`.
    ///
    /// # Errors
    /// Whenever there is no exit status. A status other than 0 is for the caller to judge, except
    /// where `sudo` refused to run the script at all.
    ///
    /// # Guarantees
    /// The script runs only if all of it arrived. On the deadline, and when the future is dropped,
    /// the channel is closed.
    pub async fn run(
        &self,
        host: &HostName,
        attempt: &str,
        script: &str,
        deadline: Duration,
    ) -> Result<Output, EffectError> {
        self.run_inner(host, script, deadline).await.map_err(|fault| fault.at(host, attempt))
    }

    pub(crate) async fn run_inner(
        &self,
        name: &HostName,
        script: &str,
        deadline: Duration,
    ) -> Result<Output, Fault> {
        let host = self.host(name)?;
        let command = if host.target.needs_sudo() { "sudo -n sh -s" } else { "sh -s" };
        let stdin = Bytes::copy_from_slice(script.as_bytes());
        let end = Instant::now() + deadline;
        let starting = self.start(name);
        let (channel, permit) = timeout(deadline, starting).await.map_err(|_| {
            Fault::later(format!(
                "could not start a command within {}: connecting takes longer, or {} commands are \
                 running there already",
                spoken(deadline),
                limits::EXECS
            ))
        })??;
        let left = end.saturating_duration_since(Instant::now());
        let output = exec::run(channel, permit, command, stdin, left).await?;
        match refused_by_sudo(&output, &host.target) {
            Some(cause) => Err(Fault::after_change(cause)),
            None => Ok(output),
        }
    }

    /// A session channel on the control connection. A connection that turns out to be dead is
    /// replaced once: nothing was started on it yet.
    async fn start(
        &self,
        name: &HostName,
    ) -> Result<(russh::Channel<russh::client::Msg>, tokio::sync::OwnedSemaphorePermit), Fault>
    {
        let mut fresh = false;
        let mut tries = 0;
        loop {
            let connection = self.connection(name, Line::Control).await?;
            let permit = Arc::clone(&connection.execs).acquire_owned().await;
            let permit = permit.map_err(|_| Fault::soon("the connection is closing"))?;
            match forward::open_session(&connection).await {
                Ok(channel) => return Ok((channel, permit)),
                Err(_) if connection.is_closed() && !fresh => fresh = true,
                // Where sshd has no room for both, what only saves time gives way.
                Err(fault) if fault.cause == forward::NO_ROOM => {
                    let residents = timeout(limits::REAP, connection.residents.lock()).await;
                    let Ok(mut residents) = residents else { return Err(fault) };
                    tries += 1;
                    if !residents.leave() || tries > LEAVING_TRIES {
                        return Err(fault);
                    }
                    drop(residents);
                    tokio::time::sleep(LEAVING).await;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// A live connection to a server.
    pub(crate) async fn connection(
        &self,
        name: &HostName,
        line: Line,
    ) -> Result<Arc<Connection>, Fault> {
        let host = self.host(name)?;
        let slot = match line {
            Line::Control => &host.control,
            Line::Streams => &host.streams,
        };
        slot.get(async || self.inner.open(&host.target).await).await
    }

    fn host(&self, name: &HostName) -> Result<&Host, Fault> {
        let hosts = &self.inner.hosts;
        hosts.get(name).ok_or_else(|| Fault::after_change("this server is not in the inventory"))
    }

    pub(crate) fn target(&self, name: &HostName) -> Result<&HostTarget, Fault> {
        self.host(name).map(|host| &host.target)
    }

    /// Round trips that probes took so far, by server.
    pub fn round_trips(&self) -> BTreeMap<HostName, u64> {
        let hosts = &self.inner.hosts;
        hosts
            .iter()
            .map(|(name, host)| (name.clone(), host.probes.load(Ordering::Relaxed)))
            .collect()
    }

    /// An effect begins or ends.
    pub(crate) fn count_effect(&self) {
        self.inner.effects.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes with every effect on any server.
    pub(crate) fn effects(&self) -> u64 {
        self.inner.effects.load(Ordering::Relaxed)
    }

    pub(crate) fn count_probe(&self, name: &HostName) {
        if let Some(host) = self.inner.hosts.get(name) {
            host.probes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up the connections to a server that do not answer any more, so that the next use
    /// connects anew instead of waiting for their end.
    pub(crate) async fn drop_dead(&self, name: &HostName) {
        let Some(host) = self.inner.hosts.get(name) else { return };
        futures::future::join(host.control.drop_dead(), host.streams.drop_dead()).await;
    }

    /// Ends all connections. Later calls connect anew.
    pub async fn close(&self) {
        for host in self.inner.hosts.values() {
            host.control.clear().await;
            host.streams.clear().await;
        }
        for slot in self.inner.jumps.values() {
            slot.clear().await;
        }
    }
}

impl Inner {
    async fn open(&self, target: &HostTarget) -> Result<Connection, Fault> {
        let endpoint = Endpoint {
            address: target.address.clone(),
            port: target.port,
            user: target.user.clone(),
            identity_file: target.identity_file.clone(),
            agent: target.agent,
            host_key: target.host_key.clone(),
            known_hosts: target.known_hosts.clone(),
        };
        let Some(slot) = through(target).and_then(|through| self.jumps.get(&through)) else {
            return connect::open(&endpoint, None, &self.handshakes).await;
        };
        let jump = slot
            .get(async || self.open_jump(target).await)
            .await
            .map_err(|fault| Fault { cause: format!("the jump host: {}", fault.cause), ..fault })?;
        connect::open(&endpoint, Some(&jump), &self.handshakes).await
    }

    async fn open_jump(&self, target: &HostTarget) -> Result<Connection, Fault> {
        let Some(jump) = &target.jump else {
            return Err(Fault::after_change("no jump host is set"));
        };
        let endpoint = Endpoint {
            address: jump.host.clone(),
            port: jump.port,
            user: jump.user.clone(),
            identity_file: target.identity_file.clone(),
            agent: target.agent,
            host_key: jump.host_key.clone(),
            known_hosts: target.known_hosts.clone(),
        };
        connect::open(&endpoint, None, &self.handshakes).await
    }
}

fn through(target: &HostTarget) -> Option<Through> {
    let jump = target.jump.clone()?;
    Some((jump, target.identity_file.clone(), target.agent, target.known_hosts.clone()))
}

/// A place for one shared connection.
#[derive(Default)]
struct Slot {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    connection: Option<Arc<Connection>>,
    /// The last failure, for those who waited for that very try.
    failed: Option<(Instant, Fault)>,
}

impl Slot {
    async fn get(
        &self,
        open: impl AsyncFnOnce() -> Result<Connection, Fault>,
    ) -> Result<Arc<Connection>, Fault> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        match &state.connection {
            Some(connection) if !connection.is_closed() => return Ok(Arc::clone(connection)),
            Some(dead) => tracing::debug!(why = dead.why_ended(), "connecting anew"),
            None => {}
        }
        state.connection = None;
        if let Some((at, fault)) = &state.failed
            && *at >= asked
        {
            // It was tried while we waited: ten callers must not wait ten connect timeouts.
            return Err(fault.clone());
        }
        match open().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                state.connection = Some(Arc::clone(&connection));
                state.failed = None;
                Ok(connection)
            }
            Err(fault) => {
                state.failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    async fn drop_dead(&self) {
        let connection = self.state.lock().await.connection.clone();
        let Some(connection) = connection else { return };
        if timeout(limits::PONG, connection.handle.send_ping()).await.is_ok() {
            return;
        }
        let mut state = self.state.lock().await;
        if state.connection.as_ref().is_some_and(|now| Arc::ptr_eq(now, &connection)) {
            state.connection = None;
        }
        drop(state);
        // The goodbye waits for whatever else is to be sent there.
        tokio::spawn(async move { connection.disconnect().await });
    }

    async fn clear(&self) {
        let connection = self.state.lock().await.connection.take();
        if let Some(connection) = connection {
            connection.disconnect().await;
        }
    }
}

/// The cause in plain words, where the script never ran because of sudo.
fn refused_by_sudo(output: &Output, target: &HostTarget) -> Option<String> {
    if output.status == 0 || !target.needs_sudo() {
        return None;
    }
    let first = output.stderr.lines().find(|line| !line.trim().is_empty())?;
    let missing = output.status == 127 && first.contains("sudo");
    if missing {
        return Some("sudo is not installed there: install it, or log in as root".to_owned());
    }
    (first.starts_with("sudo") || first.starts_with("Sorry, user")).then(|| {
        format!(
            "{} may not run commands as root without a password ({first}): give it `NOPASSWD: ALL` \
             in sudoers, or log in as root",
            target.user
        )
    })
}

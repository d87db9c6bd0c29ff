//! An sshd in this process, on a loopback port. It understands scripts of a few words, one a line:
//! `say TEXT`, `err TEXT`, `status N`, `signal`, `vanish` (close without a status), `hang`.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reconcile_hosts::HostTarget;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, Sig,
    keys::{Algorithm, PrivateKey, key::safe_rng, ssh_key::LineEnding},
    server::{self, Auth, ChannelOpenHandle, Handle, Msg, Session, VerifiedPublicKey},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
};

/// What happened, for tests to look at.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) logins: AtomicUsize,
    pub(crate) commands: Mutex<Vec<String>>,
    pub(crate) sockets: Mutex<Vec<String>>,
    /// Terminals: kind, columns, rows; of a new size without the kind.
    pub(crate) terminals: Mutex<Vec<(String, u32, u32)>>,
    /// Sessions open now, and the most there ever were.
    pub(crate) sessions: AtomicUsize,
    pub(crate) most_sessions: AtomicUsize,
    pub(crate) closed_channels: watch::Sender<usize>,
    /// Of these, forwarded ones that the client closed before we did.
    pub(crate) cut_off: AtomicUsize,
    /// `hang` scripts wait for this.
    pub(crate) go_on: Notify,
}

/// How the server behaves.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    pub(crate) refuse_login: bool,
    pub(crate) refuse_sockets: bool,
    pub(crate) refuse_sudo: bool,
    pub(crate) refuse_terminals: bool,
    /// Cuts this many connections before the key exchange.
    pub(crate) cut_short: usize,
    /// The key that may log in; None makes one up.
    pub(crate) user_key: Option<PrivateKey>,
}

pub(crate) struct FakeSshd {
    pub(crate) seen: Arc<Seen>,
    pub(crate) port: u16,
    pub(crate) host_key: PrivateKey,
    pub(crate) user_key: PrivateKey,
    pub(crate) folder: tempfile::TempDir,
    handles: Arc<Mutex<Vec<Handle>>>,
    accepting: tokio::task::JoinHandle<()>,
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

impl FakeSshd {
    pub(crate) async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host_key = new_key();
        let user_key = manners.user_key.clone().unwrap_or_else(new_key);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("id"), &*user_key.to_openssh(LineEnding::LF).unwrap())
            .unwrap();
        let seen = Arc::new(Seen::default());
        let handles = Arc::new(Mutex::new(Vec::new()));
        let config = Arc::new(server::Config {
            keys: vec![host_key.clone()],
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            nodelay: true,
            ..server::Config::default()
        });
        let accepting = tokio::spawn(accept(
            listener,
            config,
            manners,
            Arc::clone(&seen),
            Arc::clone(&handles),
            user_key.public_key().key_data().clone(),
        ));
        Self { seen, port, host_key, user_key, folder, handles, accepting }
    }

    /// The way to this server for root.
    pub(crate) fn target(&self, name: &str) -> HostTarget {
        HostTarget {
            name: name.into(),
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: "root".to_owned(),
            identity_file: Some(self.identity()),
            agent: false,
            jump: None,
            host_key: Some(self.host_key.public_key().to_openssh().unwrap()),
            known_hosts: None,
            sudo: true,
        }
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.folder.path().join("id")
    }

    /// Ends every connection, as a restart of sshd does not, but a reboot does.
    pub(crate) async fn disconnect_all(&self) {
        let handles: Vec<Handle> = self.handles.lock().unwrap().drain(..).collect();
        for handle in handles {
            let reason = russh::Disconnect::ByApplication;
            handle.disconnect(reason, "rebooting".to_owned(), String::new()).await.unwrap();
        }
    }

    /// Waits until this many channels were closed by the client.
    pub(crate) async fn closed_channels(&self, count: usize) {
        let mut closed = self.seen.closed_channels.subscribe();
        closed.wait_for(|closed| *closed >= count).await.unwrap();
    }
}

impl Drop for FakeSshd {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    config: Arc<server::Config>,
    manners: Manners,
    seen: Arc<Seen>,
    handles: Arc<Mutex<Vec<Handle>>>,
    user_key: russh::keys::ssh_key::public::KeyData,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let number = seen.connections.fetch_add(1, Ordering::SeqCst);
        if number < manners.cut_short {
            drop(stream);
            continue;
        }
        let peer = Peer {
            manners: manners.clone(),
            seen: Arc::clone(&seen),
            user_key: user_key.clone(),
            modes: HashMap::new(),
        };
        let (config, handles) = (Arc::clone(&config), Arc::clone(&handles));
        tokio::spawn(async move {
            if let Ok(session) = server::run_stream(config, stream, peer).await {
                handles.lock().unwrap().push(session.handle());
                let _ended = session.await;
            }
        });
    }
}

/// What a channel does with what it gets.
enum Mode {
    Script(Vec<u8>),
    Echo,
    Ignore,
}

struct Peer {
    manners: Manners,
    seen: Arc<Seen>,
    user_key: russh::keys::ssh_key::public::KeyData,
    modes: HashMap<ChannelId, Mode>,
}

impl Peer {
    /// Closes a channel. russh does not call back for a close that we began.
    fn close(&mut self, id: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        session.close(id)?;
        self.ended(id);
        Ok(())
    }

    fn ended(&mut self, id: ChannelId) {
        let Some(mode) = self.modes.remove(&id) else { return };
        if matches!(mode, Mode::Script(_)) {
            self.seen.sessions.fetch_sub(1, Ordering::SeqCst);
        }
        self.seen.closed_channels.send_modify(|closed| *closed += 1);
    }

    fn run(
        &mut self,
        id: ChannelId,
        script: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        for line in script.lines() {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "say" => session.data(id, format!("{rest}\n"))?,
                "err" => session.extended_data(id, 1, format!("{rest}\n"))?,
                "status" => {
                    session.exit_status_request(id, rest.parse().unwrap())?;
                    session.eof(id)?;
                    self.close(id, session)?;
                }
                "signal" => {
                    session.exit_signal_request(id, Sig::KILL, false, "", "")?;
                    self.close(id, session)?;
                }
                "vanish" => self.close(id, session)?,
                "hang" => {
                    let (seen, handle) = (Arc::clone(&self.seen), session.handle());
                    tokio::spawn(async move {
                        seen.go_on.notified().await;
                        let _gone = handle.exit_status_request(id, 0).await;
                        let _gone = handle.close(id).await;
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl server::Handler for Peer {
    type Error = russh::Error;

    async fn auth_publickey(
        &mut self,
        _user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.seen.logins.fetch_add(1, Ordering::SeqCst);
        let known = *key.public_key.key_data() == self.user_key;
        Ok(if known && !self.manners.refuse_login { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let now = self.seen.sessions.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_sessions.fetch_max(now, Ordering::SeqCst);
        self.modes.insert(channel.id(), Mode::Script(Vec::new()));
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let id = channel.id();
        match host {
            "echo" => {
                self.modes.insert(id, Mode::Echo);
                reply.accept().await;
            }
            "flood" => {
                self.modes.insert(id, Mode::Ignore);
                reply.accept().await;
                let handle = session.handle();
                tokio::spawn(async move {
                    let block = Bytes::from(vec![b'x'; 32 * 1024]);
                    while handle.data(id, block.clone()).await.is_ok() {}
                });
            }
            "closed" => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            "forbidden" => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
            _ => {
                self.modes.insert(id, Mode::Ignore);
                let port = u16::try_from(port).unwrap();
                let mut to = TcpStream::connect((host, port)).await.unwrap();
                reply.accept().await;
                tokio::spawn(async move {
                    let mut from = channel.into_stream();
                    let _ended = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.seen.sockets.lock().unwrap().push(path.to_owned());
        if self.manners.refuse_sockets {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        } else {
            self.modes.insert(channel.id(), Mode::Echo);
            reply.accept().await;
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        kind: &str,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.manners.refuse_terminals {
            return session.channel_failure(id);
        }
        self.seen.terminals.lock().unwrap().push((kind.to_owned(), columns, rows));
        session.channel_success(id)
    }

    async fn window_change_request(
        &mut self,
        _id: ChannelId,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.seen.terminals.lock().unwrap().push((String::new(), columns, rows));
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let command = String::from_utf8(command.to_vec()).unwrap();
        session.channel_success(id)?;
        if self.manners.refuse_sudo && command.starts_with("sudo ") {
            session.extended_data(id, 1, "sudo: a password is required\n")?;
            session.exit_status_request(id, 1)?;
            session.eof(id)?;
            self.close(id, session)?;
        } else if command.ends_with("dial-stdio") {
            self.modes.insert(id, Mode::Echo);
        }
        self.seen.commands.lock().unwrap().push(command);
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.modes.get_mut(&id) {
            Some(Mode::Script(text)) => text.extend_from_slice(data),
            Some(Mode::Echo) => session.data(id, data.to_vec())?,
            _ => {}
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.modes.get_mut(&id) {
            Some(Mode::Script(text)) => {
                let script = String::from_utf8(std::mem::take(text)).unwrap();
                self.run(id, &script, session)?;
            }
            Some(Mode::Echo) => {
                session.eof(id)?;
                self.close(id, session)?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if matches!(self.modes.get(&id), Some(Mode::Echo)) {
            self.seen.cut_off.fetch_add(1, Ordering::SeqCst);
        }
        self.ended(id);
        Ok(())
    }
}

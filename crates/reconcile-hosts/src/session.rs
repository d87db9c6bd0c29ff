//! A program on a server that somebody talks to: input and both outputs as they come, a terminal
//! where there is one, and its exit status.
//!
//! Nothing is kept: what the other side does not take in time holds the connection for streams up,
//! so a session is for a process that does nothing else on it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use reconcile_core::{model::HostName, ports::EffectError};
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, client::Msg};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    Ssh,
    fault::{Fault, spoken},
    forward, limits,
    shell::{quote, words},
    ssh::Line,
};

/// How long the request for a signal may take.
const SIGNAL: Duration = Duration::from_secs(10);
/// Standard error is looked through this far for the process's own word.
const PRELUDE: usize = 4096;
/// What the process writes first, where it has no terminal.
const PID: &[u8] = b"@@pid ";

/// The terminal of whoever talks to the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its kind, as `TERM` has it.
    pub kind: String,
    /// Its size.
    pub size: (u32, u32),
}

/// What to run, as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// System user.
    pub user: String,
    /// Program and arguments.
    pub words: Vec<String>,
    /// Its environment, beside `HOME`.
    pub environment: Vec<(String, String)>,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// On standard output; with a terminal all of it.
    Output(Bytes),
    /// On standard error.
    Error(Bytes),
    /// It ended with this status.
    Ended(u32),
}

/// A running program; dropped, its channel is closed, and a terminal hangs up.
pub struct Session {
    host: HostName,
    attempt: String,
    read: ChannelReadHalf,
    write: Arc<ChannelWriteHalf<Msg>>,
    prelude: Option<BytesMut>,
    pid: Option<u32>,
    /// How it ended, until its channel is closed.
    ended: Option<Result<u32, Fault>>,
    _permit: OwnedSemaphorePermit,
}

/// The way in to a running program.
#[derive(Clone)]
pub struct Input {
    write: Arc<ChannelWriteHalf<Msg>>,
}

impl Input {
    /// Sends input. False: nobody takes it any more.
    pub async fn send(&self, bytes: Bytes) -> bool {
        self.write.data_bytes(bytes).await.is_ok()
    }
    /// Says that there is no more.
    pub async fn end(&self) {
        let _it_may_have_ended = self.write.eof().await;
    }
    /// The terminal has another size.
    pub async fn resize(&self, (columns, rows): (u32, u32)) {
        let _it_may_have_ended = self.write.window_change(columns, rows, 0, 0).await;
    }
}

impl Ssh {
    /// Starts a program as a user of the server. `attempt` says in an error what it was for.
    ///
    /// # Errors
    /// Where the server cannot be reached or runs nothing for us.
    pub async fn session(
        &self,
        host: &HostName,
        attempt: &str,
        program: &Program,
        terminal: Option<&Terminal>,
    ) -> Result<Session, EffectError> {
        let session = self.session_inner(host, attempt, program, terminal).await;
        session.map_err(|fault| fault.at(host, attempt))
    }

    async fn session_inner(
        &self,
        host: &HostName,
        attempt: &str,
        program: &Program,
        terminal: Option<&Terminal>,
    ) -> Result<Session, Fault> {
        let target = self.target(host)?;
        let sudo = target.needs_sudo();
        if !sudo && target.user != "root" {
            return Err(Fault::after_change(
                "the login user is not root and sudo is off for this server",
            ));
        }
        let command = command(program, sudo, terminal.is_none());
        let connection = self.connection(host, Line::Streams).await?;
        let permit = Arc::clone(&connection.execs).acquire_owned().await;
        let permit = permit.map_err(|_| Fault::soon("the connection is closing"))?;
        let channel = forward::open_session(&connection).await?;
        let (read, write) = channel.split();
        let mut session = Session {
            host: host.clone(),
            attempt: attempt.to_owned(),
            read,
            write: Arc::new(write),
            prelude: terminal.is_none().then(BytesMut::new),
            pid: None,
            ended: None,
            _permit: permit,
        };
        if let Some(Terminal { kind, size: (columns, rows) }) = terminal {
            let modes = [(Pty::IUTF8, 1)];
            let asked = session.write.request_pty(true, kind, *columns, *rows, 0, 0, &modes);
            if asked.await.is_err() || !session.granted().await? {
                return Err(Fault::after_change(
                    "sshd gives no terminal (see PermitTTY in sshd_config, and no-pty on the key)",
                ));
            }
        }
        if session.write.exec(true, command).await.is_err() || !session.granted().await? {
            return Err(Fault::after_change(
                "sshd refuses to run commands for this login (ForceCommand, or a restricted key?)",
            ));
        }
        Ok(session)
    }

    /// Sends a signal to a process of a session, as root.
    pub async fn signal(&self, host: &HostName, pid: u32, name: &str) -> Result<(), EffectError> {
        let attempt = format!("send SIG{name} to process {pid} on {host}");
        // One that has ended meanwhile needs none.
        let script = format!("kill -{name} {pid} 2>/dev/null; true\n");
        self.run(host, &attempt, &script, SIGNAL).await.map(drop)
    }
}

impl Session {
    /// The way in.
    pub fn input(&self) -> Input {
        Input { write: Arc::clone(&self.write) }
    }

    /// The program's process on the server, once it has told; never with a terminal, which sends
    /// signals by itself.
    pub fn process(&self) -> Option<u32> {
        self.pid
    }

    /// What comes next. Cancelled, nothing is lost.
    ///
    /// # Errors
    /// Where the connection is lost, or the program was killed by a signal.
    pub async fn next(&mut self) -> Result<Said, EffectError> {
        loop {
            let message = self.read.wait().await;
            match message {
                Some(ChannelMsg::Data { data }) => return Ok(Said::Output(data)),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    if let Some(data) = self.after_prelude(data) {
                        return Ok(Said::Error(data));
                    }
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => self.ended = Some(Ok(exit_status)),
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    let cause = format!("it was killed by signal {signal_name:?}");
                    self.ended = Some(Err(Fault::later(cause)));
                }
                Some(ChannelMsg::Close) | None => {
                    // What was taken for its own word may be an error of whoever was to start it.
                    if let Some(rest) = self.prelude.take().filter(|rest| !rest.is_empty()) {
                        return Ok(Said::Error(rest.freeze()));
                    }
                    let lost = || Err(Fault::soon("the SSH connection was lost"));
                    let ended = self.ended.take().unwrap_or_else(lost);
                    let (host, attempt) = (&self.host, &self.attempt);
                    return ended.map(Said::Ended).map_err(|fault| fault.at(host, attempt));
                }
                Some(_) => {}
            }
        }
    }

    /// Standard error without the process's own word.
    fn after_prelude(&mut self, data: Bytes) -> Option<Bytes> {
        let Some(mut text) = self.prelude.take() else { return Some(data) };
        text.extend_from_slice(&data);
        let start = text.windows(PID.len()).position(|window| window == PID);
        let word = start.and_then(|start| {
            let length = text[start..].iter().position(|byte| *byte == b'\n')?;
            Some((start, start + length))
        });
        if let Some((start, end)) = word {
            let digits = String::from_utf8_lossy(&text[start + PID.len()..end]).into_owned();
            self.pid = digits.trim().parse().ok();
            let after = text.split_off(end + 1);
            text.truncate(start);
            text.extend_from_slice(&after);
        } else if text.len() < PRELUDE {
            self.prelude = Some(text);
            return None;
        }
        Some(text.freeze()).filter(|text| !text.is_empty())
    }

    async fn granted(&mut self) -> Result<bool, Fault> {
        let answer = async {
            loop {
                match self.read.wait().await {
                    Some(ChannelMsg::Success) => return Ok(true),
                    Some(ChannelMsg::Failure) => return Ok(false),
                    Some(ChannelMsg::Close) | None => {
                        return Err(Fault::soon("the SSH connection was lost"));
                    }
                    Some(_) => {}
                }
            }
        };
        timeout(limits::CHANNEL, answer).await.unwrap_or_else(|_| {
            Err(Fault::later(format!("sshd did not answer within {}", spoken(limits::CHANNEL))))
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let write = Arc::clone(&self.write);
        // Outside of a runtime the connection is gone as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _connection_may_be_gone = write.close().await;
            });
        }
    }
}

/// The command line: `setpriv` becomes the user and then the program, so that the process that is
/// told is the program's own.
fn command(program: &Program, sudo: bool, tells: bool) -> String {
    let mut inner = String::from("cd /; umask 077; ");
    if tells {
        inner.push_str("printf '@@pid %s\\n' $$ >&2; ");
    }
    let user = quote(&program.user);
    let _infallible = write!(
        inner,
        "exec setpriv --reuid={user} --regid={user} --init-groups env HOME=\"$(getent passwd {user} | cut -d: -f6)\""
    );
    for (name, value) in &program.environment {
        let _infallible = write!(inner, " {name}={}", quote(value));
    }
    inner.push_str(&words(&program.words));
    let sudo = if sudo { "sudo -n " } else { "" };
    format!("{sudo}sh -c {}", quote(&inner))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let program = Program {
            user: "postgres".to_owned(),
            words: ["echo", "it's $(x)", ""].map(str::to_owned).to_vec(),
            environment: vec![("A".to_owned(), "b c".to_owned())],
        };
        let command = command(&program, true, true);
        let start = "sudo -n sh -c 'cd /; umask 077; printf '\\''@@pid %s\\n'\\'' $$ >&2; exec ";
        assert!(command.starts_with(start), "{command}");
        // What a shell makes of it, twice.
        let harmless = command.replace("sudo -n ", "").replace(
            "exec setpriv --reuid=postgres --regid=postgres --init-groups env",
            "exec env",
        );
        let output = std::process::Command::new("sh").args(["-c", &harmless]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "it's $(x) \n");
        assert!(output.stderr.starts_with(b"@@pid "));
    }
}

//! One command over one channel: script in, status and output out.
//!
//! The channel belongs to a task of its own that always drains it, whatever becomes of the caller:
//! a channel that nobody reads would stop the whole connection.

use std::time::Duration;

use bytes::Bytes;
use russh::{Channel, ChannelMsg, client::Msg};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    fault::{Fault, one_line, spoken, tail},
    limits,
};

/// What a command left behind. There is one only with an exit status: a command that was killed or
/// whose connection broke is an error, never a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit status.
    pub status: u32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, its last 64 KiB.
    pub stderr: String,
}

/// Runs `command` on an open channel with `stdin`, until `deadline`.
pub(crate) async fn run(
    channel: Channel<Msg>,
    permit: OwnedSemaphorePermit,
    command: &'static str,
    stdin: Bytes,
    deadline: Duration,
) -> Result<Output, Fault> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(own(channel, permit, command, stdin, Instant::now() + deadline, sender));
    match receiver.await {
        Ok(Ended { outcome, stdout, stderr }) => {
            let stderr = String::from_utf8_lossy(&stderr).into_owned();
            judge(&outcome, stdout, stderr, deadline)
        }
        Err(_) => Err(Fault::soon("the task that ran the command ended early")),
    }
}

/// How a command ended.
#[derive(Debug)]
enum Outcome {
    Status(u32),
    Signal(String),
    /// The channel closed and said nothing.
    Silent,
    Refused,
    Deadline,
    Overflow,
}

struct Ended {
    outcome: Outcome,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Owns the channel from first to last; the slot stays taken until sshd let go of the session.
async fn own(
    channel: Channel<Msg>,
    permit: OwnedSemaphorePermit,
    command: &'static str,
    stdin: Bytes,
    mut deadline: Instant,
    mut sender: oneshot::Sender<Ended>,
) {
    let (mut read, write) = channel.split();
    let mut stdout = Vec::new();
    let mut stderr = Vec::new();
    let mut outcome = None;
    let mut feed = Box::pin(async {
        write.exec(true, command).await?;
        write.data_bytes(stdin).await?;
        write.eof().await
    });
    let mut all_sent = false;
    let mut closed = false;
    while !closed {
        tokio::select! {
            message = read.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    if stdout.len() + data.len() > limits::STDOUT {
                        outcome = Some(Outcome::Overflow);
                        break;
                    }
                    stdout.extend_from_slice(&data);
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => keep_end(&mut stderr, &data),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    outcome = Some(Outcome::Status(exit_status));
                    // A daemon that kept our pipes would hold the channel open for ever.
                    deadline = deadline.min(Instant::now() + limits::LINGER);
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    outcome = Some(Outcome::Signal(format!("{signal_name:?}")));
                }
                Some(ChannelMsg::Failure) => {
                    outcome = Some(Outcome::Refused);
                    break;
                }
                Some(ChannelMsg::Close) | None => closed = true,
                Some(_) => {}
            },
            // A command that ends without reading its input is judged by its status.
            _ = &mut feed, if !all_sent => all_sent = true,
            () = tokio::time::sleep_until(deadline) => {
                outcome.get_or_insert(Outcome::Deadline);
                break;
            }
            // Nobody waits for it any more.
            () = sender.closed() => break,
        }
    }
    let outcome = outcome.unwrap_or(Outcome::Silent);
    let _caller_may_be_gone = sender.send(Ended { outcome, stdout, stderr });
    drop(feed);
    let _connection_may_be_gone = write.close().await;
    if !closed {
        // Drained, not kept, until sshd closes its side: then MaxSessions has room again.
        let drain = async {
            while let Some(message) = read.wait().await {
                if matches!(message, ChannelMsg::Close) {
                    break;
                }
            }
        };
        let _cut_off = timeout_at(Instant::now() + limits::REAP, drain).await;
    }
    drop(permit);
}

/// Appends, and forgets the beginning beyond the limit.
fn keep_end(kept: &mut Vec<u8>, data: &[u8]) {
    kept.extend_from_slice(data);
    if kept.len() > 2 * limits::STDERR {
        kept.drain(..kept.len() - limits::STDERR);
    }
}

fn judge(
    outcome: &Outcome,
    stdout: Vec<u8>,
    stderr: String,
    deadline: Duration,
) -> Result<Output, Fault> {
    let last = tail(&stderr, limits::STDERR_LINES);
    let doing = doing(&stderr);
    let fault = match outcome {
        Outcome::Status(status) => return Ok(Output { status: *status, stdout, stderr }),
        Outcome::Signal(name) => {
            Fault::later(format!("the remote command was killed by signal {name}{doing}"))
        }
        Outcome::Silent => Fault::soon(format!(
            "the connection ended before the remote command did{doing}: whether it took effect is \
             not known"
        )),
        Outcome::Refused => Fault::after_change(
            "sshd refuses to run commands for this login (ForceCommand, or a restricted key?)",
        ),
        Outcome::Deadline => Fault::later(format!(
            "the remote command did not end within {}{doing}; its channel was closed",
            spoken(deadline)
        )),
        Outcome::Overflow => Fault::after_change(format!(
            "the remote command wrote more than {} MiB{doing}",
            limits::STDOUT / 1024 / 1024
        )),
    };
    Err(fault.with_stderr(last))
}

/// What the script said last that it was doing (`@@at …` on standard error).
fn doing(stderr: &str) -> String {
    stderr
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("@@at "))
        .map_or_else(String::new, |step| format!(" while it was at: {}", one_line(step)))
}

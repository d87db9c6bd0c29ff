//! Byte streams through a connection, each with a task of its own that keeps the channel drained.
//!
//! russh stops reading the whole connection while one channel's queue is full, and it re-opens a
//! channel's window on receipt. So a stream's reader must never be able to leave data in that
//! queue: the task takes everything at once, holds it up to a limit, and gives up the stream (only
//! that one) beyond it.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use reconcile_dial::BoxStream;
use russh::{
    Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, client::Msg,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf},
    sync::{OwnedSemaphorePermit, oneshot},
    time::timeout,
};

use crate::{
    connect::Connection,
    fault::{Fault, one_line, spoken, tail},
    limits,
};

/// What is said where a connection has as many sessions as sshd allows.
pub(crate) const NO_ROOM: &str = "sshd refuses another session: is its MaxSessions below 10?";

/// What lies between the task and the stream's user.
const PIPE: usize = 64 * 1024;

/// Opens a stream to a TCP port as the server dials it.
pub(crate) async fn open_tcp(
    connection: &Arc<Connection>,
    host: &str,
    port: u16,
) -> Result<BoxStream, Fault> {
    let host = host.to_owned();
    let channel = opened(connection, "AllowTcpForwarding", async move |connection| {
        let handle = &connection.handle;
        handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0).await
    });
    Ok(adopt(channel.await?, None, "the forwarded connection"))
}

/// Opens a stream to a Unix socket.
pub(crate) async fn open_unix(
    connection: &Arc<Connection>,
    path: &str,
) -> Result<BoxStream, Fault> {
    let path = path.to_owned();
    let channel = opened(connection, "AllowStreamLocalForwarding", async move |connection| {
        connection.handle.channel_open_direct_streamlocal(path).await
    });
    Ok(adopt(channel.await?, None, "the forwarded socket"))
}

/// Opens a session channel, for a command.
pub(crate) async fn open_session(connection: &Arc<Connection>) -> Result<Channel<Msg>, Fault> {
    opened(connection, "MaxSessions", async |connection| {
        connection.handle.channel_open_session().await
    })
    .await
}

/// Runs a command whose standard input and output are the stream.
pub(crate) async fn open_command(
    connection: &Arc<Connection>,
    permit: OwnedSemaphorePermit,
    command: &'static str,
) -> Result<BoxStream, Fault> {
    let channel = open_session(connection).await?;
    channel
        .exec(false, command)
        .await
        .map_err(|_| Fault::soon(connection.why_ended().to_owned()))?;
    Ok(adopt(channel, Some(permit), command))
}

/// Waits for a channel. The opening runs in a task of its own: if the caller goes away or gives
/// up, a channel that opens after all is closed instead of staying open on the server.
async fn opened<F>(
    connection: &Arc<Connection>,
    option: &str,
    open: impl FnOnce(Arc<Connection>) -> F + Send + 'static,
) -> Result<Channel<Msg>, Fault>
where
    F: Future<Output = Result<Channel<Msg>, russh::Error>> + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let opening = open(Arc::clone(connection));
    tokio::spawn(async move {
        if let Err(Ok(unwanted)) = sender.send(opening.await) {
            let _connection_may_be_gone = unwanted.close().await;
        }
    });
    match timeout(limits::CHANNEL, receiver).await {
        Ok(Ok(Ok(channel))) => Ok(channel),
        Ok(Ok(Err(russh::Error::ChannelOpenFailure(reason)))) => Err(refused(&reason, option)),
        Ok(_) => Err(Fault::soon(connection.why_ended().to_owned())),
        Err(_) => Err(Fault::later(format!(
            "sshd did not open the channel within {}",
            spoken(limits::CHANNEL)
        ))),
    }
}

/// sshd gives a number and no text: what it means for people.
fn refused(reason: &ChannelOpenFailure, option: &str) -> Fault {
    match reason {
        ChannelOpenFailure::ConnectFailed if option == "MaxSessions" => Fault::later(NO_ROOM),
        // A socket may also be somebody else's; a port is open to all.
        ChannelOpenFailure::ConnectFailed if option == "AllowTcpForwarding" => {
            Fault::later("nothing accepts the connection there")
        }
        ChannelOpenFailure::ConnectFailed => {
            Fault::later("nothing accepts the connection there, or the login user may not open it")
        }
        ChannelOpenFailure::AdministrativelyProhibited => Fault::after_change(format!(
            "sshd forbids it (see {option} and DisableForwarding in sshd_config, and `restrict` on \
             the key)"
        )),
        other => Fault::later(format!("sshd refuses the channel ({other:?})")),
    }
}

/// The user's end of a stream. Dropping it closes the channel.
struct Forwarded {
    pipe: DuplexStream,
    error: Arc<OnceLock<String>>,
    /// Dropped with the stream, which the task notices at once.
    _alive: oneshot::Sender<()>,
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        if buf.filled().len() == before
            && buf.remaining() > 0
            && let Some(error) = self.error.get()
        {
            return Poll::Ready(Err(io::Error::other(error.clone())));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Hands the channel to a task and returns the user's end.
fn adopt(
    channel: Channel<Msg>,
    permit: Option<OwnedSemaphorePermit>,
    what: &'static str,
) -> BoxStream {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let (alive, gone) = oneshot::channel();
    let error = Arc::new(OnceLock::new());
    let (mut read, write) = channel.split();
    let told = Arc::clone(&error);
    let is_command = permit.is_some();
    tokio::spawn(async move {
        let mut ours = ours;
        if let Err(text) = pump(&mut read, &write, &mut ours, gone, what, is_command).await {
            let _first_error_stays = told.set(text);
        }
        // Only now, so that the end of the stream is never seen before its error.
        drop(ours);
        if is_command || !part(&mut read, &write).await {
            let _connection_may_be_gone = write.close().await;
        }
        drop(permit);
    });
    Box::new(Forwarded { pipe: theirs, error, _alive: alive })
}

/// Has the server close a channel, after its service was told that nothing more comes. russh 0.65 forgets a
/// channel only there: of one that we close first it keeps the queue as long as the connection lives. True
/// where that came to pass.
async fn part(read: &mut ChannelReadHalf, write: &ChannelWriteHalf<Msg>) -> bool {
    let parted = async {
        write.eof().await.ok()?;
        loop {
            match read.wait().await {
                Some(ChannelMsg::Close) | None => return Some(()),
                Some(_) => {}
            }
        }
    };
    matches!(timeout(limits::PARTING, parted).await, Ok(Some(())))
}

/// Moves bytes both ways until one side is done. An error is for the user to read.
async fn pump(
    read: &mut ChannelReadHalf,
    write: &ChannelWriteHalf<Msg>,
    pipe: &mut DuplexStream,
    mut gone: oneshot::Receiver<()>,
    what: &str,
    is_command: bool,
) -> Result<(), String> {
    let (mut from_user, mut to_user) = tokio::io::split(pipe);
    let mut up = pin!(async {
        let mut buffer = BytesMut::with_capacity(PIPE);
        while let Ok(1..) = from_user.read_buf(&mut buffer).await {
            if write.data_bytes(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
        let _connection_may_be_gone = write.eof().await;
    });
    let mut up_done = false;
    let mut unread = Unread::default();
    let mut stderr = Vec::new();
    let mut status = None;
    let mut ended = false;
    let mut shut = false;
    loop {
        if ended && !shut && unread.chunks.is_empty() {
            shut = true;
            if is_command {
                // Its status comes next, and may be an error to tell: let it end.
                let _connection_may_be_gone = write.eof().await;
            } else {
                let _user_may_be_gone = to_user.shutdown().await;
            }
        }
        tokio::select! {
            message = read.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    if unread.bytes + data.len() > limits::UNREAD {
                        return Err(format!(
                            "{what} was given up: its reader left more than {} MiB unread",
                            limits::UNREAD / 1024 / 1024
                        ));
                    }
                    unread.push(data);
                }
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    if stderr.len() < limits::STDERR {
                        stderr.extend_from_slice(&data);
                    }
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Eof) => ended = true,
                Some(ChannelMsg::Close) => break,
                Some(_) => {}
                None => {
                    // No Close came: the connection itself is gone.
                    flush(&mut unread, &mut to_user, &mut gone).await;
                    return Err(format!("{what} ended: the SSH connection was lost"));
                }
            },
            written = write_some(&mut to_user, &unread), if !unread.chunks.is_empty() => {
                match written {
                    Ok(count) => unread.advance(count),
                    Err(_) => return Ok(()),
                }
            }
            () = &mut up, if !up_done => up_done = true,
            _ = &mut gone => return Ok(()),
        }
    }
    flush(&mut unread, &mut to_user, &mut gone).await;
    match status {
        None | Some(0) => Ok(()),
        Some(status) => {
            let said = one_line(&tail(&String::from_utf8_lossy(&stderr), 3));
            Err(format!("{what} ended with status {status}: {said}"))
        }
    }
}

/// Gives the user what is left, unless the user is gone.
async fn flush(
    unread: &mut Unread,
    to_user: &mut (impl AsyncWrite + Unpin),
    gone: &mut oneshot::Receiver<()>,
) {
    while !unread.chunks.is_empty() {
        tokio::select! {
            written = write_some(to_user, unread) => match written {
                Ok(count) => unread.advance(count),
                Err(_) => return,
            },
            _ = &mut *gone => return,
        }
    }
}

async fn write_some(to: &mut (impl AsyncWrite + Unpin), unread: &Unread) -> io::Result<usize> {
    match unread.chunks.front() {
        Some(chunk) => to.write(chunk).await,
        None => Ok(0),
    }
}

/// What came and was not yet taken.
#[derive(Default)]
struct Unread {
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Unread {
    fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }
    fn advance(&mut self, count: usize) {
        self.bytes -= count;
        if let Some(chunk) = self.chunks.front_mut() {
            drop(chunk.split_to(count));
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_closed_is_no_matter_of_permission() {
        let failed = |option| refused(&ChannelOpenFailure::ConnectFailed, option).cause;
        assert_eq!(failed("AllowTcpForwarding"), "nothing accepts the connection there");
        assert!(failed("AllowStreamLocalForwarding").contains("the login user may not open it"));
        assert_eq!(failed("MaxSessions"), NO_ROOM);
        let forbidden =
            refused(&ChannelOpenFailure::AdministrativelyProhibited, "AllowTcpForwarding");
        assert!(forbidden.cause.contains("sshd forbids it"), "{}", forbidden.cause);
    }
}

//! Every limit of the SSH side, each with its reason.

use std::time::Duration;

/// A quiet connection is asked for a sign of life this often. Short enough to notice a dead server
/// before a pass's deadlines do, long enough to be no load.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(15);
/// This many unanswered questions end the connection: a switch or a busy server may be away for
/// half a minute.
pub(crate) const KEEPALIVE_MAX: usize = 3;
/// TCP connect, through a jump host as well. A server that is on answers within milliseconds; one
/// retransmission of a lost SYN takes 1 to 3 s.
pub(crate) const TCP: Duration = Duration::from_secs(5);
/// Key exchange. It is two round trips and some arithmetic; a server under full load may take seconds.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(15);
/// Login. PAM, LDAP or a slow name service on the server may hold it up; an agent may ask its owner.
pub(crate) const LOGIN: Duration = Duration::from_secs(30);
/// Opening one channel on a live connection.
pub(crate) const CHANNEL: Duration = Duration::from_secs(10);
/// How long a service may take to close a connection whose other side is done, before sshd is told to.
pub(crate) const PARTING: Duration = Duration::from_secs(5);
/// After a command's channel was closed by us, how long its slot stays taken while sshd cleans up.
pub(crate) const REAP: Duration = Duration::from_secs(5);
/// How long output may still come after a command's exit status.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// Commands at a time on one connection: sshd's `MaxSessions` defaults to 10.
pub(crate) const EXECS: usize = 8;
/// Handshakes at a time, all servers together: sshd's `MaxStartups` starts dropping at 10, and a
/// jump host sees them all.
pub(crate) const HANDSHAKES: usize = 8;
/// Tries of a handshake that the server cut short, which is what `MaxStartups` does.
pub(crate) const HANDSHAKE_TRIES: u32 = 3;
/// Keys of an agent to try: sshd's `MaxAuthTries` defaults to 6, and the key file takes one.
pub(crate) const AGENT_KEYS: usize = 5;
/// What a command may write to standard output. A probe of many drifted files stays below.
pub(crate) const STDOUT: usize = 16 * 1024 * 1024;
/// How much of a command's standard error is kept, from its end.
pub(crate) const STDERR: usize = 64 * 1024;
/// What a forwarded stream's reader may leave unread before the stream is given up. russh re-opens
/// the window on receipt, so without a limit memory would be the limit, and with a full channel
/// the whole connection would stand still.
pub(crate) const UNREAD: usize = 8 * 1024 * 1024;
/// Lines of standard error that an error carries.
pub(crate) const STDERR_LINES: usize = 20;
/// An event stream is asked for a sign of life this often; its process ends after 60 s without.
pub(crate) const PING: Duration = Duration::from_secs(5);
/// Without an answer for this long it is taken for dead: two questions and a busy server's answer.
pub(crate) const SILENCE: Duration = Duration::from_secs(12);
/// What a connection may take to answer before it is taken for dead, once something else on that
/// server did not answer either.
pub(crate) const PONG: Duration = Duration::from_secs(5);

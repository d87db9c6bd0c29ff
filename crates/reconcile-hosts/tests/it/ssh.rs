//! Connections, commands and streams against an sshd in this process.

use std::{sync::atomic::Ordering, time::Duration};

use reconcile_core::{model::HostName, ports::Retry};
use reconcile_dial::{BoxStream, Dialer as _, Target};
use reconcile_hosts::{HostTarget, JumpTarget, Ssh};
use russh::keys::{HashAlg, key::safe_rng, ssh_key::LineEnding};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake_sshd::{FakeSshd, Manners, new_key};

const LONG: Duration = Duration::from_secs(20);

fn node() -> HostName {
    HostName::new("node1")
}

fn tcp(host: &str) -> Target {
    Target::Tcp { host: host.to_owned(), port: 1 }
}

async fn echoes(stream: &mut BoxStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"ping");
}

#[tokio::test]
async fn a_command_gives_status_and_both_outputs() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let output = ssh.run(&node(), "try", "say hello\nerr warning\nstatus 7", LONG).await.unwrap();
    assert_eq!((output.status, output.stdout.as_slice()), (7, b"hello\n".as_slice()));
    assert_eq!(output.stderr, "warning\n");
    assert_eq!(*sshd.seen.commands.lock().unwrap(), ["sh -s"]);
    for _ in 0..5 {
        ssh.run(&node(), "try", "status 0", LONG).await.unwrap();
    }
    assert_eq!(sshd.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_status_is_never_success() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let error = ssh.run(&node(), "try", "say half\nvanish", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::Soon);
    assert!(error.cause.contains("whether it took effect is not known"), "{error}");
    let error = ssh.run(&node(), "try", "signal", LONG).await.unwrap_err();
    assert!(error.cause.contains("killed by signal KILL"), "{error}");
}

#[tokio::test]
async fn a_wrong_host_key_ends_before_any_login() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let other = new_key();
    let target = HostTarget {
        host_key: Some(other.public_key().to_openssh().unwrap()),
        ..sshd.target("node1")
    };
    let error = Ssh::new([target]).run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    for key in [&other, &sshd.host_key] {
        let fingerprint = key.public_key().fingerprint(HashAlg::Sha256).to_string();
        assert!(error.cause.contains(&fingerprint), "{error}");
    }
    assert_eq!(sshd.seen.logins.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn without_a_known_key_nothing_is_dialled() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let target = HostTarget { host_key: None, ..sshd.target("node1") };
    let error = Ssh::new([target]).run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(error.cause.contains("no host key is pinned"), "{error}");
    assert_eq!(sshd.seen.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_refused_login_names_user_and_key() {
    let sshd = FakeSshd::start(Manners { refuse_login: true, ..Manners::default() }).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let error = ssh.run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    let fingerprint = sshd.user_key.public_key().fingerprint(HashAlg::Sha256).to_string();
    assert!(error.cause.contains("refuses the login of root"), "{error}");
    assert!(error.cause.contains(&fingerprint), "{error}");
}

#[tokio::test]
async fn an_encrypted_key_file_points_to_the_agent() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let locked = new_key().encrypt(&mut safe_rng(), "secret").unwrap();
    let path = sshd.folder.path().join("locked");
    std::fs::write(&path, &*locked.to_openssh(LineEnding::LF).unwrap()).unwrap();
    let target = HostTarget { identity_file: Some(path), ..sshd.target("node1") };
    let error = Ssh::new([target]).run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(error.cause.contains("ssh-add"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_off_is_for_later() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let target = sshd.target("node1");
    drop(sshd);
    // The listener goes with its task, which ends when this one yields.
    tokio::task::yield_now().await;
    let error = Ssh::new([target]).run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::Later);
    assert!(error.cause.contains("refuses connections"), "{error}");
}

#[tokio::test]
async fn a_refused_sudo_is_told_as_such() {
    let sshd = FakeSshd::start(Manners { refuse_sudo: true, ..Manners::default() }).await;
    let target = HostTarget { user: "deploy".to_owned(), ..sshd.target("node1") };
    let error = Ssh::new([target]).run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(error.cause.contains("deploy may not run commands as root"), "{error}");
    assert_eq!(*sshd.seen.commands.lock().unwrap(), ["sudo -n sh -s"]);
}

#[tokio::test]
async fn a_handshake_cut_short_is_tried_again() {
    let sshd = FakeSshd::start(Manners { cut_short: 2, ..Manners::default() }).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    ssh.run(&node(), "try", "status 0", LONG).await.unwrap();
    assert_eq!(sshd.seen.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_dead_connection_is_replaced() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    ssh.run(&node(), "try", "status 0", LONG).await.unwrap();
    sshd.disconnect_all().await;
    ssh.run(&node(), "try", "status 0", LONG).await.unwrap();
    let mut stream = ssh.dial("node1", tcp("echo")).await.unwrap();
    echoes(&mut stream).await;
    sshd.disconnect_all().await;
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).await.unwrap_err();
    assert!(error.to_string().contains("connection was lost"), "{error}");
    echoes(&mut ssh.dial("node1", tcp("echo")).await.unwrap()).await;
    assert_eq!(sshd.seen.connections.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_command_cut_off_by_a_broken_connection_is_an_error() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let name = node();
    let running = ssh.run(&name, "try", "err @@at apt-get install\nhang", LONG);
    let breaking = async {
        while sshd.seen.sessions.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        sshd.disconnect_all().await;
    };
    let (result, ()) = tokio::join!(running, breaking);
    assert_eq!(result.unwrap_err().retry, Retry::Soon);
}

#[tokio::test]
async fn the_deadline_closes_the_channel_and_names_the_step() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    ssh.run(&node(), "warm up", "status 0", LONG).await.unwrap();
    let script = "err @@at apt-get install\nhang";
    let error = ssh.run(&node(), "try", script, Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.retry, Retry::Later);
    assert!(error.cause.contains("while it was at: apt-get install"), "{error}");
    sshd.closed_channels(2).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_closes_its_channel() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let running = tokio::spawn({
        let ssh = ssh.clone();
        async move { ssh.run(&node(), "try", "hang", LONG).await }
    });
    while sshd.seen.sessions.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    running.abort();
    sshd.closed_channels(1).await;
}

#[tokio::test]
async fn commands_take_turns_below_max_sessions() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let name = node();
    let runs = (0..30).map(|_| ssh.run(&name, "try", "status 0", LONG));
    for result in futures::future::join_all(runs).await {
        assert_eq!(result.unwrap().status, 0);
    }
    assert!(sshd.seen.most_sessions.load(Ordering::SeqCst) <= 8);
    assert_eq!(sshd.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_stops_nobody_else() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let mut flood = ssh.dial("node1", tcp("flood")).await.unwrap();
    for _ in 0..20 {
        echoes(&mut ssh.dial("node1", tcp("echo")).await.unwrap()).await;
    }
    // It is given up, and says so after what it had.
    sshd.closed_channels(1).await;
    let mut rest = Vec::new();
    let error = flood.read_to_end(&mut rest).await.unwrap_err();
    assert!(error.to_string().contains("left more than 8 MiB unread"), "{error}");
    echoes(&mut ssh.dial("node1", tcp("echo")).await.unwrap()).await;
    assert_eq!(sshd.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_dropped_stream_is_closed() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    drop(ssh.dial("node1", tcp("echo")).await.unwrap());
    sshd.closed_channels(1).await;
}

/// russh 0.65 keeps the queue of a channel that we close first as long as the connection lives: an operator
/// that asks for signs of life would grow by megabytes a day.
#[tokio::test]
async fn the_server_closes_first_what_a_stream_is_done_with() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    for _ in 0..20 {
        let mut stream = ssh.dial("node1", tcp("echo")).await.unwrap();
        echoes(&mut stream).await;
    }
    sshd.closed_channels(20).await;
    assert_eq!(sshd.seen.cut_off.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn half_closing_a_stream_still_reads_the_answer() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let mut stream = ssh.dial("node1", tcp("echo")).await.unwrap();
    stream.write_all(&vec![7; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 300_000);
}

#[tokio::test]
async fn refused_streams_say_why() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let error = ssh.dial("node1", tcp("closed")).await.err().unwrap();
    assert!(error.to_string().contains("reach closed:1 on node1: nothing accepts"), "{error}");
    let error = ssh.dial("node1", tcp("forbidden")).await.err().unwrap();
    assert!(error.cause.contains("AllowTcpForwarding"), "{error}");
    let error = ssh.dial("elsewhere", tcp("echo")).await.err().unwrap();
    assert!(error.cause.contains("not in the inventory"), "{error}");
}

#[tokio::test]
async fn docker_is_reached_by_socket_where_allowed() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    echoes(&mut ssh.dial("node1", Target::DockerApi).await.unwrap()).await;
    assert_eq!(*sshd.seen.sockets.lock().unwrap(), ["/var/run/docker.sock"]);
    assert!(sshd.seen.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn docker_is_reached_through_sudo_else_and_that_is_remembered() {
    let sshd = FakeSshd::start(Manners { refuse_sockets: true, ..Manners::default() }).await;
    let target = HostTarget { user: "deploy".to_owned(), ..sshd.target("node1") };
    let ssh = Ssh::new([target]);
    for _ in 0..2 {
        echoes(&mut ssh.dial("node1", Target::DockerApi).await.unwrap()).await;
    }
    assert_eq!(sshd.seen.sockets.lock().unwrap().len(), 1);
    let commands = sshd.seen.commands.lock().unwrap().clone();
    assert_eq!(commands, ["sudo -n docker system dial-stdio"; 2]);
}

#[tokio::test]
async fn a_docker_stream_that_sudo_refuses_says_so_when_read() {
    let manners = Manners { refuse_sockets: true, refuse_sudo: true, ..Manners::default() };
    let sshd = FakeSshd::start(manners).await;
    let target = HostTarget { user: "deploy".to_owned(), ..sshd.target("node1") };
    let ssh = Ssh::new([target]);
    let mut stream = ssh.dial("node1", Target::DockerApi).await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("a password is required"), "{error}");
}

#[tokio::test]
async fn a_jump_host_is_logged_in_to_once_and_pinned_too() {
    let gate = FakeSshd::start(Manners::default()).await;
    let user_key = Some(gate.user_key.clone());
    let inner = FakeSshd::start(Manners { user_key, ..Manners::default() }).await;
    let jump = JumpTarget {
        host: "127.0.0.1".to_owned(),
        port: gate.port,
        user: "root".to_owned(),
        host_key: Some(gate.host_key.public_key().to_openssh().unwrap()),
    };
    let behind = |name: &str| HostTarget { jump: Some(jump.clone()), ..inner.target(name) };
    let ssh = Ssh::new([behind("node1"), behind("node2")]);
    for name in ["node1", "node2"] {
        ssh.run(&name.into(), "try", "status 0", LONG).await.unwrap();
        echoes(&mut ssh.dial(name, tcp("echo")).await.unwrap()).await;
    }
    assert_eq!(gate.seen.connections.load(Ordering::SeqCst), 1);
    assert_eq!(inner.seen.connections.load(Ordering::SeqCst), 4);

    let wrong =
        JumpTarget { host_key: Some(new_key().public_key().to_openssh().unwrap()), ..jump.clone() };
    let target = HostTarget { jump: Some(wrong), ..inner.target("node1") };
    let error = Ssh::new([target]).run(&node(), "try", "status 0", LONG).await.unwrap_err();
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(error.cause.starts_with("the jump host: "), "{error}");
}

/// Accepts any server: for looking at russh alone.
struct Anybody;

impl russh::client::Handler for Anybody {
    type Error = russh::Error;
    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// Why streams have a task of their own: without one, a channel that nobody reads stops all others.
/// When this fails, russh was mended (see its pull request 730) and the tasks could be simpler.
#[tokio::test]
async fn russh_alone_still_stalls_on_an_unread_channel() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let address = ("127.0.0.1", sshd.port);
    let config = std::sync::Arc::default();
    let mut client = russh::client::connect(config, address, Anybody).await.unwrap();
    let key = std::sync::Arc::new(sshd.user_key.clone());
    let key = russh::keys::PrivateKeyWithHashAlg::new(key, None);
    assert!(client.authenticate_publickey("root", key).await.unwrap().success());
    let _unread = client.channel_open_direct_tcpip("flood", 1, "", 0).await.unwrap();
    // The flood fills its queue of 100 messages and then the session waits for it, for ever.
    let ping = async {
        for _ in 0..1_000 {
            let mut channel = client.channel_open_direct_tcpip("echo", 1, "", 0).await.unwrap();
            channel.data(&b"ping"[..]).await.unwrap();
            while !matches!(channel.wait().await, Some(russh::ChannelMsg::Data { .. })) {}
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), ping).await.is_err());
}

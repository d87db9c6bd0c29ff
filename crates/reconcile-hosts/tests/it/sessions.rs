//! Programs that somebody talks to, against an sshd in this process.

use std::time::Duration;

use bytes::Bytes;
use reconcile_core::{model::HostName, ports::Retry};
use reconcile_hosts::{Program, Said, Session, Ssh, Terminal};
use tokio::time::timeout;

use crate::fake_sshd::{FakeSshd, Manners};

fn node() -> HostName {
    HostName::new("node1")
}

fn program() -> Program {
    Program {
        user: "postgres".to_owned(),
        words: vec!["psql".to_owned(), "-c".to_owned(), "select 'x'".to_owned()],
        environment: vec![("PGPORT".to_owned(), "5432".to_owned())],
    }
}

fn terminal() -> Terminal {
    Terminal { kind: "xterm".to_owned(), size: (100, 30) }
}

async fn all(session: &mut Session) -> (String, String, Result<u32, String>) {
    let (mut out, mut err) = (String::new(), String::new());
    loop {
        match timeout(Duration::from_secs(20), session.next()).await.unwrap() {
            Ok(Said::Output(bytes)) => out.push_str(&String::from_utf8_lossy(&bytes)),
            Ok(Said::Error(bytes)) => err.push_str(&String::from_utf8_lossy(&bytes)),
            Ok(Said::Ended(status)) => return (out, err, Ok(status)),
            Err(error) => return (out, err, Err(error.to_string())),
        }
    }
}

#[tokio::test]
async fn a_script_gets_both_outputs_and_the_status_and_knows_the_process() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let mut session = ssh.session(&node(), "try", &program(), None).await.unwrap();
    let input = session.input();
    let script = "err sudo: a warning\nerr @@pid 4711\nsay one\nerr two\nstatus 3\n";
    assert!(input.send(Bytes::from_static(script.as_bytes())).await);
    input.end().await;
    let (out, err, status) = all(&mut session).await;
    assert_eq!((out.as_str(), err.as_str()), ("one\n", "sudo: a warning\ntwo\n"));
    assert_eq!(status, Ok(3));
    assert_eq!(session.process(), Some(4711));
    let commands = sshd.seen.commands.lock().unwrap().clone();
    assert!(commands[0].contains("PGPORT=5432 psql -c '\\''select '\\''"), "{commands:?}");
    assert!(sshd.seen.terminals.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_never_ran_is_told_and_a_lost_connection_is_no_status() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    for (script, told, status) in [
        ("err sudo: a password is required\nstatus 1\n", "sudo: a password is required\n", Ok(1)),
        ("vanish\n", "", Err("try: the SSH connection was lost".to_owned())),
        ("signal\n", "", Err("try: it was killed by signal KILL".to_owned())),
    ] {
        let mut session = ssh.session(&node(), "try", &program(), None).await.unwrap();
        session.input().send(Bytes::from_static(script.as_bytes())).await;
        session.input().end().await;
        assert_eq!(all(&mut session).await, (String::new(), told.to_owned(), status));
        assert_eq!(session.process(), None);
    }
}

#[tokio::test]
async fn a_terminal_has_its_kind_and_follows_its_size() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let mut session = ssh.session(&node(), "try", &program(), Some(&terminal())).await.unwrap();
    let input = session.input();
    input.resize((60, 20)).await;
    input.send(Bytes::from_static(b"say shown\nstatus 0\n")).await;
    input.end().await;
    assert_eq!(all(&mut session).await, ("shown\n".to_owned(), String::new(), Ok(0)));
    let seen = sshd.seen.terminals.lock().unwrap().clone();
    assert_eq!(seen, [("xterm".to_owned(), 100, 30), (String::new(), 60, 20)]);
}

#[tokio::test]
async fn a_dropped_session_closes_its_channel() {
    let sshd = FakeSshd::start(Manners::default()).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let session = ssh.session(&node(), "try", &program(), Some(&terminal())).await.unwrap();
    drop(session);
    timeout(Duration::from_secs(20), sshd.closed_channels(1)).await.unwrap();
}

#[tokio::test]
async fn where_no_terminal_is_given_it_says_why() {
    let sshd = FakeSshd::start(Manners { refuse_terminals: true, ..Manners::default() }).await;
    let ssh = Ssh::new([sshd.target("node1")]);
    let error = ssh.session(&node(), "try", &program(), Some(&terminal())).await.err().unwrap();
    assert_eq!(error.retry, Retry::AfterChange);
    assert!(error.cause.contains("PermitTTY"), "{error}");
}

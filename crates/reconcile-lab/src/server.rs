//! One server: its container and volume, its boot, its power.
//!
//! Must not install or configure anything in a server: it starts bare, and the operator does the
//! rest.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::command::Invocation;
use crate::engine::{docker, exists};
use crate::error::{LabError, Result};
use crate::machine::wait_for;
use crate::state::{Lab, Server};

/// Three boot in less than 10 s on an idle two-core machine; tests share theirs with builds.
const BOOT_PATIENCE: Duration = Duration::from_secs(120);
/// One attempt to hear sshd's banner.
const BANNER_PATIENCE: Duration = Duration::from_secs(2);

/// What makes a container a server, beside what is its own. `--privileged` is not used: it fails
/// where the bounding set lacks `CAP_SYS_RESOURCE`.
const FLAGS: &[&str] = &[
    "--detach",
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--device-cgroup-rule=a *:* rwm",
    "--cgroupns=private",
    // `docker import` knows no STOPSIGNAL; this is systemd's for an orderly end.
    "--stop-signal=SIGRTMIN+3",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
    // Docker's 64 MiB are too few for PostgreSQL's parallel queries; a server has half its memory.
    "--shm-size=1g",
    "--env=container=docker",
];

/// What the engine says of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    /// It runs.
    On,
    /// It exists and does not run.
    Off,
    /// There is no such container.
    Absent,
}

/// Whether a server runs.
pub(crate) async fn power(container: &str) -> Result<Power> {
    if !exists("container", container).await? {
        return Ok(Power::Absent);
    }
    let state = docker(["container", "inspect", "--format", "{{.State.Running}}"])
        .arg(container)
        .run(&format!("read the state of {container}"))
        .await?;
    Ok(if state.trim() == "true" { Power::On } else { Power::Off })
}

/// Creates and starts a server that does not exist yet.
pub(crate) async fn create(
    lab: &Lab,
    server: &Server,
    image: &str,
    public_key: &str,
    labels: &[String],
) -> Result<()> {
    let volume = volume(server);
    let tried = format!("create server {}", server.container);
    let mut make_volume = docker(["volume", "create"]);
    let mut run = docker(["run"]).args(FLAGS);
    for label in labels {
        make_volume = make_volume.args(["--label", label]);
        run = run.args(["--label", label]);
    }
    for other in &lab.servers {
        run = run.args(["--add-host", &format!("{}:{}", other.name, other.address)]);
    }
    make_volume.arg(&volume).run(&tried).await?;
    run.args(["--name", &server.container])
        .args(["--hostname", &server.name])
        .args(["--network", &lab.name_of_network()])
        .args(["--ip", &server.address.to_string()])
        .arg("--volume")
        .arg(format!("{volume}:/var/lib/docker"))
        .arg("--volume")
        .arg(format!("{}:/srv/mirror:ro", crate::mirror::folder().display()))
        .arg("--env")
        .arg(format!("LAB_AUTHORIZED_KEY={public_key}"))
        .arg("--env")
        .arg(format!("LAB_REGISTRY={}", lab.registry))
        .arg(image)
        .run(&tried)
        .await
        .map(drop)
}

/// Switches an existing server on.
pub(crate) async fn switch_on(container: &str) -> Result<()> {
    docker(["start", container]).run(&format!("start server {container}")).await.map(drop)
}

/// Cuts a server's power: nothing in it gets to say goodbye.
pub(crate) async fn switch_off(container: &str) -> Result<()> {
    if power(container).await? == Power::Off {
        return Ok(());
    }
    docker(["kill", "--signal=KILL", container])
        .run(&format!("cut the power of server {container}"))
        .await?;
    // The kill returns when the signal is sent.
    docker(["wait", container])
        .run(&format!("wait for server {container} to be off"))
        .await
        .map(drop)
}

/// Removes a server with all that it held, in whatever state it is.
pub(crate) async fn remove(server: &Server) -> Result<()> {
    if exists("container", &server.container).await? {
        docker(["rm", "--force", "--volumes", &server.container])
            .run(&format!("remove server {}", server.container))
            .await?;
    }
    if exists("volume", &volume(server)).await? {
        docker(["volume", "rm", &volume(server)])
            .run(&format!("remove volume {}", volume(server)))
            .await?;
    }
    Ok(())
}

/// Waits until a server has booted and its sshd answers; gives its SSH host key.
pub(crate) async fn booted(server: &Server) -> Result<String> {
    let container = &server.container;
    wait_for(&format!("the boot of {container}"), BOOT_PATIENCE, || async {
        match boot_state(container, true).await {
            Ok(state) if state == "running" || state == "degraded" => Ok(()),
            Ok(state) => Err(state),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    reachable(server).await?;
    let key = docker(["exec", container, "cat", "/etc/ssh/ssh_host_ed25519_key.pub"])
        .run(&format!("read the host key of {container}"))
        .await?;
    let mut words = key.split_whitespace();
    match (words.next(), words.next()) {
        (Some(kind), Some(key)) => Ok(format!("{kind} {key}")),
        _ => Err(LabError::Malformed {
            what: format!("host key of {container}"),
            reason: format!("`{}` is not a public key", key.trim()),
        }),
    }
}

/// Waits until a server's sshd answers.
pub(crate) async fn reachable(server: &Server) -> Result<()> {
    let what = format!("sshd of {} at {}", server.container, server.address);
    wait_for(&what, BOOT_PATIENCE, || async { ssh_answers(server.address).await }).await
}

/// systemd's own word for a running server's state: `running`, `degraded`, `starting`, ….
pub(crate) async fn boot_state(container: &str, wait: bool) -> Result<String> {
    let mut ask = docker(["exec", container, "systemctl", "is-system-running"]);
    if wait {
        ask = ask.arg("--wait");
    }
    // Every state but `running` gives an exit status other than 0.
    let output = ask.output(&format!("ask {container} whether it has booted")).await?;
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if state.is_empty() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Ok(if told.is_empty() { "no answer".to_owned() } else { told });
    }
    Ok(state)
}

/// Whether a server's sshd says who it is.
pub(crate) async fn ssh_answers(address: Ipv4Addr) -> std::result::Result<(), String> {
    let banner = async {
        let mut stream = TcpStream::connect(SocketAddr::from((address, 22))).await?;
        let mut start = [0_u8; 4];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(start)
    };
    match tokio::time::timeout(BANNER_PATIENCE, banner).await {
        Ok(Ok(start)) if &start == b"SSH-" => Ok(()),
        Ok(Ok(start)) => Err(format!("it said {start:?}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("silent for {} s", BANNER_PATIENCE.as_secs())),
    }
}

/// Runs a command in a server as root, past its network.
pub(crate) fn exec(container: &str, argv: &[String]) -> Invocation {
    docker(["exec", container]).args(argv)
}

/// The volume of a server's own Docker engine.
pub(crate) fn volume(server: &Server) -> String {
    format!("{}-docker", server.container)
}

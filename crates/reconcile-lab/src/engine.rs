//! The outer Docker engine: calling it, and having it run.
//!
//! Must not know what a lab is, and must not stop an engine that it did not start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::Invocation;
use crate::error::{LabError, Result, at};
use crate::machine::{self, Started, shared, wait_for};

/// The lab works on links and files of this machine, so only its own engine will do, whatever
/// the environment or a context says.
const SOCKET: &str = "/var/run/docker.sock";
const PID_FILE: &str = "/var/run/docker.pid";
const CONTAINERD_PID_FILE: &str = "/var/run/docker/containerd/containerd.pid";

/// 6 s on an idle two-core machine; more under load, and with many containers to take stock of.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// It stops its containers first, 10 s each at worst, but all at once.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// A `docker` command for this machine's engine.
pub(crate) fn docker<I, S>(args: I) -> Invocation
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    // The client that came with the engine speaks its API; a newer one elsewhere on the path may
    // have dropped it.
    let paired = Path::new("/usr/bin/docker");
    let client = if paired.exists() { paired } else { Path::new("docker") };
    Invocation::new(client)
        .env("DOCKER_HOST", format!("unix://{SOCKET}"))
        .without_env("DOCKER_CONTEXT")
        .without_env("DOCKER_TLS_VERIFY")
        .args(args)
}

/// Whether the engine answers.
pub(crate) async fn answers() -> Result<bool> {
    if !Path::new(SOCKET).exists() {
        return Ok(false);
    }
    let output = docker(["version", "--format", "{{.Server.Version}}"])
        .output("ask the docker engine for its version")
        .await?;
    Ok(output.status.success())
}

/// Has the engine run: through systemd where that is PID 1, else by starting `dockerd` itself.
pub(crate) async fn ensure() -> Result<()> {
    if answers().await? {
        return Ok(());
    }
    let log = shared("dockerd.log");
    if Path::new("/run/systemd/system").exists() {
        Invocation::new("systemctl")
            .args(["start", "docker.service"])
            .run("start docker.service on this machine")
            .await?;
    } else if !holds(PID_FILE, "dockerd") {
        // A daemon that died, or a machine that did, leaves pid files; their numbers may belong
        // to other processes by now, and both daemons believe them.
        remove_stale(PID_FILE)?;
        if !holds(CONTAINERD_PID_FILE, "containerd") {
            remove_stale(CONTAINERD_PID_FILE)?;
        }
        let dockerd = machine::find("dockerd").ok_or_else(|| LabError::Lacking {
            what: "no dockerd on this machine".to_owned(),
            commands: vec!["apt-get install docker.io".to_owned()],
        })?;
        let pid = Invocation::new(dockerd)
            .arg("--host")
            .arg(format!("unix://{SOCKET}"))
            .detach("start dockerd on this machine", &log)?;
        Started::observe(pid)?.save(&record())?;
    }
    let awaited = format!("the docker engine to answer at {SOCKET}");
    let outcome = wait_for(&awaited, START_PATIENCE, || async {
        match answers().await {
            Ok(true) => Ok(true),
            // Ours may have died at once: no use in waiting then.
            Ok(false) => match Started::load(&record()) {
                Ok(Some(ours)) if !ours.runs() && !holds(PID_FILE, "dockerd") => Ok(false),
                _ => Err("no answer".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(died(&log)),
        Err(LabError::Timeout { what, waited, .. }) => {
            Err(LabError::Timeout { what, waited, last: tail(&log) })
        }
        Err(other) => Err(other),
    }
}

/// Stops the engine if it is the one that [`ensure`] started. Tells whether it was.
pub(crate) async fn stop_own() -> Result<bool> {
    let Some(ours) = Started::load(&record())? else {
        return Ok(false);
    };
    let ran = ours.runs();
    ours.end("the docker engine", STOP_PATIENCE).await?;
    std::fs::remove_file(record()).map_err(at("remove", record()))?;
    Ok(ran)
}

/// Whether an object of some kind (`image`, `container`, …) exists.
pub(crate) async fn exists(kind: &str, name: &str) -> Result<bool> {
    let command = docker([kind, "inspect", "--format", "{{.Id}}", name]);
    let tried = format!("look for {kind} {name}");
    // A volume has no Id, only a Name.
    let command = if kind == "volume" {
        docker([kind, "inspect", "--format", "{{.Name}}", name])
    } else {
        command
    };
    let output = command.output(&tried).await?;
    if output.status.success() {
        return Ok(true);
    }
    let told = String::from_utf8_lossy(&output.stderr).to_lowercase();
    if told.contains("no such") || told.contains("not found") {
        Ok(false)
    } else {
        Err(command.failure(&tried, &output))
    }
}

/// The lines of a `docker` listing.
pub(crate) async fn list(tried: &str, args: &[&str]) -> Result<Vec<String>> {
    let text = docker(args).run(tried).await?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn record() -> PathBuf {
    shared("dockerd.json")
}

fn holds(pid_file: &str, program: &str) -> bool {
    std::fs::read_to_string(pid_file).is_ok_and(|pid| machine::runs_as(&pid, program))
}

fn remove_stale(pid_file: &str) -> Result<()> {
    match std::fs::remove_file(pid_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(at("remove stale", pid_file)(error))
        }
        _ => Ok(()),
    }
}

fn died(log: &Path) -> LabError {
    LabError::Malformed {
        what: format!("answer of dockerd (log: {})", log.display()),
        reason: format!("it ended: {}", tail(log)),
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

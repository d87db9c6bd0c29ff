//! What can be seen of a lab and done to its servers while it runs.
//!
//! Must not create or remove anything.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use futures::future::join_all;
use serde::Serialize;

use crate::error::Result;
use crate::options::LabOptions;
use crate::server::{self, Power};
use crate::state::Server;
use crate::{engine, machine, network, registry};

/// What a lab is like now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabStatus {
    /// The lab's name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Its subnet, in CIDR form.
    pub subnet: String,
    /// This machine's address on it.
    pub gateway: Ipv4Addr,
    /// Where its servers pull images from.
    pub registry: String,
    /// Whether that registry runs.
    pub registry_runs: bool,
    /// Whether the outer engine answers; if not, nothing is known of the servers.
    pub engine_answers: bool,
    /// The images in the registry.
    pub images: Vec<String>,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// What a server is like now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Its host name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its container.
    pub container: String,
    /// `on`, `off`, `absent` or `unknown`.
    pub power: &'static str,
    /// systemd's word for it (`running`, `degraded`, `starting`, …); none unless on.
    pub boot: Option<String>,
    /// Whether its network is cut; none unless on.
    pub cut: Option<bool>,
    /// Whether its sshd answers.
    pub ssh: bool,
}

/// What a command in a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code; 137 and the like where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Looks at the lab without changing anything.
pub async fn status(options: &LabOptions) -> Result<LabStatus> {
    let lab = options.load()?;
    let engine_answers = machine::find("dockerd").is_some() && engine::answers().await?;
    let servers = join_all(lab.servers.iter().map(|server| look(server, engine_answers)))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(LabStatus {
        registry_runs: registry::runs(&lab.name)?,
        name: lab.name,
        dir: options.state_dir()?,
        subnet: lab.subnet,
        gateway: lab.gateway,
        registry: lab.registry,
        engine_answers,
        images: lab.images,
        servers,
    })
}

/// Runs a command in a server as root. Goes past the server's network: works when cut.
pub async fn exec(options: &LabOptions, server: &str, argv: &[String]) -> Result<ExecOutput> {
    let lab = options.load()?;
    let server = lab.server(server)?;
    let command = server::exec(&server.container, argv);
    let tried = format!("run a command in {}", server.container);
    let output = command.output(&tried).await?;
    // The client's own failures give 125; a command's 125 is rare, and its text is passed on too.
    let code = output.status.code().unwrap_or(-1);
    if code == 125 || (code == 1 && output.stderr.starts_with(b"Error response from daemon")) {
        return Err(command.failure(&tried, &output));
    }
    Ok(ExecOutput { code, stdout: output.stdout, stderr: output.stderr })
}

/// Cuts a server's power. Its disks keep what was written; its address stays its own. A server
/// that is off stays off.
pub async fn stop(options: &LabOptions, server: &str) -> Result<()> {
    let lab = options.load()?;
    server::switch_off(&lab.server(server)?.container).await
}

/// Switches a server on and waits until it has booted and its sshd answers. A cut cable is in
/// again afterwards.
pub async fn start(options: &LabOptions, server: &str) -> Result<()> {
    let lab = options.load()?;
    let server = lab.server(server)?;
    server::switch_on(&server.container).await?;
    // Not until it has booted whole: an etcd that lacks its quorum boots until the others are back.
    server::reachable(server).await
}

/// Pulls a server's network cable: nothing gets in or out, connections hang, the address stays.
pub async fn cut(options: &LabOptions, server: &str) -> Result<()> {
    let lab = options.load()?;
    network::plug(&lab.server(server)?.container, false).await
}

/// Puts a server's network cable in again.
pub async fn heal(options: &LabOptions, server: &str) -> Result<()> {
    let lab = options.load()?;
    network::plug(&lab.server(server)?.container, true).await
}

async fn look(server: &Server, engine_answers: bool) -> Result<ServerStatus> {
    let mut status = ServerStatus {
        name: server.name.clone(),
        address: server.address,
        container: server.container.clone(),
        power: "unknown",
        boot: None,
        cut: None,
        ssh: server::ssh_answers(server.address).await.is_ok(),
    };
    if !engine_answers {
        return Ok(status);
    }
    status.power = match server::power(&server.container).await? {
        Power::On => "on",
        Power::Off => "off",
        Power::Absent => "absent",
    };
    if status.power == "on" {
        status.boot = Some(server::boot_state(&server.container, false).await?);
        status.cut = Some(!network::plugged(&server.container).await?);
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_can_be_spawned() {
        fn sendable<T: Send>(_: &T) {}
        let options = LabOptions::default();
        sendable(&status(&options));
        sendable(&stop(&options, "node1"));
        sendable(&start(&options, "node1"));
        sendable(&cut(&options, "node1"));
    }
}

//! [`Dialer`]: byte streams to things on servers, over the *streams* connection.

use std::sync::Arc;

use futures::future::BoxFuture;
use reconcile_core::model::HostName;
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use tokio::time::timeout;

use crate::{
    connect::{Connection, DockerWay},
    fault::{Fault, spoken},
    forward, limits,
    ssh::{Line, Ssh},
};

/// Docker's API socket; the path is the same on every distribution that reconcile knows.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

impl Dialer for Ssh {
    fn dial(&self, host: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>> {
        let ssh = self.clone();
        let name = HostName::new(host);
        Box::pin(async move {
            let dialled = ssh.dial_inner(&name, &target).await;
            dialled.map_err(|fault| DialError {
                host: name.to_string(),
                target,
                cause: fault.cause,
            })
        })
    }
}

impl Ssh {
    /// Opens a stream; a connection that turns out to be dead is replaced once.
    async fn dial_inner(&self, name: &HostName, target: &Target) -> Result<BoxStream, Fault> {
        let mut fresh = false;
        loop {
            let connection = self.connection(name, Line::Streams).await?;
            match self.dial_on(&connection, name, target).await {
                Err(_) if connection.is_closed() && !fresh => fresh = true,
                result => return result,
            }
        }
    }

    async fn dial_on(
        &self,
        connection: &Arc<Connection>,
        name: &HostName,
        target: &Target,
    ) -> Result<BoxStream, Fault> {
        match target {
            Target::Tcp { host, port } => forward::open_tcp(connection, host, *port).await,
            Target::Unix(path) => match path.to_str() {
                Some(path) => forward::open_unix(connection, path).await,
                None => Err(Fault::after_change("the path is not UTF-8")),
            },
            Target::DockerApi => self.dial_docker(connection, name).await,
        }
    }

    /// The forwarded socket where the login user may open it (1 ms), else through sudo (a process
    /// and 0.2 s for each stream, so users of it should keep their streams).
    async fn dial_docker(
        &self,
        connection: &Arc<Connection>,
        name: &HostName,
    ) -> Result<BoxStream, Fault> {
        if connection.docker_way() == DockerWay::Socket {
            match forward::open_unix(connection, DOCKER_SOCKET).await {
                Ok(stream) => return Ok(stream),
                Err(fault) if connection.is_closed() => return Err(fault),
                Err(fault) => tracing::debug!(
                    host = %name, cause = fault.cause,
                    "the Docker socket cannot be forwarded, using dial-stdio"
                ),
            }
        }
        let permit = Arc::clone(&connection.execs).acquire_owned();
        let permit = timeout(limits::CHANNEL, permit).await.map_err(|_| {
            Fault::later(format!(
                "{} Docker streams are open there already and none ended within {}",
                limits::EXECS,
                spoken(limits::CHANNEL)
            ))
        })?;
        let permit = permit.map_err(|_| Fault::soon("the connection is closing"))?;
        let command = if self.target(name)?.needs_sudo() {
            "sudo -n docker system dial-stdio"
        } else {
            "docker system dial-stdio"
        };
        let stream = forward::open_command(connection, permit, command).await?;
        connection.use_docker_stdio();
        Ok(stream)
    }
}

//! Ports that somebody else holds: not only whether our service is up counts, but who listens.

use super::{HoldReason, draft::View};
use crate::model::{HostFacts, HostName};

/// A process that holds a port of one of `components` on a host and is not ours.
///
/// `unit` is the systemd unit that our own process belongs to, or `docker.service` for containers.
pub(super) fn stranger(
    view: &View<'_>,
    host: &HostName,
    facts: &HostFacts,
    components: &[&str],
    unit: &str,
) -> Option<HoldReason> {
    let server = view.desired.servers.get(host)?;
    let containers = unit == "docker.service";
    facts.listeners.iter().find_map(|listener| {
        let port = server.ports.get(&listener.port)?;
        if !components.contains(&port.component.as_str()) || listener.process.is_empty() {
            return None;
        }
        let service = listener.unit.ends_with(".service");
        let right_unit = if containers {
            !service || listener.unit == unit
        } else {
            listener.unit == unit || listener.unit.is_empty()
        };
        if right_unit && port.processes.contains(&listener.process) {
            return None;
        }
        let owner = if listener.unit.is_empty() {
            listener.process.clone()
        } else {
            format!("{} of {}", listener.process, listener.unit)
        };
        Some(HoldReason::PortTaken(format!(
            "{owner} listens on {}:{} of {host}, which {} needs",
            listener.address, listener.port, port.component
        )))
    })
}

//! The Swarm: its nodes, the overlay network, and the four services of the stack.

use std::collections::BTreeMap;

use reconcile_spec::{
    ClusterSpec,
    valid::{FailureAction, ImageRef, SwarmRole, UpdateOrder},
};
use serde::Serialize;

use super::{SecretValues, haproxy, pgbouncer};
use crate::{
    action::SwarmFile,
    model::{
        Content, FileMount, HostName, NetworkAttachment, NetworkSpec, Observed, PublishedPort,
        ServiceMode, ServiceSpec, UpdateRule,
    },
};

/// Label that marks what reconcile made, with the cluster's name as its value.
pub const OWNER_LABEL: &str = "reconcile.io/cluster";
/// Label by which Docker knows a stack.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";
/// Unprivileged user of every container; the images need no entry for it.
const CONTAINER_UID: u32 = 10001;
/// Docker's limit for names of configs and secrets is 64; 12 hexadecimal digits tell versions apart.
const HASH_DIGITS: usize = 12;

/// The Swarm.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredSwarm {
    /// Nodes with their role, in the order of the file: the first manager founds the Swarm. Those that
    /// leave come last.
    pub nodes: Vec<(HostName, SwarmRole)>,
    /// Labels of the Swarm and of everything in it.
    pub labels: BTreeMap<String, String>,
    /// The overlay network.
    pub network: NetworkSpec,
    /// Configs.
    pub configs: Vec<SwarmFile>,
    /// Secrets.
    pub secrets: Vec<SwarmFile>,
    /// Services, in the order in which they come up: router, poolers, front.
    pub services: Vec<ServiceSpec>,
    /// Port of the pooler for writes, on each node.
    pub pooler_port: u16,
    /// Superseded configs and secrets to keep.
    pub retention: u32,
}

impl DesiredSwarm {
    /// True where each server of the file, also one that leaves, tells which node of the Swarm it is: only
    /// then is any other node known to be none of them.
    pub fn tell_their_nodes(&self, observed: &Observed) -> bool {
        let tells = |host| observed.host(host).is_some_and(|facts| facts.docker.known().is_some());
        self.nodes.iter().all(|(host, _)| tells(host))
    }
}

/// What must be in the Swarm.
pub(super) fn swarm(spec: &ClusterSpec, values: &SecretValues<'_>) -> DesiredSwarm {
    let stack = spec.swarm.stack.as_str();
    let labels = BTreeMap::from([
        (OWNER_LABEL.to_owned(), spec.name.to_string()),
        (STACK_LABEL.to_owned(), stack.to_owned()),
    ]);
    let file = |base: &str, content: Content| SwarmFile {
        name: format!("{stack}_{base}-{}", &content.digest()[..HASH_DIGITS]),
        content,
        labels: labels.clone(),
    };
    let ports = (spec.pgbouncer.ports, spec.haproxy.router_ports);
    let front = file("haproxy.cfg", Content::open(haproxy::front(spec)));
    let router = file("router.cfg", Content::open(haproxy::router(spec)));
    let write =
        file("pgbouncer.ini", Content::open(pgbouncer::ini(spec, ports.0.write, ports.1.primary)));
    let read = file(
        "pgbouncer-read.ini",
        Content::open(pgbouncer::ini(spec, ports.0.read, ports.1.replicas)),
    );
    let userlist = file("userlist.txt", Content::secret(pgbouncer::userlist(values)));

    let proxy = |name: &str, config: &SwarmFile| ServiceSpec {
        command: words(&["haproxy", "-W", "-db", "-f", haproxy::CONFIG_PATH]),
        configs: vec![mount(haproxy::CONFIG_PATH, config, 0o444)],
        stop_signal: "SIGUSR1".to_owned(),
        ..blank(spec, name, &spec.haproxy.image, &labels)
    };
    let pooler = |name: &str, config: &SwarmFile| ServiceSpec {
        command: words(&["pgbouncer", pgbouncer::CONFIG_PATH]),
        configs: vec![mount(pgbouncer::CONFIG_PATH, config, 0o444)],
        secrets: vec![mount(pgbouncer::USERLIST, &userlist, 0o400)],
        networks: host_network(),
        stop_signal: "SIGINT".to_owned(),
        ..blank(spec, name, &spec.pgbouncer.image, &labels)
    };
    let services = vec![
        ServiceSpec { networks: host_network(), ..proxy("router", &router) },
        pooler("pgbouncer", &write),
        pooler("pgbouncer-read", &read),
        ServiceSpec {
            networks: vec![NetworkAttachment {
                network: spec.swarm.network.to_string(),
                aliases: words(&["haproxy"]),
            }],
            ports: published(spec),
            dnsrr: true,
            ..proxy("haproxy", &front)
        },
    ];
    DesiredSwarm {
        nodes: spec
            .swarm_hosts()
            .chain(spec.leaving().filter(|host| host.swarm != SwarmRole::None))
            .map(|host| (HostName::new(host.name.as_str()), host.swarm))
            .collect(),
        network: NetworkSpec {
            name: spec.swarm.network.to_string(),
            driver: "overlay".to_owned(),
            attachable: spec.swarm.attachable,
            encrypted: spec.swarm.encrypted,
            subnet: spec.swarm.network_subnet.clone(),
            labels: BTreeMap::from([(OWNER_LABEL.to_owned(), spec.name.to_string())]),
        },
        labels,
        configs: vec![front, router, write, read],
        secrets: vec![userlist],
        services,
        pooler_port: ports.0.write,
        retention: spec.swarm.config_retention,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn host_network() -> Vec<NetworkAttachment> {
    vec![NetworkAttachment { network: "host".to_owned(), aliases: Vec::new() }]
}

fn mount(target: &str, file: &SwarmFile, mode: u32) -> FileMount {
    FileMount {
        target: target.to_owned(),
        source: file.name.clone(),
        uid: CONTAINER_UID,
        gid: CONTAINER_UID,
        mode,
    }
}

/// Host-mode ports of the front, in order of the published port.
fn published(spec: &ClusterSpec) -> Vec<PublishedPort> {
    let haproxy = &spec.haproxy;
    let mut ports: Vec<_> = [
        (haproxy.publish.write, haproxy.ports.write),
        (haproxy.publish.read, haproxy.ports.read),
        (haproxy.publish.stats, haproxy.ports.stats),
    ]
    .into_iter()
    .filter_map(|(published, target)| Some(PublishedPort { published: published?, target }))
    .collect();
    ports.sort();
    ports
}

/// A global service with nothing of its own yet.
fn blank(
    spec: &ClusterSpec,
    name: &str,
    image: &ImageRef,
    labels: &BTreeMap<String, String>,
) -> ServiceSpec {
    let deploy = &spec.swarm.deploy;
    let reference = ImageRef { digest: None, ..image.clone() };
    ServiceSpec {
        name: format!("{}_{name}", spec.swarm.stack),
        image: reference.to_string(),
        digest: image.digest.clone(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        user: format!("{CONTAINER_UID}:{CONTAINER_UID}"),
        mode: ServiceMode::Global,
        constraints: Vec::new(),
        networks: Vec::new(),
        ports: Vec::new(),
        dnsrr: false,
        configs: Vec::new(),
        secrets: Vec::new(),
        stop_signal: String::new(),
        stop_grace_ms: deploy.stop_grace.0,
        restart_delay_ms: deploy.restart_delay.0,
        update: UpdateRule {
            parallelism: u64::from(deploy.update.parallelism),
            delay_ms: deploy.update.delay.0,
            monitor_ms: deploy.update.monitor.0,
            failure_action: match deploy.update.failure_action {
                FailureAction::Rollback => "rollback",
                FailureAction::Pause => "pause",
                FailureAction::Continue => "continue",
            }
            .to_owned(),
            order: match deploy.update.order {
                UpdateOrder::StopFirst => "stop-first",
            }
            .to_owned(),
        },
        init: false,
        labels: {
            let mut labels = labels.clone();
            labels.insert("com.docker.stack.image".to_owned(), reference.to_string());
            labels
        },
        container_labels: BTreeMap::from([(STACK_LABEL.to_owned(), spec.swarm.stack.to_string())]),
    }
}

//! The Swarm: managers with a quorum, nodes, networks, configs, secrets, services and their tasks.

use std::collections::BTreeMap;

use reconcile_core::{
    desired::swarm::OWNER_LABEL,
    model::{
        ConfigFact, HostName, Listener, LocalSwarm, LocalSwarmState, NetworkFact, NodeFact,
        Observation, ServiceFact, ServiceSpec, SwarmFacts, TaskFact,
    },
    probe::SwarmRequest,
};

use crate::World;

/// A Swarm.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Swarm {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Nodes by id.
    pub nodes: BTreeMap<String, Node>,
    /// Networks by name.
    pub networks: BTreeMap<String, NetworkFact>,
    /// Configs by name.
    pub configs: BTreeMap<String, StoredFile>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, StoredFile>,
    /// Services by name.
    pub services: BTreeMap<String, Service>,
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its server.
    pub host: HostName,
    /// Manager or worker.
    pub manager: bool,
    /// `active`, `pause` or `drain`.
    pub availability: String,
    /// It carries the mark that an update is yet to come to it.
    pub waits: bool,
}

impl Node {
    /// One that has just come in.
    pub(crate) fn new(host: &HostName, manager: bool) -> Self {
        Self { host: host.clone(), manager, availability: "active".to_owned(), waits: false }
    }
}

/// A config or secret.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredFile {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Bytes.
    pub bytes: Vec<u8>,
    /// When it was made.
    pub created: u64,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Version index.
    pub version: u64,
    /// What it is.
    pub spec: ServiceSpec,
}

impl Swarm {
    /// True where the Swarm carries a cluster's label.
    pub(crate) fn owned(labels: &BTreeMap<String, String>) -> bool {
        labels.contains_key(OWNER_LABEL)
    }
}

impl World {
    /// The Swarm that a server is in, and its node id.
    pub(crate) fn swarm_of(&self, host: &HostName) -> Option<(String, String)> {
        self.servers.get(host)?.docker.as_ref()?.swarm.clone()
    }

    /// True where the server is on and is that very node.
    pub(crate) fn node_up(&self, id: &str, node: &Node) -> bool {
        self.servers.get(&node.host).is_some_and(|server| {
            let swarm = server.docker.as_ref().and_then(|engine| engine.swarm.as_ref());
            server.power && swarm.is_some_and(|(_, own)| own == id)
        })
    }

    /// True where more than half of a Swarm's managers run.
    pub(crate) fn swarm_has_quorum(&self, id: &str) -> bool {
        self.swarms.get(id).is_some_and(|swarm| {
            let managers: Vec<_> = swarm.nodes.iter().filter(|(_, node)| node.manager).collect();
            let up = managers.iter().filter(|(id, node)| self.node_up(id, node)).count();
            up * 2 > managers.len()
        })
    }

    /// The Swarm that can be asked through a manager.
    pub(crate) fn managed(&self, host: &HostName) -> Result<String, String> {
        let server = self.servers.get(host).ok_or("no such server")?;
        if server.docker.is_none() || !server.power || server.docker_hangs {
            return Err("cannot connect to the Docker daemon".to_owned());
        }
        let (id, node) = self.swarm_of(host).ok_or("this node is not a swarm manager")?;
        let manager = self
            .swarms
            .get(&id)
            .and_then(|swarm| swarm.nodes.get(&node))
            .is_some_and(|node| node.manager);
        if !manager {
            return Err("this node is not a swarm manager".to_owned());
        }
        if !self.swarm_has_quorum(&id) {
            return Err("the swarm does not have a leader".to_owned());
        }
        Ok(id)
    }

    /// A server's own view of its place.
    pub(crate) fn local_swarm(&self, host: &HostName) -> LocalSwarm {
        match self.swarm_of(host) {
            None => LocalSwarm {
                state: LocalSwarmState::Inactive,
                node_id: String::new(),
                node_address: String::new(),
                cluster_id: None,
                manager: false,
                error: String::new(),
            },
            Some((id, node)) => {
                let manager = self
                    .swarms
                    .get(&id)
                    .and_then(|swarm| swarm.nodes.get(&node))
                    .is_some_and(|node| node.manager);
                let quorum = self.swarm_has_quorum(&id);
                LocalSwarm {
                    state: LocalSwarmState::Active,
                    node_id: node,
                    node_address: self
                        .servers
                        .get(host)
                        .map(|server| server.address.clone())
                        .unwrap_or_default(),
                    cluster_id: manager.then_some(id),
                    manager: manager && quorum,
                    error: if manager && !quorum {
                        "the swarm does not have a leader".to_owned()
                    } else {
                        String::new()
                    },
                }
            }
        }
    }

    /// Tasks of a service: one on each node that is up.
    pub(crate) fn tasks(&self, swarm: &Swarm, service: &Service) -> Vec<TaskFact> {
        swarm
            .nodes
            .iter()
            .filter(|(id, node)| node.availability != "drain" && self.node_up(id, node))
            .map(|(id, node)| {
                let wrong = self.task_fault(swarm, service, &node.host);
                TaskFact {
                    node_id: id.clone(),
                    state: if wrong.is_none() { "running" } else { "rejected" }.to_owned(),
                    desired_state: "running".to_owned(),
                    message: wrong.unwrap_or_default(),
                }
            })
            .collect()
    }

    fn task_fault(&self, swarm: &Swarm, service: &Service, host: &HostName) -> Option<String> {
        if !self.images.contains_key(&service.spec.image) {
            return Some(format!("No such image: {}", service.spec.image));
        }
        let server = self.servers.get(host)?;
        ports(swarm, &service.spec).into_iter().find_map(|(port, _)| {
            server
                .strangers
                .iter()
                .any(|stranger| stranger.port == port)
                .then(|| format!("port {port} is already in use"))
        })
    }

    /// Listeners of the containers on a server.
    pub(crate) fn container_listeners(&self, host: &HostName) -> Vec<Listener> {
        let Some((id, _)) = self.swarm_of(host) else { return Vec::new() };
        let Some(swarm) = self.swarms.get(&id) else { return Vec::new() };
        if swarm.nodes.iter().any(|(id, node)| {
            node.host == *host && node.availability == "drain" && self.node_up(id, node)
        }) {
            return Vec::new();
        }
        swarm
            .services
            .values()
            .filter(|service| self.task_fault(swarm, service, host).is_none())
            .flat_map(|service| ports(swarm, &service.spec))
            .map(|(port, process)| Listener {
                port,
                address: "0.0.0.0".to_owned(),
                unit: if process == "docker-proxy" {
                    "docker.service".to_owned()
                } else {
                    "docker-0123456789ab.scope".to_owned()
                },
                process,
                pid: Some(1000 + u32::from(port)),
            })
            .collect()
    }

    /// What a manager tells.
    pub(crate) fn swarm_facts(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, String> {
        let id = self.managed(via)?;
        let swarm = self.swarms.get(&id).ok_or("no such swarm")?;
        let node = |id: &str, node: &Node| NodeFact {
            hostname: node.host.to_string(),
            address: self
                .servers
                .get(&node.host)
                .map(|server| server.address.clone())
                .unwrap_or_default(),
            manager: node.manager,
            availability: node.availability.clone(),
            state: if self.node_up(id, node) { "ready" } else { "down" }.to_owned(),
            reachability: match (node.manager, self.node_up(id, node)) {
                (false, _) => "",
                (true, true) => "reachable",
                (true, false) => "unreachable",
            }
            .to_owned(),
            leader: false,
            waits: node.waits,
        };
        let file = |(name, file): (&String, &StoredFile)| {
            let fact = ConfigFact {
                id: format!("id-{name}"),
                labels: file.labels.clone(),
                created_at: format!("2026-01-01T00:00:00.{:09}Z", file.created),
            };
            (name.clone(), fact)
        };
        let service = |(name, service): (&String, &Service)| {
            let fact = ServiceFact {
                id: format!("id-{name}"),
                version: service.version,
                spec: service.spec.clone(),
                update_state: String::new(),
                given_up: None,
                tasks: if request.services.contains(name) {
                    self.tasks(swarm, service)
                } else {
                    Vec::new()
                },
            };
            (name.clone(), fact)
        };
        let images = request.images.iter().map(|image| {
            let pinned = swarm
                .services
                .values()
                .find(|service| service.spec.image == *image && service.spec.digest.is_some())
                .and_then(|service| service.spec.digest.clone());
            let digest = pinned.or_else(|| self.images.get(image).cloned());
            let observation = digest.map_or_else(
                || Observation::unknown(format!("the registry has no {image}")),
                Observation::Known,
            );
            (image.clone(), observation)
        });
        Ok(SwarmFacts {
            cluster_id: id.clone(),
            labels: swarm.labels.clone(),
            nodes: swarm.nodes.iter().map(|(id, value)| (id.clone(), node(id, value))).collect(),
            networks: swarm.networks.clone(),
            configs: swarm.configs.iter().map(file).collect(),
            secrets: swarm.secrets.iter().map(file).collect(),
            services: swarm.services.iter().map(service).collect(),
            images: images.collect(),
        })
    }

    /// Puts a server into a Swarm of somebody else, as its only manager.
    pub fn plant_foreign_swarm(&mut self, host: &str) {
        let number = self.next_id();
        let (id, node) = (format!("foreign-swarm-{number}"), format!("foreign-node-{number}"));
        let value = Node::new(&HostName::new(host), true);
        let swarm = Swarm { nodes: BTreeMap::from([(node.clone(), value)]), ..Swarm::default() };
        self.swarms.insert(id.clone(), swarm);
        self.install_docker(host);
        self.server_mut(host).docker = Some(crate::Engine { swarm: Some((id, node)) });
    }
}

/// Host ports that a task of the service takes, with the process that listens: what is published,
/// and, on the host's own network, what the mounted configuration binds.
fn ports(swarm: &Swarm, spec: &ServiceSpec) -> Vec<(u16, String)> {
    let published = spec.ports.iter().map(|port| (port.published, "docker-proxy".to_owned()));
    let on_host = spec.networks.iter().any(|network| network.network == "host");
    let process = spec.command.first().cloned().unwrap_or_default();
    let bound = spec
        .configs
        .iter()
        .filter(|_| on_host)
        .filter_map(|mount| swarm.configs.get(&mount.source))
        .flat_map(|file| {
            let text = String::from_utf8_lossy(&file.bytes).into_owned();
            text.lines()
                .filter_map(|line| {
                    let line = line.trim();
                    let value = line
                        .strip_prefix("bind ")
                        .or_else(|| line.strip_prefix("listen_port = "))?;
                    value.rsplit(':').next()?.trim().parse().ok()
                })
                .collect::<Vec<u16>>()
        })
        .map(move |port| (port, process.clone()));
    published.chain(bound).collect()
}

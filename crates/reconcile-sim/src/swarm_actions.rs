//! Effects through the Docker API.

use std::collections::BTreeMap;

use reconcile_core::{
    action::{SwarmAction, SwarmFile},
    desired::swarm::OWNER_LABEL,
    model::{ClaimKind, HostName, NetworkFact, NetworkSpec, ServiceSpec},
    ports::{EffectError, Retry},
};

use crate::{Node, Service, StoredFile, Swarm, World, world::refused};

type Effect = Result<(), EffectError>;

impl World {
    pub(crate) fn apply_swarm(&mut self, host: &HostName, action: &SwarmAction) -> Effect {
        match action {
            SwarmAction::Init { advertise: _, labels } => self.init(host, labels),
            SwarmAction::Label { labels } => self.label(host, labels),
            SwarmAction::Join { advertise: _, manager, via, remote: _ } => {
                self.join(host, *manager, via)
            }
            SwarmAction::SetRole { node_id, manager } => {
                let swarm = self.swarm_via(host)?;
                if let Some(node) = swarm.nodes.get_mut(node_id) {
                    node.manager = *manager;
                }
                if !swarm.nodes.values().any(|node| node.manager) {
                    self.violate("the last manager was demoted");
                }
                self.wrote(format!("swarm/node/{node_id}"));
                Ok(())
            }
            SwarmAction::Drain { node_id } => {
                let leaving = self.leaving.clone();
                let swarm = self.swarm_via(host)?;
                let Some(node) = swarm.nodes.get_mut(node_id) else { return Ok(()) };
                let drained = node.host.clone();
                "drain".clone_into(&mut node.availability);
                if !leaving.contains(&drained) {
                    self.violate(format!("{drained} was drained, and it stays"));
                }
                self.wrote(format!("swarm/node/{node_id}"));
                Ok(())
            }
            SwarmAction::Leave => self.leave(host),
            SwarmAction::RemoveNode { node_id } => self.remove_node(host, node_id),
            SwarmAction::CreateNetwork(spec) => self.create_network(host, spec),
            SwarmAction::CreateConfig(file) => self.create_file(host, file, false),
            SwarmAction::CreateSecret(file) => self.create_file(host, file, true),
            SwarmAction::RemoveConfig { name } => self.remove_file(host, name, false),
            SwarmAction::RemoveSecret { name } => self.remove_file(host, name, true),
            SwarmAction::CreateService { spec, tasks } => self.create_service(host, spec, *tasks),
            SwarmAction::UpdateService { spec, version, tasks, waits, .. } => {
                self.update_service(host, spec, (*version, *tasks), waits)
            }
            SwarmAction::UpdateNode { node_id, .. } => self.update_node(host, node_id),
            SwarmAction::AwaitService { name, tasks } => self.await_tasks(host, name, *tasks),
        }
    }

    /// The Swarm that `host` manages; what is not ours in it is noted when changed.
    fn swarm_via(&mut self, host: &HostName) -> Result<&mut Swarm, EffectError> {
        let attempt = format!("ask the Swarm through {host}");
        let id = self
            .managed(host)
            .map_err(|cause| refused(host, attempt.clone(), cause, Retry::Later))?;
        self.swarms
            .get_mut(&id)
            .ok_or_else(|| refused(host, attempt, "no such swarm", Retry::Later))
    }

    /// Notes a change of a Swarm that nobody of ours founded.
    fn touched(&mut self, host: &HostName, object: String) {
        let foreign = self.swarm_of(host).is_some_and(|(id, _)| id.starts_with("foreign"));
        if foreign {
            self.violate(format!("{object} was changed in the Swarm of somebody else"));
        }
        self.wrote(object);
    }

    fn engine(&mut self, host: &HostName, attempt: &str) -> Effect {
        let server = self.server_of(host)?;
        if server.docker.is_none() || server.docker_hangs {
            let cause = "cannot connect to the Docker daemon";
            return Err(refused(host, attempt, cause, Retry::Later));
        }
        if !self.claimed(host, ClaimKind::Swarm, "swarm") {
            self.violate(format!("{host} went into a Swarm without a claim"));
        }
        Ok(())
    }

    fn init(&mut self, host: &HostName, labels: &BTreeMap<String, String>) -> Effect {
        self.engine(host, "docker swarm init")?;
        if let Some((id, _)) = self.swarm_of(host) {
            let ours = self.swarms.get(&id).is_some_and(|swarm| swarm.labels == *labels);
            let cause = "This node is already part of a swarm";
            return if ours {
                Ok(())
            } else {
                Err(refused(host, "docker swarm init", cause, Retry::Soon))
            };
        }
        if self.swarms.keys().any(|id| !id.starts_with("foreign")) {
            self.violate(format!("a second Swarm was founded on {host}"));
        }
        let (id, node) = (format!("swarm-{}", self.next_id()), format!("node-{host}"));
        let value = Node::new(host, true);
        let cut = self.cut;
        let host_network = NetworkFact {
            id: "id-host".to_owned(),
            driver: "host".to_owned(),
            scope: "local".to_owned(),
            attachable: false,
            encrypted: false,
            subnets: Vec::new(),
            labels: BTreeMap::new(),
        };
        let swarm = Swarm {
            labels: if cut { BTreeMap::new() } else { labels.clone() },
            nodes: BTreeMap::from([(node.clone(), value)]),
            networks: BTreeMap::from([("host".to_owned(), host_network)]),
            ..Swarm::default()
        };
        self.swarms.insert(id.clone(), swarm);
        self.server_of(host)?.docker = Some(crate::Engine { swarm: Some((id, node)) });
        self.wrote("swarm");
        self.cut_here(host)
    }

    fn label(&mut self, host: &HostName, labels: &BTreeMap<String, String>) -> Effect {
        let swarm = self.swarm_via(host)?;
        if swarm.labels == *labels {
            return Ok(());
        }
        swarm.labels.extend(labels.clone());
        self.touched(host, "swarm/labels".to_owned());
        Ok(())
    }

    fn join(&mut self, host: &HostName, manager: bool, via: &HostName) -> Effect {
        self.engine(host, "docker swarm join")?;
        let attempt = format!("join {host} to the Swarm of {via}");
        let id = self
            .managed(via)
            .map_err(|cause| refused(host, attempt.clone(), cause, Retry::Later))?;
        match self.swarm_of(host) {
            Some((there, _)) if there == id => return Ok(()),
            Some(_) => {
                let cause = "This node is already part of a swarm";
                return Err(refused(host, attempt, cause, Retry::AfterChange));
            }
            None => {}
        }
        self.cut_here(host)?;
        let taken = |swarm: &Swarm, id: &String| swarm.nodes.contains_key(id);
        let mut node = format!("node-{host}");
        if self.swarms.get(&id).is_some_and(|swarm| taken(swarm, &node)) {
            node = format!("node-{host}-{}", self.next_id());
        }
        let value = Node::new(host, manager);
        if let Some(swarm) = self.swarms.get_mut(&id) {
            swarm.nodes.insert(node.clone(), value);
        }
        self.touched(via, format!("swarm/node/{host}"));
        self.server_of(host)?.docker = Some(crate::Engine { swarm: Some((id, node)) });
        Ok(())
    }

    fn leave(&mut self, host: &HostName) -> Effect {
        let Some((id, node)) = self.swarm_of(host) else { return Ok(()) };
        let entry = self.swarms.get(&id).and_then(|swarm| swarm.nodes.get(&node)).cloned();
        if entry.as_ref().is_some_and(|node| node.manager) {
            let cause = "You are attempting to leave the swarm on a node that is a manager";
            return Err(refused(host, "leave the Swarm", cause, Retry::Soon));
        }
        if entry.is_some_and(|node| node.availability != "drain") {
            self.violate(format!("{host} left the Swarm with its tasks running"));
        }
        self.cut_here(host)?;
        if let Some(engine) = &mut self.server_of(host)?.docker {
            engine.swarm = None;
        }
        self.wrote(format!("swarm/node/{host}/left"));
        Ok(())
    }

    fn remove_node(&mut self, host: &HostName, id: &str) -> Effect {
        let attempt = format!("remove node {id}");
        let swarm = self.swarm_via(host)?.clone();
        let Some(node) = swarm.nodes.get(id) else { return Ok(()) };
        if self.node_up(id, node) {
            return Err(refused(host, attempt, "the node is ready by now", Retry::Soon));
        }
        // Half of it takes the manager's role alone.
        let cut = self.cut;
        let swarm = self.swarm_via(host)?;
        if let Some(node) = swarm.nodes.get_mut(id).filter(|_| cut) {
            node.manager = false;
        } else {
            swarm.nodes.remove(id);
            self.touched(host, format!("swarm/node/{}/removed", node.host));
        }
        self.cut_here(host)
    }

    fn create_network(&mut self, host: &HostName, spec: &NetworkSpec) -> Effect {
        self.cut_here(host)?;
        let swarm = self.swarm_via(host)?;
        if let Some(fact) = swarm.networks.get(&spec.name) {
            return if fact.driver == spec.driver {
                Ok(())
            } else {
                let cause = "network with name already exists";
                Err(refused(host, format!("create network {}", spec.name), cause, Retry::Soon))
            };
        }
        swarm.networks.insert(
            spec.name.clone(),
            NetworkFact {
                id: format!("id-{}", spec.name),
                driver: spec.driver.clone(),
                scope: "swarm".to_owned(),
                attachable: spec.attachable,
                encrypted: spec.encrypted,
                subnets: spec.subnet.clone().into_iter().collect(),
                labels: spec.labels.clone(),
            },
        );
        self.touched(host, format!("swarm/network/{}", spec.name));
        Ok(())
    }

    fn create_file(&mut self, host: &HostName, file: &SwarmFile, secret: bool) -> Effect {
        self.cut_here(host)?;
        let created = self.tick;
        let swarm = self.swarm_via(host)?;
        let (kind, files) =
            if secret { ("secret", &mut swarm.secrets) } else { ("config", &mut swarm.configs) };
        if let Some(there) = files.get(&file.name) {
            return if there.labels.get(OWNER_LABEL) == file.labels.get(OWNER_LABEL) {
                Ok(())
            } else {
                let attempt = format!("create {kind} {}", file.name);
                Err(refused(host, attempt, "the name is taken", Retry::AfterChange))
            };
        }
        let bytes = file.content.bytes().to_vec();
        files.insert(file.name.clone(), StoredFile { labels: file.labels.clone(), bytes, created });
        self.touched(host, format!("swarm/{kind}/{}", file.name));
        Ok(())
    }

    fn remove_file(&mut self, host: &HostName, name: &str, secret: bool) -> Effect {
        self.cut_here(host)?;
        let swarm = self.swarm_via(host)?;
        let mounts = |service: &Service| {
            service.spec.configs.iter().chain(&service.spec.secrets).any(|file| file.source == name)
        };
        if swarm.services.values().any(mounts) {
            let attempt = format!("remove {name}");
            return Err(refused(host, attempt, "it is in use", Retry::Soon));
        }
        let kind = if secret { "secret" } else { "config" };
        let files = if secret { &mut swarm.secrets } else { &mut swarm.configs };
        let Some(file) = files.remove(name) else { return Ok(()) };
        if !Swarm::owned(&file.labels) {
            self.violate(format!("the {kind} {name} of somebody else was removed"));
        }
        self.touched(host, format!("swarm/{kind}/{name}"));
        Ok(())
    }

    /// What a service refers to must be there.
    fn references(&mut self, host: &HostName, spec: &ServiceSpec) -> Effect {
        let attempt = format!("create or update service {}", spec.name);
        let swarm = self.swarm_via(host)?;
        let missing = spec
            .configs
            .iter()
            .find(|mount| !swarm.configs.contains_key(&mount.source))
            .or_else(|| {
                spec.secrets.iter().find(|mount| !swarm.secrets.contains_key(&mount.source))
            })
            .map(|mount| format!("{} not found", mount.source))
            .or_else(|| {
                spec.networks
                    .iter()
                    .find(|network| !swarm.networks.contains_key(&network.network))
                    .map(|network| format!("network {} not found", network.network))
            });
        missing.map_or(Ok(()), |cause| Err(refused(host, attempt, cause, Retry::Soon)))
    }

    fn create_service(&mut self, host: &HostName, spec: &ServiceSpec, tasks: usize) -> Effect {
        self.cut_here(host)?;
        self.references(host, spec)?;
        let version = self.tick;
        let digest = spec.digest.clone().or_else(|| self.images.get(&spec.image).cloned());
        let spec = ServiceSpec { digest, ..spec.clone() };
        let swarm = self.swarm_via(host)?;
        if let Some(there) = swarm.services.get(&spec.name) {
            if there.spec != spec {
                let attempt = format!("create service {}", spec.name);
                return Err(refused(host, attempt, "the name is taken", Retry::Soon));
            }
        } else {
            let name = spec.name.clone();
            swarm.services.insert(name.clone(), Service { version, spec: spec.clone() });
            self.touched(host, format!("swarm/service/{name}"));
        }
        self.await_tasks(host, &spec.name, tasks)
    }

    fn update_service(
        &mut self,
        host: &HostName,
        spec: &ServiceSpec,
        (version, tasks): (u64, usize),
        waits: &[String],
    ) -> Effect {
        self.references(host, spec)?;
        for id in waits {
            let swarm = self.swarm_via(host)?;
            let Some(node) = swarm.nodes.get_mut(id) else { continue };
            if node.waits || node.availability != "active" {
                continue;
            }
            "pause".clone_into(&mut node.availability);
            node.waits = true;
            // Which of them waits is up to who leads.
            self.touched(host, "swarm/waits".to_owned());
        }
        // Half of it leaves the nodes that were to wait.
        self.cut_here(host)?;
        let attempt = format!("update service {}", spec.name);
        let tick = self.tick;
        let swarm = self.swarm_via(host)?;
        let Some(service) = swarm.services.get_mut(&spec.name) else {
            return Err(refused(host, attempt, "it is gone", Retry::Soon));
        };
        if service.version != version {
            return Err(refused(host, attempt, "update out of sequence", Retry::Soon));
        }
        let owned = Swarm::owned(&service.spec.labels);
        let changed = service.spec != *spec;
        service.spec = spec.clone();
        service.version = tick;
        if !owned {
            self.violate(format!("the service {} of somebody else was changed", spec.name));
        }
        if changed {
            self.touched(host, format!("swarm/service/{}", spec.name));
        }
        self.await_tasks(host, &spec.name, tasks)
    }

    fn update_node(&mut self, host: &HostName, id: &str) -> Effect {
        self.cut_here(host)?;
        let swarm = self.swarm_via(host)?;
        let Some(node) = swarm.nodes.get_mut(id).filter(|node| node.waits) else { return Ok(()) };
        node.waits = false;
        if node.availability == "pause" {
            "active".clone_into(&mut node.availability);
        }
        self.touched(host, "swarm/waits".to_owned());
        Ok(())
    }

    fn await_tasks(&mut self, host: &HostName, name: &str, wanted: usize) -> Effect {
        let attempt = format!("await the tasks of {name}");
        let swarm = self.swarm_via(host)?.clone();
        let Some(service) = swarm.services.get(name) else {
            return Err(refused(host, attempt, "it is gone", Retry::Soon));
        };
        let tasks = self.tasks(&swarm, service);
        let running = tasks.iter().filter(|task| task.state == "running").count();
        if running >= wanted {
            return Ok(());
        }
        let wrong = tasks.iter().find(|task| task.state != "running");
        let cause = format!(
            "{running} of {wanted} tasks run{}",
            wrong.map(|task| format!("; {}: {}", task.node_id, task.message)).unwrap_or_default()
        );
        Err(refused(host, attempt, cause, Retry::Later))
    }
}

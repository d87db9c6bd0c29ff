//! The world as text for comparing end states: no ids, versions, times, counters or log.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::{World, server::DataDir};

impl World {
    /// A stable text of everything that a run is to end in. Two runs that should come to the
    /// same end give the same text.
    pub fn end_state(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_state(&mut text);
        text
    }

    fn write_state(&self, text: &mut String) -> std::fmt::Result {
        for (name, server) in &self.servers {
            let cluster = server.manifest.cluster.as_deref().unwrap_or("none");
            writeln!(text, "server {name} of cluster {cluster}")?;
            for claim in &server.manifest.claims {
                writeln!(text, "  claim {} {}", claim.kind.word(), claim.name)?;
            }
            for (name, package) in &server.packages {
                let state = if package.complete { "" } else { " (half installed)" };
                writeln!(text, "  package {name} {}{state}", package.version)?;
            }
            for (path, file) in &server.files {
                let digest = file.digest();
                let (mode, owner, group) = (file.mode, &file.owner, &file.group);
                writeln!(text, "  file {path} {mode:04o} {owner}:{group} {}", &digest[..12])?;
            }
            for (name, unit) in &server.units {
                let state = if unit.running { "running" } else { "stopped" };
                let boot = if unit.enabled { "enabled" } else { "disabled" };
                let masked = if unit.masked { " masked" } else { "" };
                let outdated = if unit.outdated { " on old settings" } else { "" };
                let old = if unit.running && unit.old_program { " of an old package" } else { "" };
                writeln!(text, "  unit {name} {state} {boot}{masked}{outdated}{old}")?;
            }
            for (path, data) in &server.data_dirs {
                let what = match data {
                    DataDir::Foreign => "foreign",
                    DataDir::Stillborn => "an etcd without a cluster",
                    DataDir::Etcd(number)
                        if self.etcd.get(number).is_some_and(|store| store.foreign) =>
                    {
                        "a foreign etcd"
                    }
                    DataDir::Etcd(_) => "etcd",
                    DataDir::Postgres(system) if system.starts_with("foreign") => {
                        "a foreign postgresql"
                    }
                    DataDir::Postgres(_) => "postgresql",
                };
                writeln!(text, "  data {path}: {what}")?;
            }
            if let Some(running) = &server.running {
                let old = if server.replaced { " of an old package" } else { "" };
                writeln!(text, "  postgresql{old} runs with {running:?}")?;
            }
            if self.paused.contains(name) {
                writeln!(text, "  the pooler holds its clients back")?;
            }
            if self.guarded.contains(name) {
                writeln!(text, "  the pooler is guarded")?;
            }
            let swarm = match server.docker.as_ref().map(|engine| &engine.swarm) {
                None => "no docker".to_owned(),
                Some(None) => "in no swarm".to_owned(),
                Some(Some((id, _))) if id.starts_with("foreign") => "in a foreign swarm".to_owned(),
                Some(Some(_)) => "in the swarm".to_owned(),
            };
            writeln!(text, "  docker: {swarm}")?;
        }
        self.write_etcd(text)?;
        self.write_databases(text)?;
        self.write_swarms(text)
    }

    fn write_etcd(&self, text: &mut String) -> std::fmt::Result {
        for (number, store) in &self.etcd {
            let quorum = if self.etcd_has_quorum(*number) { "quorum" } else { "no quorum" };
            writeln!(text, "etcd {}: {quorum}, started {:?}", store.token, store.started())?;
            for (url, member) in store.members.iter().filter(|(_, member)| member.learner) {
                writeln!(text, "  learner {} {url}", member.name)?;
            }
            for (scope, value) in &store.scopes {
                writeln!(text, "  scope {scope} config {}", value.config)?;
            }
        }
        Ok(())
    }

    fn write_databases(&self, text: &mut String) -> std::fmt::Result {
        for (scope, (primaries, replicas)) in self.census() {
            writeln!(text, "patroni {scope}: {primaries} primary, {replicas} replicas")?;
        }
        for database in self.databases.values() {
            writeln!(text, "postgresql{}", if database.foreign { " (foreign)" } else { "" })?;
            for (name, role) in &database.sql.roles {
                writeln!(text, "  role {name}: {role:?}")?;
            }
            for (name, fact) in &database.sql.databases {
                writeln!(text, "  database {name}: {fact:?}")?;
            }
            writeln!(text, "  probe table: {}", database.sql.probe_table)?;
            for grant in &database.grants {
                writeln!(text, "  {grant}")?;
            }
        }
        Ok(())
    }

    fn write_swarms(&self, text: &mut String) -> std::fmt::Result {
        for (id, swarm) in &self.swarms {
            let whose = if id.starts_with("foreign") { "foreign swarm" } else { "swarm" };
            writeln!(text, "{whose} {:?}", swarm.labels)?;
            let nodes: BTreeMap<_, _> =
                swarm.nodes.values().map(|node| (&node.host, node)).collect();
            for (host, node) in nodes {
                let role = if node.manager { "manager" } else { "worker" };
                writeln!(text, "  node {host}: {role} {}", node.availability)?;
            }
            for network in swarm.networks.keys() {
                writeln!(text, "  network {network}")?;
            }
            for name in swarm.configs.keys().chain(swarm.secrets.keys()) {
                writeln!(text, "  file {name}")?;
            }
            for (name, service) in &swarm.services {
                let tasks = self.tasks(swarm, service);
                let running = tasks.iter().filter(|task| task.state == "running").count();
                let spec = serde_json::to_string(&service.spec).unwrap_or_default();
                writeln!(text, "  service {name}: {running} tasks, {spec}")?;
            }
        }
        Ok(())
    }
}

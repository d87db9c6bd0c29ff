//! Looking: the facts that a probe of a server brings.

use std::collections::BTreeMap;

use reconcile_core::{
    model::{
        DataDirFact, DiskFact, DockerFact, FileFact, FileKind, HostFacts, HostName, Listener,
        Observation, OsFact, Owed, PackageFact, UnitFact,
    },
    probe::ProbeRequest,
};

use crate::{
    Server, World, database, etcd,
    server::{DataDir, Section, port},
};

/// A text longer than this does not travel.
const TEXT_LIMIT: usize = 64 * 1024;

impl World {
    /// The facts of a server, as far as they are asked for.
    pub fn facts(&self, host: &HostName, request: &ProbeRequest) -> Option<HostFacts> {
        let server = self.servers.get(host)?;
        let files = request.files.iter().filter_map(|asked| {
            let file = server.files.get(&asked.path)?;
            let digest = file.digest();
            let shown = !asked.secret && !asked.expect.is_empty() && digest != asked.expect;
            let fact = FileFact {
                kind: FileKind::File,
                mode: file.mode,
                owner: file.owner.clone(),
                group: file.group.clone(),
                text: (shown && file.bytes.len() <= TEXT_LIMIT).then(|| file.text()),
                digest,
                changed: None,
            };
            Some((asked.path.clone(), fact))
        });
        let packages = request.packages.iter().filter_map(|name| {
            let package = server.packages.get(name)?;
            let fact = PackageFact { version: package.version.clone(), complete: package.complete };
            Some((name.clone(), fact))
        });
        let units = request.units.iter().filter_map(|name| {
            server.units.get(name).map(|unit| (name.clone(), self.unit_fact(host, name, unit)))
        });
        let data_dirs = request.data_dirs.iter().filter_map(|path| {
            let system_identifier = match server.data_dirs.get(path)? {
                DataDir::Postgres(system) => Some(system.clone()),
                DataDir::Foreign | DataDir::Stillborn | DataDir::Etcd(_) => None,
            };
            Some((path.clone(), DataDirFact { populated: true, system_identifier }))
        });
        let disk = DiskFact { free_bytes: server.free_bytes, total_bytes: 100 << 30 };
        Some(HostFacts {
            os: OsFact {
                id: server.os.clone(),
                version: "12".to_owned(),
                architecture: "amd64".to_owned(),
                hostname: host.to_string(),
            },
            boot_id: format!("boot-{host}"),
            clock_offset_ms: server.clock_offset_ms,
            packages: packages.collect(),
            files: files.collect(),
            units: units.collect(),
            listeners: self.listeners(host, server),
            data_dirs: data_dirs.collect(),
            disks: request.disks.iter().map(|path| (path.clone(), disk.clone())).collect(),
            docker: self.docker_fact(host, server, request.docker),
            manifest: server.manifest.clone(),
            pooler_held: request.pooler_of.is_some() && self.guarded.contains(host),
            pause: server.pause.clone(),
            access: server.access.clone(),
            etcd: match request.etcd {
                Some(_) => self.etcd_fact(host),
                None => Observation::Known(None),
            },
            patroni: match request.patroni {
                Some(_) => self.patroni_fact(host),
                None => Observation::Known(None),
            },
            sql: match &request.sql {
                Some(probe) => self.sql_facts(host, &probe.databases),
                None => Observation::Known(None),
            },
        })
    }

    fn unit_fact(&self, host: &HostName, name: &str, unit: &crate::Unit) -> UnitFact {
        let waits = name == etcd::UNIT
            && self
                .etcd_of(host)
                .is_none_or(|number| self.etcd.get(&number).is_none_or(|store| !store.formed));
        let active = match (unit.running, unit.failed, waits) {
            (true, _, true) => "activating",
            (true, _, false) => "active",
            (false, true, _) => "failed",
            (false, false, _) => "inactive",
        };
        UnitFact {
            load: if unit.masked { "masked" } else { "loaded" }.to_owned(),
            active: active.to_owned(),
            sub: if unit.running { "running" } else { "dead" }.to_owned(),
            enabled: match (unit.masked, unit.enabled) {
                (true, _) => "masked",
                (false, true) => "enabled",
                (false, false) => "disabled",
            }
            .to_owned(),
            needs_daemon_reload: false,
            restarts: 0,
            main_pid: if unit.running { 4242 } else { 0 },
            fragment: format!("/etc/systemd/system/{name}"),
            started_at: 0,
            outdated: unit.running && unit.old_program,
            owed: unit.owed.map(|verb| Owed { verb, since: 0 }),
        }
    }

    fn docker_fact(
        &self,
        host: &HostName,
        server: &Server,
        asked: bool,
    ) -> Observation<Option<DockerFact>> {
        if !asked || server.docker.is_none() && !server.docker_hangs {
            return Observation::Known(None);
        }
        if server.docker_hangs || server.unknown.contains(&Section::Docker) {
            return Observation::unknown("docker: no answer within 3 s");
        }
        let version = "20.10.24+dfsg1".to_owned();
        Observation::Known(Some(DockerFact { version, swarm: self.local_swarm(host) }))
    }

    fn listeners(&self, host: &HostName, server: &Server) -> Vec<Listener> {
        let own = |port: u16, process: &str, unit: &str| Listener {
            port,
            address: server.address.clone(),
            process: process.to_owned(),
            pid: Some(4242),
            unit: unit.to_owned(),
        };
        let mut out = server.strangers.clone();
        out.extend(self.etcd_ports(host).into_iter().map(|port| own(port, "etcd", etcd::UNIT)));
        if server.runs(database::UNIT)
            && let Some(settings) = server.patroni_settings()
        {
            let rest = settings["restapi"]["listen"].as_str().map(port);
            out.extend(rest.map(|port| own(port, "patroni", database::UNIT)));
            if self.patroni_of(host).is_some_and(|(.., scope)| scope.initialize.is_some()) {
                let listen = settings["postgresql"]["listen"].as_str().map(port);
                out.extend(listen.map(|port| own(port, "postgres", database::UNIT)));
            }
        }
        out.extend(self.container_listeners(host));
        out.sort();
        out
    }

    /// How many replicas each database has, by role, for proofs and dumps: (primaries, replicas).
    pub fn census(&self) -> BTreeMap<String, (usize, usize)> {
        let mut census: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for host in self.servers.keys() {
            let fact = self.patroni_fact(host);
            let Some(fact) = fact.present().filter(|fact| fact.state == "running") else {
                continue;
            };
            let entry = census.entry(fact.scope.clone()).or_default();
            if self.primary_on(host).is_some() {
                entry.0 += 1;
            } else if fact.streaming {
                entry.1 += 1;
            }
        }
        census
    }
}

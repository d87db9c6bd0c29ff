//! The simulated world: servers, what they form together, and what must never have happened.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    desired::Desired,
    model::{ClaimKind, HostName},
    ports::{EffectError, Retry},
};

use crate::{Database, EtcdStore, Server, Swarm, server::Package};

/// Everything that exists.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// Servers.
    pub servers: BTreeMap<HostName, Server>,
    /// etcd clusters that were ever founded, by number.
    pub etcd: BTreeMap<u64, EtcdStore>,
    /// Contents of PostgreSQL clusters, by system identifier.
    pub databases: BTreeMap<String, Database>,
    /// Swarms, by id.
    pub swarms: BTreeMap<String, Swarm>,
    /// Images that the registry has, with their digests.
    pub images: BTreeMap<String, String>,
    /// Packages that apt can install, with their versions.
    pub repository: BTreeMap<String, String>,
    /// Extensions that PostgreSQL can create.
    pub extensions: Vec<String>,
    /// Nodes whose pooler holds its clients back.
    pub paused: BTreeSet<HostName>,
    /// Nodes whose pooler is resumed by the node itself unless its operator does or says otherwise.
    pub guarded: BTreeSet<HostName>,
    /// Seconds since 1970 by the operators' clock.
    pub now: u64,
    /// Transactions on the primary that have been open for long.
    pub transactions: Vec<String>,
    /// Poolers in which a client keeps a connection for its session.
    pub sessions: BTreeMap<HostName, String>,
    /// Servers that are to leave.
    pub leaving: BTreeSet<HostName>,
    /// Words in a line of pg_hba.conf that keep somebody out who must get in.
    pub locking_out: BTreeSet<String>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    /// How often each object was changed.
    pub writes: BTreeMap<String, u64>,
    /// Counts effects; makes ids and times.
    pub(crate) tick: u64,
    /// The next action is cut off by a power loss after its first half.
    pub(crate) cut: bool,
    /// The next action is cut off before its last part: a file without its unit being told.
    pub(crate) late: bool,
}

impl World {
    /// Freshly installed servers for a desired state, with an apt source and a registry that have
    /// all it needs.
    pub fn bare(desired: &Desired) -> Self {
        let servers = desired
            .servers
            .iter()
            .map(|(name, server)| (name.clone(), Server::bare(server.address.clone())))
            .collect();
        let mut world = Self { servers, ..Self::default() };
        world.stock(desired);
        world
    }

    /// Adds servers that a changed desired state names, and what it needs of apt and the registry.
    pub fn grow(&mut self, desired: &Desired) {
        for (name, server) in &desired.servers {
            self.servers
                .entry(name.clone())
                .or_insert_with(|| Server::bare(server.address.clone()));
        }
        self.stock(desired);
        self.leaving.clone_from(&desired.leaving);
    }

    fn stock(&mut self, desired: &Desired) {
        let packages = desired.servers.values().flat_map(|server| &server.packages);
        for package in packages {
            if let Some(version) = &package.version {
                self.repository.insert(package.name.clone(), version.clone());
            }
            let any = || "1.0-1".to_owned();
            self.repository.entry(package.name.clone()).or_insert_with(any);
        }
        self.repository.entry("docker.io".to_owned()).or_insert_with(|| "20.10.24".to_owned());
        for service in &desired.swarm.services {
            let digest = reconcile_core::model::sha256_hex(service.image.as_bytes());
            self.images.entry(service.image.clone()).or_insert(format!("sha256:{digest}"));
        }
        self.extensions =
            ["pg_stat_statements", "pgcrypto", "pg_trgm", "plpgsql"].map(str::to_owned).to_vec();
    }

    /// The server, for changing it.
    ///
    /// # Panics
    /// When there is no such server: a mistake of the test.
    #[expect(clippy::expect_used, reason = "only tests call it, with names that they chose")]
    pub fn server_mut(&mut self, name: &str) -> &mut Server {
        self.servers.get_mut(&HostName::new(name)).expect("a server of that name")
    }

    /// Pre-installs a Docker engine.
    pub fn install_docker(&mut self, name: &str) {
        let server = self.server_mut(name);
        server.docker = Some(crate::Engine::default());
        let version = "20.10.24".to_owned();
        server.packages.insert("docker.io".to_owned(), Package { version, complete: true });
    }

    /// Turns a server off.
    pub fn power_off(&mut self, name: &str) {
        self.server_mut(name).power = false;
        self.settle();
    }

    /// Turns a server off and on again, or just on.
    pub fn reboot(&mut self, name: &str) {
        self.power_off(name);
        self.server_mut(name).reboot();
        self.settle();
    }

    /// So long passes in which no operator lives.
    pub fn unattended(&mut self) {
        for node in std::mem::take(&mut self.guarded) {
            self.paused.remove(&node);
        }
    }

    /// Puts a freshly installed server in the place of one, with its name and address.
    pub fn set_up_anew(&mut self, name: &str) {
        self.power_off(name);
        let server = self.server_mut(name);
        *server = Server::bare(server.address.clone());
        self.settle();
    }

    /// Lets everything that moves by itself move until it rests: etcd forms, Patroni elects and
    /// clones, Swarm places tasks.
    pub fn settle(&mut self) {
        self.settle_etcd();
        self.settle_patroni();
        self.settle_running();
        self.settle_access();
    }

    pub(crate) fn violate(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// Counts a change of an object.
    pub(crate) fn wrote(&mut self, object: impl Into<String>) {
        *self.writes.entry(object.into()).or_default() += 1;
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// The server of an address.
    pub(crate) fn at_address(&self, address: &str) -> Option<&HostName> {
        self.servers.iter().find(|(_, server)| server.address == address).map(|(name, _)| name)
    }

    /// True where reconcile claimed a thing on a server.
    pub(crate) fn claimed(&self, host: &HostName, kind: ClaimKind, name: &str) -> bool {
        self.servers.get(host).is_some_and(|server| server.manifest.claims(kind, name))
    }
}

/// An error at once understood.
pub(crate) fn refused(
    host: &HostName,
    attempt: impl Into<String>,
    cause: impl Into<String>,
    retry: Retry,
) -> EffectError {
    EffectError::new(Some(host), attempt, cause, retry)
}

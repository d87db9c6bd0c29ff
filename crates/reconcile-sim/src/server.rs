//! One simulated server: what is installed, written, running and claimed on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use reconcile_core::{
    action::UnitVerb,
    model::{AccessNote, Listener, Manifest, PauseNote, sha256_hex},
};
use serde_json::Value;

static PARSED: Mutex<BTreeMap<Vec<u8>, Option<Arc<Value>>>> = Mutex::new(BTreeMap::new());

/// How a server answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reach {
    /// It answers.
    #[default]
    Answers,
    /// It never answers: connections hang until a deadline.
    Silent,
    /// Connections are refused at once, with this reason (a wrong host key, a refused login).
    Refuses(String),
}

/// A part of a probe that can be made unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The Docker engine.
    Docker,
    /// The etcd member.
    Etcd,
    /// Patroni.
    Patroni,
    /// Roles and databases.
    Sql,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Version.
    pub version: String,
    /// False where dpkg stopped half-way.
    pub complete: bool,
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
}

impl File {
    /// A file of root that everybody may read.
    pub fn of_root(text: impl Into<Vec<u8>>) -> Self {
        Self { bytes: text.into(), mode: 0o644, owner: "root".to_owned(), group: "root".to_owned() }
    }

    /// SHA-256 in hexadecimal.
    pub fn digest(&self) -> String {
        sha256_hex(&self.bytes)
    }

    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// Its process runs (which does not say that it serves).
    pub running: bool,
    /// It starts at boot.
    pub enabled: bool,
    /// It cannot be started.
    pub masked: bool,
    /// systemd gave up on it.
    pub failed: bool,
    /// It runs with what its files were before.
    pub outdated: bool,
    /// It runs what was installed before an upgrade, as it was noted on the server.
    pub old_program: bool,
    /// What it is to be told of its files, as it was noted on the server.
    pub owed: Option<UnitVerb>,
}

/// What a data directory holds. One that is missing or empty has no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataDir {
    /// Something that is not ours.
    Foreign,
    /// What etcd leaves behind that was started as `existing` and found no cluster: directories
    /// and an empty database, without which it would ask its peers again all the same.
    Stillborn,
    /// A member's data of the etcd store of this number.
    Etcd(u64),
    /// A PostgreSQL cluster with this system identifier.
    Postgres(String),
}

/// A Docker engine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Engine {
    /// The Swarm that it is in, and its node id there.
    pub swarm: Option<(String, String)>,
}

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Address.
    pub address: String,
    /// Powered on. Off: nothing of it runs, and it does not answer.
    pub power: bool,
    /// How it answers the operator; its services run regardless.
    pub reach: Reach,
    /// Its clock minus ours.
    pub clock_offset_ms: i64,
    /// `ID` of os-release.
    pub os: String,
    /// Packages.
    pub packages: BTreeMap<String, Package>,
    /// Files.
    pub files: BTreeMap<String, File>,
    /// Units that systemd knows.
    pub units: BTreeMap<String, Unit>,
    /// Populated data directories.
    pub data_dirs: BTreeMap<String, DataDir>,
    /// Listeners of programs that the model does not run.
    pub strangers: Vec<Listener>,
    /// Free bytes of every file system.
    pub free_bytes: u64,
    /// Docker, where it is installed and runs.
    pub docker: Option<Engine>,
    /// Docker does not answer.
    pub docker_hangs: bool,
    /// What reconcile noted here.
    pub manifest: Manifest,
    /// The note of a pause.
    pub pause: Option<PauseNote>,
    /// The note of the last trial of access rules.
    pub access: Option<AccessNote>,
    /// Lines of patroni.yml from which Patroni last wrote pg_hba.conf.
    pub rules: Vec<String>,
    /// Parts of the probe that come back unknown.
    pub unknown: BTreeSet<Section>,
    /// What PostgreSQL runs with; None: it does not run.
    pub running: Option<crate::Running>,
    /// What `ALTER SYSTEM` set on it while it was a replica.
    pub altered: BTreeMap<String, String>,
    /// PostgreSQL's program was replaced since it started.
    pub replaced: bool,
}

impl Server {
    /// A freshly installed Debian with a system clock and nothing else.
    pub fn bare(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            power: true,
            reach: Reach::Answers,
            clock_offset_ms: 0,
            os: "debian".to_owned(),
            packages: BTreeMap::new(),
            files: BTreeMap::new(),
            units: BTreeMap::new(),
            data_dirs: BTreeMap::new(),
            strangers: Vec::new(),
            free_bytes: 50 << 30,
            docker: None,
            docker_hangs: false,
            manifest: Manifest::default(),
            pause: None,
            access: None,
            rules: Vec::new(),
            unknown: BTreeSet::new(),
            running: None,
            altered: BTreeMap::new(),
            replaced: false,
        }
    }

    /// True where the process of a unit runs on a server that is on.
    pub fn runs(&self, unit: &str) -> bool {
        self.power && self.units.get(unit).is_some_and(|unit| unit.running)
    }

    /// True where a package is installed to the end.
    pub fn has_package(&self, name: &str) -> bool {
        self.packages.get(name).is_some_and(|package| package.complete)
    }

    /// True where the operating system knows the user.
    pub fn has_user(&self, name: &str) -> bool {
        match name {
            "root" => true,
            "etcd" => self.has_package("etcd-server"),
            "postgres" => self.packages.keys().any(|name| name.starts_with("postgresql")),
            _ => false,
        }
    }

    /// The value of `ETCD_<name>` in the environment files that etcd's unit reads, the last wins.
    pub(crate) fn etcd_setting(&self, name: &str) -> Option<String> {
        ["/etc/default/etcd", "/run/reconcile/etcd-bootstrap.env"]
            .iter()
            .filter_map(|path| self.files.get(*path))
            .flat_map(|file| file.text().lines().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key == format!("ETCD_{name}")).then(|| value.trim_matches('"').to_owned())
            })
            .next_back()
    }

    /// Patroni's settings, where they can be read.
    pub(crate) fn patroni_settings(&self) -> Option<Arc<Value>> {
        let file = self.files.get("/etc/patroni/patroni.yml")?;
        // Parsed once each: a thousand runs read the same few files over and over.
        let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = parsed.get(&file.bytes) {
            return known.clone();
        }
        let value = serde_yaml::from_slice(&file.bytes).ok().map(Arc::new);
        parsed.insert(file.bytes.clone(), value.clone());
        value
    }

    /// Off and on again: what is enabled runs, what is volatile is gone.
    pub fn reboot(&mut self) {
        self.power = true;
        self.files.retain(|path, _| !path.starts_with("/run/"));
        for unit in self.units.values_mut() {
            unit.running = unit.enabled && !unit.masked;
            unit.old_program = false;
        }
    }
}

/// Port of a URL or `host:port`.
pub(crate) fn port(text: &str) -> u16 {
    text.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0)
}

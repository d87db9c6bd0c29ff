//! Patroni and PostgreSQL: bootstrap, clones, elections. Who leads is decided here alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use reconcile_core::model::{
    DatabaseFact, HostName, Observation, PatroniFact, PatroniRole, ReplicationFact, RoleFact,
    SqlFacts,
};
use serde_json::Value;

use crate::{
    World,
    etcd::Scope,
    server::{DataDir, Section},
};

/// The unit.
pub(crate) const UNIT: &str = "patroni.service";

/// What is in one PostgreSQL cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Not made by reconcile.
    pub foreign: bool,
    /// Its timeline.
    pub timeline: u64,
    /// Roles, databases, the probe's table.
    pub sql: SqlFacts,
    /// Privileges granted, as normalised statements.
    pub grants: BTreeSet<String>,
    /// What the last primary ran with, as its standbys know it (`pg_controldata`).
    pub limits: crate::Running,
}

impl Database {
    /// What `initdb` and Patroni make.
    fn new(settings: &Value) -> Self {
        let role = |superuser, replication| RoleFact {
            login: true,
            superuser,
            createdb: superuser,
            createrole: superuser,
            replication,
            inherit: true,
            connection_limit: -1,
            member_of: BTreeSet::new(),
            password_digest: Some("set by Patroni".to_owned()),
        };
        let user = |kind: &str| {
            settings["postgresql"]["authentication"][kind]["username"]
                .as_str()
                .unwrap_or(kind)
                .to_owned()
        };
        let database = || DatabaseFact {
            owner: "postgres".to_owned(),
            encoding: "UTF8".to_owned(),
            extensions: Some(BTreeMap::from([("plpgsql".to_owned(), "1.0".to_owned())])),
            schemas: Some(BTreeSet::from(["public".to_owned()])),
            pooler_lookup: None,
        };
        Self {
            foreign: false,
            timeline: 1,
            sql: SqlFacts {
                roles: BTreeMap::from([
                    (user("superuser"), role(true, true)),
                    (user("replication"), role(false, true)),
                    (user("rewind"), role(false, false)),
                ]),
                databases: ["postgres", "template0", "template1"]
                    .map(|name| (name.to_owned(), database()))
                    .into(),
                altered: BTreeMap::new(),
                probe_table: false,
                archiver: None,
            },
            grants: BTreeSet::new(),
            limits: BTreeMap::new(),
        }
    }
}

/// One member as it settles.
struct Member {
    host: HostName,
    scope: String,
    data_dir: String,
    store: u64,
    settings: Arc<Value>,
}

impl World {
    /// Patroni's processes that reach a healthy etcd.
    fn members(&self) -> Vec<Member> {
        self.servers
            .iter()
            .filter(|(_, server)| server.runs(UNIT))
            .filter_map(|(host, server)| {
                let settings = server.patroni_settings()?;
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let clients: Vec<String> =
                    settings["etcd"]["hosts"].as_array()?.iter().map(text).collect();
                Some(Member {
                    host: host.clone(),
                    scope: text(&settings["scope"]),
                    data_dir: text(&settings["postgresql"]["data_dir"]),
                    store: self.etcd_at(&clients)?,
                    settings,
                })
            })
            .collect()
    }

    /// Runs Patroni's rounds until nothing moves.
    pub(crate) fn settle_patroni(&mut self) {
        for _ in 0..8 {
            let members = self.members();
            let mut moved = false;
            for member in &members {
                moved |= self.round(member);
            }
            if !moved {
                return;
            }
        }
    }

    fn scope(&self, store: u64, scope: &str) -> Scope {
        self.etcd.get(&store).and_then(|store| store.scopes.get(scope)).cloned().unwrap_or_default()
    }

    pub(crate) fn store_scope(&mut self, number: u64, name: &str, scope: Scope) {
        let Some(store) = self.etcd.get_mut(&number) else { return };
        let foreign = store.foreign;
        store.scopes.insert(name.to_owned(), scope);
        if foreign {
            self.violate(format!("Patroni of scope {name} wrote to the etcd of somebody else"));
        }
    }

    /// True where a member's PostgreSQL runs on the scope's database.
    pub(crate) fn serves(&self, host: &HostName, scope: &Scope) -> bool {
        let Some(server) = self.servers.get(host).filter(|server| server.runs(UNIT)) else {
            return false;
        };
        server.data_dirs.values().any(
            |data| matches!((data, &scope.initialize), (DataDir::Postgres(id), Some(own)) if id == own),
        )
    }

    /// The members that Patroni lists: those whose process holds a key in the store.
    fn listed(&self, scope: &Scope) -> BTreeSet<String> {
        self.servers
            .keys()
            .filter(|host| self.serves(host, scope))
            .map(ToString::to_string)
            .collect()
    }

    /// One round of one member. True if anything moved.
    fn round(&mut self, member: &Member) -> bool {
        let mut scope = self.scope(member.store, &member.scope);
        let data = self
            .servers
            .get(&member.host)
            .and_then(|server| server.data_dirs.get(&member.data_dir))
            .cloned();
        match (&data, &scope.initialize) {
            (None, None) => {
                // The race for the `initialize` key: whoever asks first makes the database.
                let number = self.next_id();
                let system = format!("system-{number}");
                if self.databases.values().any(|database| !database.foreign) {
                    self.violate(format!("a second database was made on {}", member.host));
                }
                self.databases.insert(system.clone(), Database::new(&member.settings));
                scope.initialize = Some(system.clone());
                scope.leader = Some(member.host.clone());
                scope.config = member.settings["bootstrap"]["dcs"].clone();
                self.populate(member, system);
                self.store_scope(member.store, &member.scope, scope);
                true
            }
            (Some(DataDir::Postgres(system)), None) => {
                scope.initialize = Some(system.clone());
                scope.leader = Some(member.host.clone());
                scope.config = member.settings["bootstrap"]["dcs"].clone();
                self.store_scope(member.store, &member.scope, scope);
                true
            }
            (None, Some(system)) => {
                let leads = scope.leader.clone().is_some_and(|leader| self.serves(&leader, &scope));
                if leads {
                    let system = system.clone();
                    self.populate(member, system);
                }
                leads
            }
            (Some(DataDir::Postgres(system)), Some(initialized)) if system == initialized => {
                let led = scope.leader.clone().is_some_and(|leader| self.serves(&leader, &scope));
                if led || scope.paused {
                    return false;
                }
                scope.leader = Some(member.host.clone());
                if let Some(database) = self.databases.get_mut(system) {
                    database.timeline += 1;
                }
                self.store_scope(member.store, &member.scope, scope);
                true
            }
            (Some(_), _) => {
                // Another cluster's data: Patroni refuses and ends.
                let text =
                    format!("Patroni on {} was started on data of another cluster", member.host);
                if !self.violations.contains(&text) {
                    self.violate(text);
                }
                false
            }
        }
    }

    fn populate(&mut self, member: &Member, system: String) {
        if let Some(server) = self.servers.get_mut(&member.host) {
            server.data_dirs.insert(member.data_dir.clone(), DataDir::Postgres(system));
        }
    }

    /// The scope of a server's Patroni and the store that it lives in.
    pub(crate) fn patroni_of(&self, host: &HostName) -> Option<(u64, String, Scope)> {
        let member = self.members().into_iter().find(|member| member.host == *host)?;
        let scope = self.scope(member.store, &member.scope);
        Some((member.store, member.scope, scope))
    }

    /// Servers whose PostgreSQL runs, with the scope of its database.
    pub(crate) fn serving(&self) -> Vec<(HostName, Scope)> {
        let members = self.members().into_iter();
        let scoped = members.map(|member| {
            let scope = self.scope(member.store, &member.scope);
            (member.host, scope)
        });
        scoped.filter(|(host, scope)| self.serves(host, scope)).collect()
    }

    /// The scope whose database a server's PostgreSQL runs.
    pub(crate) fn scope_served_by(&self, host: &HostName) -> Option<Scope> {
        let (.., scope) = self.patroni_of(host)?;
        self.serves(host, &scope).then_some(scope)
    }

    /// The system identifier of the primary that runs on a server.
    pub(crate) fn primary_on(&self, host: &HostName) -> Option<String> {
        let (.., scope) = self.patroni_of(host)?;
        (scope.leader.as_ref() == Some(host) && self.serves(host, &scope))
            .then_some(scope.initialize)
            .flatten()
    }

    /// What a server's Patroni says of itself.
    pub(crate) fn patroni_fact(&self, host: &HostName) -> Observation<Option<PatroniFact>> {
        let Some(server) = self.servers.get(host) else { return Observation::Known(None) };
        if server.unknown.contains(&Section::Patroni) {
            return Observation::unknown("Patroni: no answer within 2 s");
        }
        if !server.runs(UNIT) {
            return Observation::Known(None);
        }
        let settings = server.patroni_settings().unwrap_or_default();
        let scope = settings["scope"].as_str().unwrap_or_default().to_owned();
        let found = self.patroni_of(host).map(|(.., scope)| scope);
        let data = settings["postgresql"]["data_dir"]
            .as_str()
            .and_then(|directory| server.data_dirs.get(directory));
        let up = found.as_ref().is_some_and(|scope| self.serves(host, scope));
        let primary = self.primary_on(host).is_some();
        let led = found.as_ref().is_some_and(|scope| {
            scope.leader.as_ref().is_some_and(|leader| self.serves(leader, scope))
        });
        let system = match data {
            Some(DataDir::Postgres(system)) => system.clone(),
            _ => String::new(),
        };
        let timeline = self.databases.get(&system).map_or(0, |database| database.timeline);
        let replication = |name: &HostName| ReplicationFact {
            application_name: name.to_string(),
            address: self.servers.get(name).map(|peer| peer.address.clone()).unwrap_or_default(),
            state: "streaming".to_owned(),
            sync_state: "async".to_owned(),
        };
        let standbys = self
            .servers
            .keys()
            .filter(|other| primary && *other != host)
            .filter(|other| found.as_ref().is_some_and(|scope| self.serves(other, scope)));
        let replays = found.as_ref().is_none_or(|scope| self.replays(host, scope));
        Observation::Known(Some(PatroniFact {
            version: "3.0.2".to_owned(),
            scope,
            role: if primary { PatroniRole::Primary } else { PatroniRole::Replica },
            state: if up { "running" } else { "starting" }.to_owned(),
            timeline: if up { timeline } else { 0 },
            system_identifier: system,
            server_version: if up { 150_018 } else { 0 },
            pending_restart: found.as_ref().is_some_and(|scope| self.pending_restart(host, scope)),
            replaced: (up && server.replaced).then_some(4711),
            paused: found.as_ref().is_some_and(|scope| scope.paused),
            streaming: up && !primary && led,
            wal_position: up.then_some(if replays { (1 << 40) + self.tick } else { 1000 }),
            lag_bytes: (up && !primary).then_some(if replays { 0 } else { 1 << 40 }),
            members: found.as_ref().map_or_else(BTreeSet::new, |scope| self.listed(scope)),
            replication: standbys.map(replication).collect(),
            config: found
                .filter(|scope| scope.initialize.is_some())
                .map(|scope| scope.config.to_string()),
            settings: if up { self.settings(host) } else { None },
            altered: if up && !primary { server.altered.clone() } else { BTreeMap::new() },
        }))
    }

    /// Roles and databases, as the local primary tells them.
    pub(crate) fn sql_facts(
        &self,
        host: &HostName,
        databases: &BTreeSet<String>,
    ) -> Observation<Option<SqlFacts>> {
        if self.servers.get(host).is_some_and(|server| server.unknown.contains(&Section::Sql)) {
            return Observation::unknown("psql: no answer within 3 s");
        }
        let system = self.primary_on(host);
        Observation::Known(system.and_then(|system| self.databases.get(&system)).map(|database| {
            let mut facts = database.sql.clone();
            for (name, fact) in &mut facts.databases {
                if !databases.contains(name) {
                    fact.extensions = None;
                    fact.schemas = None;
                    fact.pooler_lookup = None;
                }
            }
            facts
        }))
    }

    /// `PATCH /config`. Counts as a write only where something changes.
    pub(crate) fn patch_config(&mut self, host: &HostName, patch: &Value) -> Result<(), String> {
        let (store, name, mut scope) =
            self.patroni_of(host).ok_or("503: no leader and no configuration")?;
        let before = scope.config.clone();
        merge(&mut scope.config, patch);
        if scope.config == before {
            return Ok(());
        }
        let initialized = scope.initialize.clone();
        let foreign = initialized
            .as_ref()
            .and_then(|system| self.databases.get(system))
            .is_some_and(|database| database.foreign);
        if foreign {
            self.violate(format!("Patroni's configuration of somebody else on {host} was changed"));
        }
        self.store_scope(store, &name, scope);
        self.wrote("patroni/config");
        Ok(())
    }

    /// Puts a running Patroni with a database of somebody else on a server, with etcd of its own.
    pub fn plant_foreign_patroni(&mut self, host: &str, data_dir: &str, scope: &str) {
        self.plant_foreign_etcd(host, "/srv/their-etcd");
        let system = format!("foreign-{}", self.next_id());
        let address = self.server_mut(host).address.clone();
        let settings = serde_json::json!({
            "scope": scope,
            "etcd": { "hosts": [format!("{address}:2379")] },
            "restapi": { "listen": format!("{address}:8008") },
            "postgresql": { "data_dir": data_dir, "listen": format!("{address}:5432") },
        });
        let mut database = Database::new(&settings);
        database.foreign = true;
        self.databases.insert(system.clone(), database);
        for store in self.etcd.values_mut().filter(|store| store.foreign) {
            let value = Scope {
                initialize: Some(system.clone()),
                leader: Some(HostName::new(host)),
                config: serde_json::json!({ "ttl": 47 }),
                paused: false,
            };
            store.scopes.insert(scope.to_owned(), value);
        }
        let server = self.server_mut(host);
        server.data_dirs.insert(data_dir.to_owned(), DataDir::Postgres(system));
        let file = crate::File::of_root(settings.to_string());
        server.files.insert("/etc/patroni/patroni.yml".to_owned(), file);
        let unit = crate::Unit { running: true, enabled: true, ..crate::Unit::default() };
        server.units.insert(UNIT.to_owned(), unit);
    }
}

/// Patroni's merge: objects key by key, null removes, anything else replaces.
fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

//! etcd: members that start with or without data, form a cluster once, and keep or lose quorum.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    action::EtcdChange,
    model::{ClaimKind, EtcdFact, EtcdMemberFact, HostName, Observation},
    ports::{EffectError, Retry},
};

use crate::{
    World,
    server::{DataDir, Section, port},
    world::refused,
};

/// The unit.
pub(crate) const UNIT: &str = "etcd.service";

/// One founded etcd cluster: what its members agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdStore {
    /// Token that it was founded with.
    pub token: String,
    /// Members by peer URL.
    pub members: BTreeMap<String, EtcdMember>,
    /// A quorum came together once.
    pub formed: bool,
    /// Not made by reconcile.
    pub foreign: bool,
    /// Patroni's scopes in it.
    pub scopes: BTreeMap<String, Scope>,
}

/// A member of an etcd cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdMember {
    /// Its id.
    pub id: String,
    /// Its name, once it is known.
    pub name: String,
    /// It has no vote yet.
    pub learner: bool,
    /// The server that holds its data, once it has started.
    pub holder: Option<HostName>,
}

impl EtcdStore {
    /// Servers that hold a member's data.
    pub fn started(&self) -> BTreeSet<&HostName> {
        self.members.values().filter_map(|member| member.holder.as_ref()).collect()
    }

    fn voters(&self) -> usize {
        self.members.values().filter(|member| !member.learner).count()
    }

    /// The member that a server holds the data of.
    fn held_by(&self, host: &HostName) -> Option<&EtcdMember> {
        self.members.values().find(|member| member.holder.as_ref() == Some(host))
    }
}

/// What Patroni keeps in etcd.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scope {
    /// System identifier of the database (`initialize`).
    pub initialize: Option<String>,
    /// Who leads.
    pub leader: Option<HostName>,
    /// Dynamic configuration.
    pub config: serde_json::Value,
    /// Cluster management is paused.
    pub paused: bool,
}

impl World {
    /// Servers whose etcd process runs on data of the store.
    pub(crate) fn etcd_running(&self, number: u64) -> Vec<&HostName> {
        self.servers
            .iter()
            .filter(|(_, server)| {
                server.runs(UNIT)
                    && server.data_dirs.values().any(|data| *data == DataDir::Etcd(number))
            })
            .filter(|(name, _)| {
                self.etcd.get(&number).is_some_and(|store| store.held_by(name).is_some())
            })
            .map(|(name, _)| name)
            .collect()
    }

    /// How many members with a vote run.
    fn etcd_voting(&self, number: u64) -> usize {
        let Some(store) = self.etcd.get(&number) else { return 0 };
        let votes = |host: &&HostName| store.held_by(host).is_some_and(|member| !member.learner);
        self.etcd_running(number).into_iter().filter(votes).count()
    }

    /// True where the store has a quorum now.
    pub fn etcd_has_quorum(&self, number: u64) -> bool {
        self.etcd
            .get(&number)
            .is_some_and(|store| store.formed && self.etcd_voting(number) * 2 > store.voters())
    }

    /// The store whose data a server's etcd runs on.
    pub(crate) fn etcd_of(&self, host: &HostName) -> Option<u64> {
        let server = self.servers.get(host).filter(|server| server.runs(UNIT))?;
        let number = server.data_dirs.values().find_map(|data| match data {
            DataDir::Etcd(number) => Some(*number),
            DataDir::Foreign | DataDir::Stillborn | DataDir::Postgres(_) => None,
        })?;
        // One that was removed ends by itself, over and over.
        self.etcd.get(&number)?.held_by(host).map(|_| number)
    }

    /// Members that wait for data get it where they may; clusters form.
    pub(crate) fn settle_etcd(&mut self) {
        let waiting: Vec<HostName> = self
            .servers
            .iter()
            .filter(|(name, server)| server.runs(UNIT) && self.etcd_of(name).is_none())
            .map(|(name, _)| name.clone())
            .collect();
        for host in waiting {
            self.start_without_data(&host);
        }
        let numbers: Vec<u64> = self.etcd.keys().copied().collect();
        for number in numbers {
            let running = self.etcd_voting(number);
            if let Some(store) = self.etcd.get_mut(&number) {
                store.formed |= running * 2 > store.voters();
            }
        }
    }

    fn start_without_data(&mut self, host: &HostName) {
        let Some(server) = self.servers.get(host) else { return };
        let setting = |name: &str| server.etcd_setting(name).unwrap_or_default();
        let setting_name = setting("NAME");
        let (directory, token) = (setting("DATA_DIR"), setting("INITIAL_CLUSTER_TOKEN"));
        let (own, state) =
            (setting("INITIAL_ADVERTISE_PEER_URLS"), setting("INITIAL_CLUSTER_STATE"));
        let members: BTreeMap<String, String> = setting("INITIAL_CLUSTER")
            .split(',')
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, url)| (url.to_owned(), name.to_owned()))
            .collect();
        let same_list = |store: &EtcdStore| store.members.keys().eq(members.keys());
        let fresh = matches!(server.data_dirs.get(&directory), None | Some(DataDir::Stillborn));
        if !fresh || directory.is_empty() {
            return; // It cannot read what stands there and fails.
        }
        let same = self
            .etcd
            .iter()
            .find(|(_, store)| !store.foreign && store.token == token && same_list(store))
            .map(|(number, store)| (*number, store.formed, store.held_by(host).is_some()));
        let number = if state == "new" {
            for (number, store) in &self.etcd {
                let beside = store.formed
                    && same.is_none_or(|(same, ..)| same != *number)
                    && store.members.keys().any(|url| members.contains_key(url));
                if beside {
                    let text =
                        format!("etcd on {host} was founded beside the formed cluster {number}");
                    self.violations.push(text);
                    break;
                }
            }
            if let Some((number, formed, had_data)) = same {
                if formed && had_data {
                    self.violate(format!(
                        "etcd on {host} lost its data and was started as `new`: data loss"
                    ));
                }
                number
            } else {
                if self.etcd.values().any(|store| !store.foreign) {
                    self.violate(format!("etcd was founded twice, the second time on {host}"));
                }
                let number = self.next_id();
                let member = |(url, name): (&String, &String)| {
                    let id = format!("member-{name}");
                    let member =
                        EtcdMember { id, name: name.clone(), learner: false, holder: None };
                    (url.clone(), member)
                };
                let members = members.iter().map(member).collect();
                let store = EtcdStore {
                    token,
                    members,
                    formed: false,
                    foreign: false,
                    scopes: BTreeMap::new(),
                };
                self.etcd.insert(number, store);
                number
            }
        } else {
            // `existing` asks the peers; without a cluster among them it waits. Its list of members
            // must be theirs, and it must be one that has not started.
            let welcome = self.etcd.iter().find(|(number, store)| {
                self.etcd_has_quorum(**number)
                    && same_list(store)
                    && store.members.get(&own).is_some_and(|member| member.holder.is_none())
            });
            if let Some((number, _)) = welcome {
                *number
            } else {
                if let Some(server) = self.servers.get_mut(host) {
                    server.data_dirs.insert(directory, DataDir::Stillborn);
                }
                return;
            }
        };
        let name = setting_name;
        if let Some(member) =
            self.etcd.get_mut(&number).and_then(|store| store.members.get_mut(&own))
        {
            member.holder = Some(host.clone());
            member.name = name;
        }
        if let Some(server) = self.servers.get_mut(host) {
            server.data_dirs.insert(directory, DataDir::Etcd(number));
        }
    }

    /// Notes when stopping etcd on a server takes the quorum away from others.
    pub(crate) fn before_etcd_stop(&mut self, host: &HostName) {
        let Some(number) = self.etcd_of(host) else { return };
        let Some(store) = self.etcd.get(&number) else { return };
        if store.foreign {
            self.violate(format!("the etcd of somebody else on {host} was stopped or restarted"));
            return;
        }
        let members = store.voters();
        let votes = store.held_by(host).is_some_and(|member| !member.learner);
        let left = self.etcd_voting(number).saturating_sub(usize::from(votes));
        if votes && members > 1 && left * 2 <= members && self.etcd_has_quorum(number) {
            self.violate(format!("restarting etcd on {host} took the quorum away"));
        }
    }

    /// What a server's etcd says of itself.
    pub(crate) fn etcd_fact(&self, host: &HostName) -> Observation<Option<EtcdFact>> {
        let Some(server) = self.servers.get(host) else { return Observation::Known(None) };
        if server.unknown.contains(&Section::Etcd) {
            return Observation::unknown("etcd: no answer within 2 s");
        }
        let Some(number) = self.etcd_of(host) else { return Observation::Known(None) };
        let healthy = self.etcd_has_quorum(number);
        let Some(store) = self.etcd.get(&number) else { return Observation::Known(None) };
        let own = store.held_by(host);
        // A learner does not tell who the members are.
        let tells = healthy && own.is_some_and(|member| !member.learner);
        let members = store.members.iter().map(|(url, member)| {
            let started = member.holder.is_some();
            EtcdMemberFact {
                id: member.id.clone(),
                name: if started { member.name.clone() } else { String::new() },
                peer_urls: vec![url.clone()],
                client_urls: if started { vec![url.replace("2380", "2379")] } else { Vec::new() },
                learner: member.learner,
            }
        });
        Observation::Known(Some(EtcdFact {
            version: "3.4.23".to_owned(),
            cluster_id: format!("{number}"),
            member_id: own.map(|member| member.id.clone()).unwrap_or_default(),
            leader_id: if healthy { "leader".to_owned() } else { String::new() },
            healthy,
            members: if tells { members.collect() } else { Vec::new() },
            db_size_bytes: 20_480,
        }))
    }

    /// Changes the membership as [`EtcdChange`] has it.
    pub(crate) fn change_membership(
        &mut self,
        host: &HostName,
        change: &EtcdChange,
        (via, data_dir, token): (&[String], &str, &str),
    ) -> Result<(), EffectError> {
        let attempt = format!("change etcd's membership for {host}");
        let later = |cause: &str| Err(refused(host, attempt.clone(), cause, Retry::Later));
        if via.is_empty()
            || !via.iter().all(|url| self.etcd_at(std::slice::from_ref(url)).is_some())
        {
            return later("a member is not healthy");
        }
        let Some(number) = self.etcd_at(via) else { return later("no member answers") };
        let anew = self.servers.get(host).is_some_and(|server| {
            !server.data_dirs.contains_key(data_dir)
                && !server.runs(UNIT)
                && !server.manifest.claims(ClaimKind::EtcdFormed, token)
        });
        let (id, running) = (format!("member-{}", self.next_id()), self.etcd_running(number));
        let running: BTreeSet<HostName> = running.into_iter().cloned().collect();
        let Some(store) = self.etcd.get_mut(&number) else { return later("no such cluster") };
        let find = |store: &EtcdStore, id: &str| {
            store.members.iter().find(|(_, member)| member.id == *id).map(|(url, _)| url.clone())
        };
        match change {
            EtcdChange::Add { peer_url } => {
                if store.members.contains_key(peer_url) {
                    return Ok(());
                }
                if !anew || store.members.values().any(|member| member.learner) {
                    return later("it holds data, or another learner is on its way");
                }
                let member = EtcdMember { id, name: String::new(), learner: true, holder: None };
                store.members.insert(peer_url.clone(), member);
            }
            EtcdChange::Promote { id } => {
                let Some(url) = find(store, id) else { return later("it is not listed") };
                let Some(member) = store.members.get_mut(&url) else { return Ok(()) };
                if !member.learner {
                    return Ok(());
                }
                if member.holder.as_ref().is_none_or(|holder| !running.contains(holder)) {
                    return later("can only promote a learner member which is in sync with leader");
                }
                member.learner = false;
            }
            EtcdChange::Leave { id } => {
                let Some(url) = find(store, id) else { return Ok(()) };
                store.members.remove(&url);
                if !self.leaving.contains(host) {
                    self.violate(format!("the etcd member on {host} was removed, and it stays"));
                }
                if self.servers.get(host).is_some_and(|server| server.runs(crate::database::UNIT)) {
                    self.violate(format!("etcd left {host} while Patroni runs there"));
                }
            }
            EtcdChange::Forget { id } => {
                let Some(url) = find(store, id) else { return Ok(()) };
                if !anew {
                    return later("its data are there by now");
                }
                let lived = store.members.remove(&url).and_then(|member| member.holder);
                if lived.is_some_and(|holder| running.contains(&holder)) {
                    self.violate(format!("the living etcd member on {host} was removed"));
                }
            }
        }
        self.wrote("etcd/membership");
        let (voting, all) =
            (self.etcd_voting(number), self.etcd.get(&number).map_or(0, EtcdStore::voters));
        if voting * 2 <= all {
            self.violate(format!("a change of membership for {host} took the quorum away"));
        }
        self.cut_here(host)
    }

    /// The healthy store that one of these `host:port` client addresses leads to, in their order.
    pub(crate) fn etcd_at(&self, clients: &[String]) -> Option<u64> {
        clients.iter().find_map(|client| {
            let client = client.split_once("://").map_or(client.as_str(), |(_, rest)| rest);
            let address = client.rsplit_once(':')?.0.trim_matches(['[', ']']);
            let number = self.etcd_of(self.at_address(address)?)?;
            self.etcd_has_quorum(number).then_some(number)
        })
    }

    /// Ports of a server's etcd, while its process runs.
    pub(crate) fn etcd_ports(&self, host: &HostName) -> Vec<u16> {
        let Some(server) = self.servers.get(host).filter(|server| server.runs(UNIT)) else {
            return Vec::new();
        };
        ["ADVERTISE_CLIENT_URLS", "LISTEN_PEER_URLS"]
            .iter()
            .filter_map(|name| server.etcd_setting(name))
            .map(|url| port(&url))
            .collect()
    }

    /// Puts a running etcd of somebody else on a server.
    pub fn plant_foreign_etcd(&mut self, host: &str, data_dir: &str) {
        let number = self.next_id();
        let name = HostName::new(host);
        let url = self.servers.get(&name).map(|server| format!("http://{}:2380", server.address));
        self.etcd.insert(
            number,
            EtcdStore {
                token: "somebody-else".to_owned(),
                members: BTreeMap::from([(
                    url.unwrap_or_default(),
                    EtcdMember {
                        id: "member-theirs".to_owned(),
                        name: "theirs".to_owned(),
                        learner: false,
                        holder: Some(name),
                    },
                )]),
                formed: true,
                foreign: true,
                scopes: BTreeMap::new(),
            },
        );
        let server = self.server_mut(host);
        server.data_dirs.insert(data_dir.to_owned(), DataDir::Etcd(number));
        let unit = crate::Unit { running: true, enabled: true, ..crate::Unit::default() };
        server.units.insert(UNIT.to_owned(), unit);
    }
}

//! etcd: members that start with or without data, form a cluster once, and keep or lose quorum.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::model::{EtcdFact, EtcdMemberFact, HostName, Observation};

use crate::{
    World,
    server::{DataDir, Section, port},
};

/// The unit.
pub(crate) const UNIT: &str = "etcd.service";

/// One founded etcd cluster: what its members agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct EtcdStore {
    /// Token that it was founded with.
    pub token: String,
    /// Members by name, with their peer URLs.
    pub members: BTreeMap<String, String>,
    /// Servers that ever held a member's data of it.
    pub started: BTreeSet<HostName>,
    /// A quorum came together once.
    pub formed: bool,
    /// Not made by reconcile.
    pub foreign: bool,
    /// Patroni's scopes in it.
    pub scopes: BTreeMap<String, Scope>,
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
            .map(|(name, _)| name)
            .collect()
    }

    /// True where the store has a quorum now.
    pub fn etcd_has_quorum(&self, number: u64) -> bool {
        self.etcd.get(&number).is_some_and(|store| {
            store.formed && self.etcd_running(number).len() * 2 > store.members.len()
        })
    }

    /// The store whose data a server's etcd runs on.
    pub(crate) fn etcd_of(&self, host: &HostName) -> Option<u64> {
        let server = self.servers.get(host).filter(|server| server.runs(UNIT))?;
        server.data_dirs.values().find_map(|data| match data {
            DataDir::Etcd(number) => Some(*number),
            DataDir::Foreign | DataDir::Stillborn | DataDir::Postgres(_) => None,
        })
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
            let running = self.etcd_running(number).len();
            if let Some(store) = self.etcd.get_mut(&number) {
                store.formed |= running * 2 > store.members.len();
            }
        }
    }

    fn start_without_data(&mut self, host: &HostName) {
        let Some(server) = self.servers.get(host) else { return };
        let setting = |name: &str| server.etcd_setting(name).unwrap_or_default();
        let (directory, token) = (setting("DATA_DIR"), setting("INITIAL_CLUSTER_TOKEN"));
        let (own, state) =
            (setting("INITIAL_ADVERTISE_PEER_URLS"), setting("INITIAL_CLUSTER_STATE"));
        let members: BTreeMap<String, String> = setting("INITIAL_CLUSTER")
            .split(',')
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, url)| (name.to_owned(), url.to_owned()))
            .collect();
        let fresh = matches!(server.data_dirs.get(&directory), None | Some(DataDir::Stillborn));
        if !fresh || directory.is_empty() {
            return; // It cannot read what stands there and fails.
        }
        let same = self
            .etcd
            .iter()
            .find(|(_, store)| !store.foreign && store.token == token && store.members == members)
            .map(|(number, store)| (*number, store.formed, store.started.contains(host)));
        let number = if state == "new" {
            for (number, store) in &self.etcd {
                let beside = store.formed
                    && same.is_none_or(|(same, ..)| same != *number)
                    && store.members.values().any(|url| members.values().any(|own| own == url));
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
                let store = EtcdStore {
                    token,
                    members,
                    started: BTreeSet::new(),
                    formed: false,
                    foreign: false,
                    scopes: BTreeMap::new(),
                };
                self.etcd.insert(number, store);
                number
            }
        } else {
            // `existing` asks the peers; without a cluster among them it waits.
            let welcome = self.etcd.iter().find(|(number, store)| {
                self.etcd_has_quorum(**number)
                    && store.members.values().any(|url| *url == own)
                    && !store.started.contains(host)
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
        if let Some(store) = self.etcd.get_mut(&number) {
            store.started.insert(host.clone());
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
        let members = store.members.len();
        let left = self.etcd_running(number).len().saturating_sub(1);
        if members > 1 && left * 2 <= members && self.etcd_has_quorum(number) {
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
        let started = |name: &str, url: &str| {
            store.started.iter().any(|host| {
                host.as_str() == name
                    || self.servers.get(host).is_some_and(|server| url.contains(&server.address))
            })
        };
        let members = store.members.iter().map(|(name, url)| {
            let started = started(name, url);
            EtcdMemberFact {
                id: format!("member-{name}"),
                name: if started { name.clone() } else { String::new() },
                peer_urls: vec![url.clone()],
                client_urls: if started { vec![url.replace("2380", "2379")] } else { Vec::new() },
                learner: false,
            }
        });
        Observation::Known(Some(EtcdFact {
            version: "3.4.23".to_owned(),
            cluster_id: format!("{number}"),
            member_id: format!("member-{host}"),
            leader_id: if healthy { "leader".to_owned() } else { String::new() },
            healthy,
            members: if healthy { members.collect() } else { Vec::new() },
            db_size_bytes: 20_480,
        }))
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
                members: BTreeMap::from([("theirs".to_owned(), url.unwrap_or_default())]),
                started: BTreeSet::from([name]),
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

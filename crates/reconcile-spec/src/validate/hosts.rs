//! Rules and defaults of hosts: names, addresses, components, parts in the Swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::{Rules, ssh};
use crate::fault::Fault;
use crate::hints;
use crate::names::HostName;
use crate::v1alpha1;
use crate::valid::{Component, Host, SwarmRole};

/// More managers make the Swarm's consensus slower without making it safer in practice.
const MOST_DEFAULT_MANAGERS: usize = 5;

pub(super) fn hosts(
    rules: &mut Rules<'_>,
    hosts: &[v1alpha1::Host],
    common: Option<&v1alpha1::Ssh>,
    swarm: Option<&v1alpha1::Swarm>,
) -> Vec<Host> {
    let parts = swarm_roles(rules, hosts, swarm);
    let mut identities = ssh::Gaps::default();
    let mut out = Vec::new();
    for (index, (host, part)) in hosts.iter().zip(parts).enumerate() {
        let path = format!("spec.hosts[{index}]");
        let v1alpha1::Host { name, address, host_key, ssh, labels, components, swarm, leaving } =
            host;
        let address_path = format!("{path}.address");
        let address = ip(rules, &address_path, address)
            .filter(|address| usable(rules, &address_path, *address))
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let advertise_path = format!("{path}.swarm.advertiseAddress");
        let advertise_address = swarm
            .as_ref()
            .and_then(|swarm| swarm.advertise_address.as_ref())
            .and_then(|text| ip(rules, &advertise_path, text))
            .filter(|address| usable(rules, &advertise_path, *address))
            .unwrap_or(address);
        out.push(Host {
            name: rules
                .name(&format!("{path}.name"), name, HostName::new)
                .unwrap_or_else(HostName::placeholder),
            address,
            ssh: ssh::ssh(rules, &mut identities, index, ssh.as_ref(), common, host_key.as_ref()),
            labels: labels.clone(),
            components: components_of(rules, &path, components.as_deref()),
            swarm: part,
            advertise_address,
            leaving: leaving.unwrap_or(false),
        });
    }
    identities.report(rules, &out);
    duplicates(rules, &out);
    out
}

fn components_of(
    rules: &mut Rules<'_>,
    path: &str,
    components: Option<&[v1alpha1::Component]>,
) -> BTreeSet<Component> {
    let Some(components) = components else {
        return BTreeSet::from([Component::Etcd, Component::Patroni]);
    };
    let mut out = BTreeSet::new();
    for component in components {
        let component = match component {
            v1alpha1::Component::Etcd => Component::Etcd,
            v1alpha1::Component::Patroni => Component::Patroni,
        };
        if !out.insert(component) {
            let message = format!("`{path}.components` lists a component twice");
            rules.push(Fault::error(format!("{path}.components"), message));
        }
    }
    out
}

/// The address that a text is; emptiness has been reported by the walk.
fn ip(rules: &mut Rules<'_>, path: &str, text: &str) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let help = match text.split_once('/') {
        Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
            format!("write the address alone: `{address}`")
        }
        _ if text == "localhost" => {
            "the address by which the other hosts reach this one".to_owned()
        }
        _ if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            "four numbers from 0 to 255 with dots between them".to_owned()
        }
        _ => "names are not resolved here: etcd, Patroni and pg_hba.conf want the address itself"
            .to_owned(),
    };
    rules.push(Fault::error(path, format!("`{}` is no IP address", hints::clip(text))).help(help));
    None
}

/// Whether other hosts could reach the address.
fn usable(rules: &mut Rules<'_>, path: &str, address: IpAddr) -> bool {
    let what = if address.is_loopback() {
        "is a loopback address, which other hosts cannot reach"
    } else if address.is_unspecified() {
        "stands for all addresses, not for one host's"
    } else if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "is no address of a single host"
    } else {
        return true;
    };
    rules.push(
        Fault::error(path, format!("`{address}` {what}"))
            .help("the address of the host's interface in the network that all hosts share"),
    );
    false
}

fn duplicates(rules: &mut Rules<'_>, hosts: &[Host]) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut advertised: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, host) in hosts.iter().enumerate() {
        let name = host.name.as_str();
        if let Some(first) = names.insert(name, index).filter(|_| !name.is_empty()) {
            rules.push(
                Fault::error(
                    format!("spec.hosts[{index}].name"),
                    format!("two hosts are called {name}"),
                )
                .related(format!("spec.hosts[{first}].name"), "the other one")
                .help("names of hosts are names of etcd and Patroni members and must differ"),
            );
        }
        if let Some(first) =
            addresses.insert(host.address, index).filter(|_| !host.address.is_unspecified())
        {
            rules.push(
                Fault::error(
                    format!("spec.hosts[{index}].address"),
                    format!("two hosts have the address {}", host.address),
                )
                .related(
                    format!("spec.hosts[{first}].address"),
                    format!("{} has it too", hosts[first].name),
                ),
            );
        } else if let Some(first) = advertised
            .insert(host.advertise_address, index)
            .filter(|_| !host.advertise_address.is_unspecified())
        {
            rules.push(
                Fault::error(
                    format!("spec.hosts[{index}].swarm.advertiseAddress"),
                    format!(
                        "two hosts advertise the address {} to the Swarm",
                        host.advertise_address
                    ),
                )
                .related(format!("spec.hosts[{first}]"), format!("{} does too", hosts[first].name)),
            );
        }
        if let Some(key) = &host.ssh.host_key
            && let Some(first) = keys.insert(key, index)
        {
            rules.push(
                Fault::warning(
                    format!("spec.hosts[{index}].hostKey"),
                    format!("{} and {} have the same SSH host key", hosts[first].name, host.name),
                )
                .related(format!("spec.hosts[{first}].hostKey"), "the same key")
                .help("cloned servers share keys until `ssh-keygen -A` makes new ones; whoever holds one can pose as the other"),
            );
        }
    }
}

/// Every host's part in the Swarm: its own word, the list of managers, or the default.
fn swarm_roles(
    rules: &mut Rules<'_>,
    hosts: &[v1alpha1::Host],
    swarm: Option<&v1alpha1::Swarm>,
) -> Vec<SwarmRole> {
    let listed = swarm.and_then(|swarm| swarm.managers.as_deref());
    let own = |host: &v1alpha1::Host| host.swarm.as_ref().and_then(|swarm| swarm.role);
    let mut managers: BTreeSet<&str> = BTreeSet::new();
    for (index, name) in listed.unwrap_or_default().iter().enumerate() {
        let path = format!("spec.swarm.managers[{index}]");
        let Some(position) = hosts.iter().position(|host| host.name == *name) else {
            if !name.is_empty() {
                rules.push(unknown_host(path, name, hosts));
            }
            continue;
        };
        if !managers.insert(name) {
            rules.push(Fault::error(path, format!("`{name}` is listed twice")));
        } else if hosts[position].leaving == Some(true) {
            rules.push(
                Fault::error(path, format!("{name} is listed as a manager, and is to leave"))
                    .related(format!("spec.hosts[{position}].leaving"), "its own word")
                    .help("take it out of the list; another one may take its place"),
            );
        } else if let Some(role @ (v1alpha1::SwarmRole::Worker | v1alpha1::SwarmRole::None)) =
            own(&hosts[position])
        {
            let role = if role == v1alpha1::SwarmRole::Worker { "worker" } else { "none" };
            rules.push(
                Fault::error(
                    path,
                    format!("{name} is listed as a manager but says `role: {role}` itself"),
                )
                .related(format!("spec.hosts[{position}].swarm.role"), "its own word")
                .help("drop one of the two"),
            );
        }
    }
    let explicit = listed.is_some()
        || staying(hosts).any(|host| own(host) == Some(v1alpha1::SwarmRole::Manager));
    if !explicit {
        managers = default_managers(hosts);
    }
    hosts
        .iter()
        .map(|host| match own(host) {
            Some(v1alpha1::SwarmRole::Manager) => SwarmRole::Manager,
            Some(v1alpha1::SwarmRole::None) => SwarmRole::None,
            None if managers.contains(host.name.as_str()) => SwarmRole::Manager,
            Some(v1alpha1::SwarmRole::Worker) | None => SwarmRole::Worker,
        })
        .collect()
}

fn staying(hosts: &[v1alpha1::Host]) -> impl Iterator<Item = &v1alpha1::Host> {
    hosts.iter().filter(|host| host.leaving != Some(true))
}

/// The hosts with etcd, for they are built for consensus: an odd number, at most five.
fn default_managers(hosts: &[v1alpha1::Host]) -> BTreeSet<&str> {
    let fit: Vec<&str> = staying(hosts)
        .filter(|host| host.swarm.as_ref().is_none_or(|swarm| swarm.role.is_none()))
        .filter(|host| {
            host.components.as_ref().is_none_or(|parts| parts.contains(&v1alpha1::Component::Etcd))
        })
        .map(|host| host.name.as_str())
        .collect();
    let count = fit.len().min(MOST_DEFAULT_MANAGERS);
    let odd = if count.is_multiple_of(2) { count.saturating_sub(1) } else { count };
    fit.into_iter().take(odd).collect()
}

fn unknown_host(path: String, name: &str, hosts: &[v1alpha1::Host]) -> Fault {
    let names: Vec<&str> =
        hosts.iter().map(|host| host.name.as_str()).filter(|n| !n.is_empty()).collect();
    let help = match hints::nearest(name, &names) {
        Some(meant) => format!("did you mean `{meant}`? Hosts: {}", hints::listed(&names)),
        None => format!("hosts: {}", hints::listed(&names)),
    };
    Fault::error(path, format!("`{}` is no host of this cluster", hints::clip(name))).help(help)
}

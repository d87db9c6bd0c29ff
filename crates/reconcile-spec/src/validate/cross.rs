//! Rules that look at several parts of a cluster at once: ports, quorums, pool sizes, networks.

use std::collections::BTreeMap;

use super::{Rules, text};
use crate::fault::Fault;
use crate::ports::{BindAddress, Claimant, PortClaim, port_claims};
use crate::valid::{ClusterSpec, Component, HbaType, SwarmRole, SynchronousMode};

/// More members make etcd slower and lose no less.
const MOST_ETCD_MEMBERS: usize = 7;
/// Connections that are not the pools': superuser's reserve, Patroni, replication, probe, people.
const RESERVE: u64 = 20;

pub(super) fn rules(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    ports(rules, spec);
    front_ports(rules, spec);
    if !spec.hosts.is_empty() {
        core_members(rules, spec);
        swarm_members(rules, spec);
        synchronous(rules, spec);
        pools(rules, spec);
    }
    rewind(rules, spec);
    directories(rules, spec);
    subnet(rules, spec);
    tls(rules, spec);
}

/// Two claims on one socket of one host. The same pair on several hosts is one fault.
fn ports(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let claims = port_claims(spec);
    let mut clashes: BTreeMap<(Claimant, Claimant), (Vec<&str>, &PortClaim, &PortClaim)> =
        BTreeMap::new();
    for (index, a) in claims.iter().enumerate() {
        for b in claims[index + 1..].iter().take_while(|b| b.host == a.host) {
            if a.claimant != b.claimant && a.overlaps(b) {
                let (a, b) = if a.claimant < b.claimant { (a, b) } else { (b, a) };
                let clash = clashes.entry((a.claimant, b.claimant)).or_insert((Vec::new(), a, b));
                if !clash.0.contains(&a.host.as_str()) {
                    clash.0.push(a.host.as_str());
                }
            }
        }
    }
    for (hosts, a, b) in clashes.into_values() {
        let path = |claim: &PortClaim| claim_path(rules, spec, claim);
        let (path_a, path_b) = (path(a), path(b));
        // The later of the two in the file is the one to look at, and a default never is.
        let (at, other, at_claim, other_claim) =
            if rules.places.says(&path_b) || !rules.places.says(&path_a) {
                (path_b, path_a, b, a)
            } else {
                (path_a, path_b, a, b)
            };
        let label = if rules.places.says(&other) {
            format!("{} claims it here", other_claim.claimant)
        } else {
            match other_claim.claimant.path() {
                None if other_claim.claimant != Claimant::Ssh => {
                    format!("{} always has it", other_claim.claimant)
                }
                _ => format!("{} claims it by default ({other})", other_claim.claimant),
            }
        };
        let shown = |claim: &PortClaim| match claim.address {
            BindAddress::Ip(ip) if hosts.len() > 1 && !ip.is_loopback() => {
                "the host's address".to_owned()
            }
            address => address.to_string(),
        };
        let message = format!(
            "{} port {} on {} is claimed twice: by {} on {} and by {} on {}",
            a.protocol,
            a.port,
            hosts.join(", "),
            at_claim.claimant,
            shown(at_claim),
            other_claim.claimant,
            shown(other_claim),
        );
        let help = clash_help(at_claim, other_claim);
        rules.push(Fault::error(at, message).related(other, label).help(help));
    }
}

fn claim_path(rules: &Rules<'_>, spec: &ClusterSpec, claim: &PortClaim) -> String {
    if let Some(path) = claim.claimant.path() {
        return path.to_owned();
    }
    if claim.claimant == Claimant::Ssh
        && let Some(index) = spec.hosts.iter().position(|host| host.name == claim.host)
    {
        let own = format!("spec.hosts[{index}].ssh.port");
        return if rules.places.says(&own) { own } else { "spec.ssh.port".to_owned() };
    }
    "spec.swarm".to_owned()
}

fn clash_help(a: &PortClaim, b: &PortClaim) -> String {
    let pair = [a.claimant, b.claimant];
    let has = |wanted: &[Claimant]| pair.iter().any(|claimant| wanted.contains(claimant));
    if has(&[Claimant::Postgresql])
        && has(&[Claimant::PublishWrite, Claimant::PublishRead, Claimant::PublishStats])
    {
        return "the second to bind would fail, and after a boot PostgreSQL may be the second. On the overlay network\n\
            HAProxy has its own 5432 anyway; publish another port on the hosts, such as `write: 15432`, or none: `write: 0`"
            .to_owned();
    }
    if has(&[Claimant::Postgresql])
        && has(&[Claimant::FrontWrite, Claimant::FrontRead, Claimant::FrontStats])
    {
        return "two programs cannot share a port of a host: put PostgreSQL on another one, such as \
            `postgresql: { port: 5431 }`"
            .to_owned();
    }
    if has(&[Claimant::SwarmControl, Claimant::SwarmGossip, Claimant::SwarmVxlan]) {
        return "Docker fixes the ports of the Swarm; choose another one for the rest".to_owned();
    }
    let wildcard = [a.address, b.address].contains(&BindAddress::Any) && a.address != b.address;
    let why = if wildcard { "0.0.0.0 stands for all addresses of a host; " } else { "" };
    format!("{why}give one of the two another port")
}

/// The front's own ports live in its own network namespace, and must differ there.
fn front_ports(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let ports = spec.haproxy.ports;
    let named = [("write", ports.write), ("read", ports.read), ("stats", ports.stats)];
    for (index, (name, port)) in named.iter().enumerate() {
        if let Some((first, _)) = named[..index].iter().find(|(_, other)| other == port) {
            let said = format!("spec.haproxy.ports.{name}");
            let other = format!("spec.haproxy.ports.{first}");
            let (at, other) = if rules.places.says(&said) { (said, other) } else { (other, said) };
            rules.push(
                Fault::error(
                    at,
                    format!("HAProxy cannot use port {port} for both `{first}` and `{name}`"),
                )
                .related(other.clone(), format!("also {port} ({other})"))
                .help("each of the three needs a port of its own"),
            );
        }
    }
}

fn core_members(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let members = spec.hosts_with(Component::Etcd).count();
    let message = match members {
        0 => {
            rules.push(
                Fault::error(
                    "spec.hosts",
                    "no host runs etcd, without which Patroni has nothing to agree by",
                )
                .at_key()
                .help(
                    "let three hosts have the component `etcd`; without `components` a host has it",
                ),
            );
            None
        }
        1 => {
            Some("etcd has one member: when its host is away, the cluster has no leader".to_owned())
        }
        count if count.is_multiple_of(2) => Some(format!(
            "etcd has {count} members, which tolerate the loss of {}, as {} would",
            (count - 1) / 2,
            count - 1
        )),
        count if count > MOST_ETCD_MEMBERS => {
            Some(format!("etcd has {count} members; each one more makes every write slower"))
        }
        _ => None,
    };
    if let Some(message) = message {
        rules.push(Fault::warning("spec.hosts", message).at_key().help(
            "an odd number is usual, 3 or 5; a host without etcd says `components: [patroni]`",
        ));
    }
    match spec.hosts_with(Component::Patroni).count() {
        0 => rules.push(
            Fault::error("spec.hosts", "no host runs PostgreSQL")
                .at_key()
                .help("let at least two hosts have the component `patroni`; without `components` a host has it"),
        ),
        1 => rules.push(
            Fault::warning("spec.hosts", "one host runs PostgreSQL: there is no replica to fail over to")
                .at_key()
                .help("add a host, or the component `patroni` to another one"),
        ),
        _ => {}
    }
}

fn swarm_members(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let nodes = spec.swarm_hosts().count();
    let managers = spec.swarm_managers().count();
    if nodes == 0 {
        rules.push(
            Fault::error(
                "spec.hosts",
                "no host is a node of the Swarm, so HAProxy and PgBouncer would run nowhere",
            )
            .at_key()
            .help("drop `swarm: { role: none }` from some hosts"),
        );
    } else if managers == 0 {
        let path = if rules.places.says("spec.swarm.managers") {
            "spec.swarm.managers"
        } else {
            "spec.hosts"
        };
        rules.push(
            Fault::error(path, "the Swarm has no manager")
                .at_key()
                .help("name some under `swarm: { managers: [...] }`, an odd number; by default the hosts with etcd are"),
        );
    } else if managers.is_multiple_of(2) {
        let path = if rules.places.says("spec.swarm.managers") {
            "spec.swarm.managers"
        } else {
            "spec.hosts"
        };
        rules.push(
            Fault::warning(
                path,
                format!(
                    "the Swarm has {managers} managers, which tolerate the loss of {}, as {} would",
                    (managers - 1) / 2,
                    managers - 1
                ),
            )
            .at_key()
            .help("an odd number is usual, 3 or 5; the other nodes are workers"),
        );
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        if host.components.is_empty() && host.swarm == SwarmRole::None {
            rules.push(
                Fault::warning(
                    format!("spec.hosts[{index}]"),
                    format!("nothing runs on {}", host.name),
                )
                .help("give it components or a part in the Swarm, or drop it"),
            );
        }
    }
}

fn synchronous(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let synchronous = &spec.patroni.synchronous;
    if synchronous.mode == SynchronousMode::Off {
        return;
    }
    let replicas = spec.hosts_with(Component::Patroni).count().saturating_sub(1);
    let wanted = usize::try_from(synchronous.node_count).unwrap_or(usize::MAX);
    let path = "spec.patroni.synchronous.nodeCount";
    if wanted > replicas {
        rules.push(
            Fault::error(
                path,
                format!(
                    "{wanted} synchronous standbys are wanted, but there are {replicas} replicas"
                ),
            )
            .help(format!(
                "at most {} leaves one replica to spare",
                replicas.saturating_sub(1).max(1)
            )),
        );
    } else if wanted == replicas && synchronous.strict {
        rules.push(
            Fault::warning(path, format!("with all {replicas} replicas synchronous and `strict`, the loss of any one stops all writes"))
                .help("lower nodeCount below the number of replicas, or drop `strict`"),
        );
    } else if wanted == replicas && wanted > 1 {
        rules.push(
            Fault::warning(path, format!("all {replicas} replicas are synchronous: the slowest one sets the pace of every write"))
                .help("lower nodeCount below the number of replicas"),
        );
    }
}

/// Server connections that the poolers for writes may open, against what PostgreSQL admits.
fn pools(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let Some(most) =
        spec.postgresql.parameters.get("max_connections").and_then(|v| v.parse::<u64>().ok())
    else {
        return;
    };
    let nodes = u64::try_from(spec.swarm_hosts().count()).unwrap_or(u64::MAX);
    let databases = u64::try_from(spec.postgresql.databases.len().max(1)).unwrap_or(u64::MAX);
    let pool = u64::from(spec.pgbouncer.default_pool_size);
    let wanted = nodes.saturating_mul(databases).saturating_mul(pool);
    if wanted.saturating_add(RESERVE) <= most {
        return;
    }
    let parameter = "spec.postgresql.parameters.max_connections";
    let size = "spec.pgbouncer.defaultPoolSize";
    let named = "spec.postgresql.databases";
    let (at, other, label) = if rules.places.says(parameter) {
        (parameter, size, format!("pools of {pool}"))
    } else {
        let at = if rules.places.says(size) || !rules.places.says(named) { size } else { named };
        (at, parameter, format!("PostgreSQL admits {most} by default ({parameter})"))
    };
    rules.push(
        Fault::warning(at, format!(
            "the poolers may open {wanted} connections to the primary ({nodes} nodes × {databases} databases × {pool}), \
             but max_connections is {most}"
        ))
        .related(other, label)
        .help(format!(
            "raise max_connections to {} or lower defaultPoolSize; at the limit clients see \"too many clients already\"",
            wanted.saturating_add(RESERVE)
        )),
    );
}

/// `pg_rewind` needs either checksums or full-page hints.
fn rewind(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let hints = spec.postgresql.parameters.get("wal_log_hints").is_some_and(|value| value == "off");
    if spec.patroni.use_pg_rewind && !spec.postgresql.initdb.data_checksums && hints {
        rules.push(
            Fault::error(
                "spec.postgresql.parameters.wal_log_hints",
                "pg_rewind needs data checksums or `wal_log_hints: on`",
            )
            .related("spec.postgresql.initdb.dataChecksums", "no checksums")
            .help("drop one of the two, or set `patroni: { usePgRewind: false }`"),
        );
    }
}

fn directories(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let (etcd, postgresql) = (&spec.etcd.data_dir, &spec.postgresql.data_dir);
    let inside = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if inside(etcd, postgresql) || inside(postgresql, etcd) {
        let (a, b) = ("spec.etcd.dataDir", "spec.postgresql.dataDir");
        let (at, other) = if rules.places.says(a) { (a, b) } else { (b, a) };
        let said = rules.places.says(other);
        rules.push(
            Fault::error(
                at,
                format!(
                    "the data directories of etcd ({etcd}) and PostgreSQL ({postgresql}) overlap"
                ),
            )
            .related(other, if said { "the other one" } else { "the other one is a default" })
            .help("each needs a directory of its own"),
        );
    }
}

fn subnet(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let Some((network, prefix)) =
        spec.swarm.network_subnet.as_deref().and_then(|s| text::network(s).ok())
    else {
        return;
    };
    let inside = |host: &crate::valid::Host| {
        host.address.is_ipv4() == network.is_ipv4() && text::masked(host.address, prefix) == network
    };
    if let Some(index) = spec.hosts.iter().position(inside) {
        let host = &spec.hosts[index];
        rules.push(
            Fault::error(
                "spec.swarm.networkSubnet",
                format!(
                    "the overlay network {network}/{prefix} covers {}, the address of {}",
                    host.address, host.name
                ),
            )
            .related(format!("spec.hosts[{index}].address"), "a host's address")
            .help("containers could not reach that host; choose a range that is used nowhere else"),
        );
    }
}

/// `hostssl` lines match nothing while TLS is off.
fn tls(rules: &mut Rules<'_>, spec: &ClusterSpec) {
    let off = spec.postgresql.parameters.get("ssl").is_some_and(|value| value == "off");
    for (index, rule) in spec.postgresql.hba.iter().enumerate() {
        if off && rule.kind == HbaType::Hostssl {
            rules.push(
                Fault::warning(
                    format!("spec.postgresql.hba[{index}].type"),
                    "a `hostssl` line matches nothing while `ssl` is off",
                )
                .related("spec.postgresql.parameters.ssl", "TLS is off")
                .help("drop `ssl: off`, or write `type: host`"),
            );
        }
    }
}

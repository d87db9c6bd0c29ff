//! What a server must carry: packages, files, units, directories.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_spec::{
    ClusterSpec,
    valid::{Component, Host, PackageSource, SwarmRole},
};
use serde::Serialize;

use super::{SecretValues, etcd, names, patroni};
use crate::{
    action::{DesiredFile, UnitVerb},
    model::Content,
};

/// Keeps Debian's PostgreSQL packages from creating a cluster of their own; read by
/// postgresql-common at install.
pub const CREATE_CLUSTER: &str = "/etc/postgresql-common/createcluster.d/reconcile.conf";
/// Keeps packages from starting their services while they are installed; gone after that.
pub const POLICY: &str = "/usr/sbin/policy-rc.d";
/// What stands in it: by this it is known as ours.
pub const POLICY_TEXT: &str = "#!/bin/sh
# reconcile: packages are being installed; this file goes when that is done
exit 101
";
/// Where packages land, for the space that they need.
pub const PACKAGE_DISK: &str = "/usr";
/// The package that brings a Docker engine to a server without one.
pub const ENGINE_PACKAGE: &str = "docker.io";

/// A server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredServer {
    /// Address.
    pub address: String,
    /// Address advertised in the Swarm.
    pub advertise: String,
    /// Packages; empty where the specification says that they are preinstalled.
    pub packages: Vec<DesiredPackage>,
    /// Packages may be installed.
    pub install: bool,
    /// Files that must be there before packages are, then those whose owner a package brings.
    pub files: BTreeMap<String, ManagedFile>,
    /// Units.
    pub units: BTreeMap<String, ManagedUnit>,
    /// Place in the Swarm.
    pub swarm: SwarmRole,
    /// Ports that our own processes hold here: (port, process names that may hold it, component).
    pub ports: BTreeMap<u16, PortUse>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DesiredPackage {
    /// Name.
    pub name: String,
    /// Version to pin, if the specification says one.
    pub version: Option<String>,
}

/// A file with when and how it takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedFile {
    /// The file.
    pub file: DesiredFile,
    /// Written before packages are installed.
    pub before_packages: bool,
    /// What a running unit needs when the file changes.
    pub notify: Option<(String, UnitVerb)>,
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManagedUnit {
    /// The component.
    pub component: Component,
}

/// Who may hold a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortUse {
    /// The component, in words.
    pub component: String,
    /// Command names that are ours; anything else is a stranger.
    pub processes: BTreeSet<String>,
}

/// What the server must carry.
pub(super) fn server(spec: &ClusterSpec, host: &Host, values: &SecretValues<'_>) -> DesiredServer {
    let has = |component| host.components.contains(&component);
    let mut packages = Vec::new();
    let mut files = BTreeMap::new();
    let mut units = BTreeMap::new();
    if host.leaving {
        let component = |component| (component_unit(component), ManagedUnit { component });
        return DesiredServer {
            address: host.address.to_string(),
            advertise: host.advertise_address.to_string(),
            packages,
            install: false,
            files,
            units: host.components.iter().copied().map(component).collect(),
            swarm: host.swarm,
            ports: ports(spec, host),
        };
    }
    let mut add = |file: DesiredFile, before_packages, notify| {
        files.insert(file.path.clone(), ManagedFile { file, before_packages, notify });
    };
    if has(Component::Etcd) {
        packages.extend(pinned(&etcd::PACKAGES, spec.etcd.version.as_deref()));
        let restart = Some((etcd::UNIT.to_owned(), UnitVerb::Restart));
        add(root_file(etcd::ENV, etcd::environment(spec, host)), true, restart.clone());
        add(root_file(etcd::UNIT_FILE, etcd::unit(spec)), true, restart);
        units.insert(etcd::UNIT.to_owned(), ManagedUnit { component: Component::Etcd });
    }
    if has(Component::Patroni) {
        let version = spec.postgresql.version;
        packages.extend(pinned(&patroni::PACKAGES, None));
        packages.extend(pinned(
            &[&format!("postgresql-{version}"), &format!("postgresql-client-{version}")],
            spec.postgresql.package_version.as_deref(),
        ));
        for package in &mut packages {
            if package.name == "patroni" {
                package.version.clone_from(&spec.patroni.version);
            }
        }
        let no_cluster = super::header("#", spec.name.as_str()) + "create_main_cluster = false\n";
        add(root_file(CREATE_CLUSTER, no_cluster), true, None);
        // A changed unit takes effect at the next start: restarting Patroni would fail over.
        add(root_file(patroni::UNIT_FILE, patroni::unit(spec)), true, None);
        let config = DesiredFile {
            path: patroni::CONFIG.to_owned(),
            content: Content::secret(patroni::config(spec, host, values)),
            mode: 0o600,
            owner: "postgres".to_owned(),
            group: "postgres".to_owned(),
        };
        add(config, false, Some((patroni::UNIT.to_owned(), UnitVerb::Reload)));
        units.insert(patroni::UNIT.to_owned(), ManagedUnit { component: Component::Patroni });
    }
    if !packages.is_empty() || host.swarm != SwarmRole::None {
        packages.extend(pinned(&["curl"], None));
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let install = spec.packages.source == PackageSource::Apt;
    DesiredServer {
        address: host.address.to_string(),
        advertise: host.advertise_address.to_string(),
        packages,
        install,
        files,
        units,
        swarm: host.swarm,
        ports: ports(spec, host),
    }
}

fn component_unit(component: Component) -> String {
    match component {
        Component::Etcd => etcd::UNIT.to_owned(),
        Component::Patroni => patroni::UNIT.to_owned(),
    }
}

fn pinned(packages: &[&str], version: Option<&str>) -> Vec<DesiredPackage> {
    let package = |name: &&str| DesiredPackage {
        name: (*name).to_owned(),
        version: version.map(str::to_owned),
    };
    packages.iter().map(package).collect()
}

fn root_file(path: &str, text: String) -> DesiredFile {
    DesiredFile {
        path: path.to_owned(),
        content: Content::open(text),
        mode: 0o644,
        owner: "root".to_owned(),
        group: "root".to_owned(),
    }
}

fn ports(spec: &ClusterSpec, host: &Host) -> BTreeMap<u16, PortUse> {
    let mut ports = BTreeMap::new();
    let mut claim = |port, component: &str, processes: &[&str]| {
        let processes = names(processes);
        ports.insert(port, PortUse { component: component.to_owned(), processes });
    };
    if host.components.contains(&Component::Etcd) {
        claim(spec.etcd.client_port, "etcd", &["etcd"]);
        claim(spec.etcd.peer_port, "etcd", &["etcd"]);
    }
    if host.components.contains(&Component::Patroni) {
        claim(spec.patroni.rest_api_port, "Patroni", &["patroni", "python3"]);
        claim(spec.postgresql.port, "PostgreSQL", &["postgres", "postmaster"]);
    }
    if host.swarm != SwarmRole::None {
        claim(spec.pgbouncer.ports.write, "PgBouncer", &["pgbouncer"]);
        claim(spec.pgbouncer.ports.read, "PgBouncer", &["pgbouncer"]);
        let router = &spec.haproxy.router_ports;
        for port in [router.primary, router.replicas, router.health, router.stats] {
            claim(port, "HAProxy's router", &["haproxy"]);
        }
        let publish = &spec.haproxy.publish;
        for port in [publish.write, publish.read, publish.stats].into_iter().flatten() {
            claim(port, "HAProxy's published port", &["docker-proxy", "dockerd"]);
        }
    }
    ports
}

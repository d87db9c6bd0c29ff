//! Changes that a converged cluster of three is to be brought through.

use reconcile_core::{desired::Desired, model::HostName};
use reconcile_sim::{World, fixture};
use reconcile_spec::{
    ClusterSpec,
    valid::{Bytes, HbaMethod, RoleName},
};

use crate::run::converged;

/// A world that is not as desired.
#[derive(Clone)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// The world before the change, as the operator knew it.
    pub(crate) before: World,
    /// What happens to it.
    pub(crate) disturb: fn(&mut World),
    /// What is desired now.
    pub(crate) desired: Desired,
}

impl Workload {
    /// The world with the change.
    pub(crate) fn start(&self) -> World {
        let mut world = self.before.clone();
        world.grow(&self.desired);
        (self.disturb)(&mut world);
        world.settle();
        world
    }
}

fn nothing(_: &mut World) {}

fn altered_by_hand(world: &mut World) {
    for database in world.databases.values_mut() {
        database.sql.altered.insert("work_mem".to_owned(), "99MB".to_owned());
    }
}

/// From bare servers.
pub(crate) fn bare() -> Workload {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    Workload { name: "bare", before: World::bare(&desired), disturb: nothing, desired }
}

/// All workloads that start from a converged cluster.
pub(crate) async fn changes() -> Vec<Workload> {
    let spec = fixture::spec(3, 0, |_| {});
    let same = fixture::desire(&spec);
    let before = converged(&same).await;
    let drift =
        |name, disturb| Workload { name, before: before.clone(), disturb, desired: same.clone() };
    let change = |name, change: fn(&mut ClusterSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        let desired = fixture::desire(&spec);
        Workload { name, before: before.clone(), disturb: nothing, desired }
    };
    let rotated = {
        let mut secrets = fixture::secrets(&spec);
        let name = reconcile_spec::secrets::PGBOUNCER_ADMIN.to_owned();
        secrets.insert(name, reconcile_core::model::SecretText::new("another-canary"));
        reconcile_core::desired::desired(&spec, &secrets).unwrap()
    };
    vec![
        drift("files drift", files_drift),
        drift("units stopped", units_stopped),
        drift("service removed", service_removed),
        drift("objects drift", objects_drift),
        drift("package half installed", package_half_installed),
        drift("alter system", altered_by_hand),
        change("haproxy config", |spec| spec.haproxy.maxconn = 5000),
        change("role and database added", role_added),
        change("etcd environment", |spec| spec.etcd.heartbeat_ms = 150),
        change("access rules", |spec| {
            let mut rule = crate::access::rule("report", HbaMethod::ScramSha256);
            rule.address = Some("10.9.0.0/16".to_owned());
            spec.postgresql.hba.push(rule);
        }),
        change("patroni dynamic config", |spec| {
            spec.patroni.ttl = 45;
            spec.patroni.maximum_lag_on_failover = Bytes(2 << 20);
        }),
        Workload {
            disturb: |world| {
                for server in world.servers.values_mut() {
                    server.units.get_mut("etcd.service").unwrap().running = false;
                }
            },
            ..change("etcd environment while it is stopped", |spec| spec.etcd.heartbeat_ms = 150)
        },
        change("raised max_connections", |spec| parameter(spec, "max_connections", "300")),
        change("lowered max_connections", |spec| parameter(spec, "max_connections", "150")),
        change("shared_buffers", |spec| parameter(spec, "shared_buffers", "256MB")),
        change("one raised, one lowered", |spec| {
            parameter(spec, "max_connections", "150");
            parameter(spec, "max_worker_processes", "16");
        }),
        change("packages upgraded", |spec| {
            spec.etcd.version = Some("1.0-2".to_owned());
            spec.patroni.version = Some("1.1-1".to_owned());
        }),
        change("PostgreSQL upgraded", |spec| {
            spec.postgresql.package_version = Some("15.2-1".to_owned());
        }),
        change("all upgraded, and a parameter", |spec| {
            spec.etcd.version = Some("1.1-1".to_owned());
            spec.patroni.version = Some("1.1-1".to_owned());
            spec.postgresql.package_version = Some("15.2-1".to_owned());
            parameter(spec, "max_connections", "300");
        }),
        Workload {
            name: "secret rotated",
            before: before.clone(),
            disturb: nothing,
            desired: rotated,
        },
        Workload {
            name: "worker added",
            before,
            disturb: nothing,
            desired: fixture::desire(&fixture::spec(3, 1, |_| {})),
        },
    ]
}

fn parameter(spec: &mut ClusterSpec, name: &str, value: &str) {
    spec.postgresql.parameters.insert(name.to_owned(), value.to_owned());
}

fn role_added(spec: &mut ClusterSpec) {
    let mut role = spec.postgresql.roles[0].clone();
    role.name = RoleName::new("audit").unwrap();
    role.member_of = vec![RoleName::new("readers").unwrap()];
    spec.postgresql.roles.push(role);
    let mut database = spec.postgresql.databases[0].clone();
    database.name = reconcile_spec::valid::DatabaseName::new("audit").unwrap();
    database.owner = RoleName::new("audit").unwrap();
    spec.postgresql.databases.push(database);
}

fn files_drift(world: &mut World) {
    for (host, path) in [
        ("node1", "/etc/postgresql-common/createcluster.d/reconcile.conf"),
        ("node2", "/etc/default/etcd"),
        ("node3", "/etc/systemd/system/patroni.service"),
    ] {
        let file = world.server_mut(host).files.get_mut(path).unwrap();
        file.bytes.extend_from_slice(b"# by hand\n");
    }
    world.server_mut("node3").files.get_mut("/etc/patroni/patroni.yml").unwrap().mode = 0o644;
    world.server_mut("node1").files.remove("/etc/systemd/system/patroni.service");
}

fn units_stopped(world: &mut World) {
    for (host, unit) in [("node2", "etcd.service"), ("node3", "patroni.service")] {
        world.server_mut(host).units.get_mut(unit).unwrap().running = false;
    }
    world.server_mut("node1").units.get_mut("patroni.service").unwrap().enabled = false;
}

fn service_removed(world: &mut World) {
    for swarm in world.swarms.values_mut() {
        swarm.services.remove("db-utils_router");
        swarm.services.get_mut("db-utils_pgbouncer").unwrap().spec.stop_grace_ms = 1;
    }
}

fn objects_drift(world: &mut World) {
    for database in world.databases.values_mut() {
        database.sql.roles.get_mut("report").unwrap().connection_limit = 7;
        database.sql.roles.remove("pgbouncer");
        let app = database.sql.databases.get_mut("app").unwrap();
        app.extensions.as_mut().unwrap().remove("pgcrypto");
        "report".clone_into(&mut app.owner);
        app.pooler_lookup = None;
    }
    for store in world.etcd.values_mut() {
        store.scopes.get_mut("main").unwrap().config["ttl"] = 21.into();
    }
}

fn package_half_installed(world: &mut World) {
    world.server_mut("node2").packages.get_mut("patroni").unwrap().complete = false;
    world.server_mut("node3").packages.remove("curl");
}

/// Name of a host.
pub(crate) fn host(name: &str) -> HostName {
    HostName::new(name)
}

//! The plan of ports, and the secrets that a cluster needs.

use reconcile_spec::valid::{port_claims, required_secrets};
use reconcile_spec::{ValidSpec, load};

fn example(text: &str) -> ValidSpec {
    let loaded = load("example.yaml", text).unwrap_or_else(|faults| panic!("{faults}"));
    loaded.clusters.into_iter().next().unwrap()
}

#[test]
fn ports_of_the_least_example() {
    let spec = example(include_str!("../../../../examples/three-servers.yaml"));
    let shown: Vec<String> = port_claims(&spec)
        .iter()
        .filter(|claim| claim.host == "node1")
        .map(|claim| {
            format!("{} {}:{} {}", claim.protocol, claim.address, claim.port, claim.claimant)
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    TCP 0.0.0.0:22 sshd
    TCP 0.0.0.0:2377 Docker Swarm (managers)
    TCP 127.0.0.1:2379 etcd (clients)
    TCP 192.0.2.11:2379 etcd (clients)
    TCP 192.0.2.11:2380 etcd (peers)
    TCP 127.0.0.1:5432 PostgreSQL
    TCP 192.0.2.11:5432 PostgreSQL
    TCP 0.0.0.0:5433 HAProxy's published read port
    TCP 127.0.0.1:5442 the router (primary)
    TCP 127.0.0.1:5443 the router (replicas)
    TCP 0.0.0.0:5444 the router (health)
    TCP 127.0.0.1:5445 the router (stats)
    TCP 0.0.0.0:6432 PgBouncer (writes)
    TCP 0.0.0.0:6433 PgBouncer (reads)
    TCP 0.0.0.0:7000 HAProxy's published stats port
    TCP 0.0.0.0:7946 Docker Swarm (gossip)
    TCP 192.0.2.11:8008 Patroni's REST API
    TCP 0.0.0.0:15432 HAProxy's published write port
    UDP 0.0.0.0:4789 Docker Swarm (overlay networks)
    UDP 0.0.0.0:7946 Docker Swarm (gossip)
    ");
}

#[test]
fn a_worker_has_no_port_of_the_core() {
    let spec = example(include_str!("../../../../examples/three-servers-and-worker.yaml"));
    let ports: Vec<u16> = port_claims(&spec)
        .iter()
        .filter(|claim| claim.host == "app1")
        .map(|claim| claim.port)
        .collect();
    assert!(ports.contains(&6432) && ports.contains(&5442), "{ports:?}");
    for port in [2379, 2380, 5432, 8008, 2377] {
        assert!(!ports.contains(&port), "{port} in {ports:?}");
    }
}

#[test]
fn claims_never_overlap_in_a_valid_cluster() {
    for text in [
        include_str!("../../../../examples/three-servers.yaml"),
        include_str!("../../../../examples/full.yaml"),
    ] {
        let claims = port_claims(&example(text));
        for (index, a) in claims.iter().enumerate() {
            for b in &claims[index + 1..] {
                assert!(!a.overlaps(b) || a.claimant == b.claimant, "{a:?} and {b:?}");
            }
        }
    }
}

#[test]
fn secrets_of_the_system_and_of_roles() {
    let spec = example(include_str!("../../../../examples/full.yaml"));
    let shown: Vec<String> = required_secrets(&spec)
        .iter()
        .map(|secret| format!("{}: {}", secret.name, secret.used_by.join(", ")))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    app-password: PostgreSQL role app
    patroni-restapi: Patroni REST API
    pgbouncer-admin: PgBouncer admin console
    pgbouncer-auth: PostgreSQL role pgbouncer
    postgres-replication: PostgreSQL role replicator
    postgres-rewind: PostgreSQL role rewind
    postgres-superuser: PostgreSQL role postgres
    reconcile-probe: PostgreSQL role reconcile_probe
    report-password: PostgreSQL role report
    ");
}

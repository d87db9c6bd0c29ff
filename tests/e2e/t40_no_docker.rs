//! A single server without a Docker engine: the operator installs one, and the cluster of one
//! serves.

use crate::harness::{Lab, Once, condition, seconds};

#[test]
fn one_server_without_an_engine_becomes_a_serving_cluster() {
    let name = format!("{}nodocker", Lab::shared_name());
    let once = Once(Lab::up(&name, &["--servers", "1", "--no-docker"]));
    let lab = &once.0;
    let node = lab.nodes()[0];
    lab.sh(node, "! command -v dockerd");
    let spec = lab.spec();
    lab.reconcile(&spec, &["validate"]).expect(0);
    let secrets = lab.secrets(&spec);
    let ran = lab.reconcile(&spec, &[]).expect(0).says("and serves");
    println!("one server without an engine: {}", seconds(ran.took));
    lab.reconcile(&spec, &[]).expect(0).says("0 steps done");
    let status = lab.await_ready(&spec);
    assert_eq!(condition(&status, "Ready"), "True", "{status:#}");
    assert_eq!(
        lab.sh(node, "systemctl is-active docker; systemctl is-enabled docker"),
        "active\nenabled\n"
    );
    for port in [15432, 5433] {
        // Without a replica, reads are the primary's.
        let told = lab.login(node, port, &secrets).ask("select pg_is_in_recovery()::text");
        assert_eq!(told.as_deref(), Ok("false"), "port {port}");
    }
}

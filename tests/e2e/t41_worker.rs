//! A server that only runs containers: it joins the Swarm as a worker, gets a front, poolers and a
//! router like every node, and holds no part of the core.

use crate::harness::{Lab, Once, condition, seconds};

#[test]
fn a_worker_serves_like_every_node() {
    let name = format!("{}worker", Lab::shared_name());
    let once = Once(Lab::up(&name, &["--servers", "2"]));
    let lab = &once.0;
    let line = format!("- {{ name: node2, address: {} }}", lab.address("node2"));
    let worker = line.replace(" }", ", components: [], swarm: { role: worker } }");
    let text = lab.example();
    assert!(text.contains(&line), "`{line}` is not in\n{text}");
    let spec = lab.write("cluster.yaml", &text.replace(&line, &worker));
    let secrets = lab.secrets(&spec);
    let ran = lab.reconcile(&spec, &[]).expect(0).says("and serves");
    println!("one server and a worker: {}", seconds(ran.took));
    lab.reconcile(&spec, &[]).expect(0).says("0 steps done");
    let status = lab.await_ready(&spec);
    assert_eq!(condition(&status, "SwarmHealthy"), "True", "{status:#}");
    let nodes = "docker node ls --format '{{.Hostname}} {{.Status}} {{if .ManagerStatus}}manager{{else}}worker{{end}}' | sort";
    assert_eq!(lab.sh("node1", nodes), "node1 Ready manager\nnode2 Ready worker\n");
    // Nothing of the core is there, and the way in is.
    lab.sh("node2", "! command -v patroni && ! command -v etcd && test ! -e /var/lib/etcd");
    for (port, recovering) in [(15432, "false"), (5433, "false")] {
        let told = lab.login("node2", port, &secrets).ask("select pg_is_in_recovery()::text");
        assert_eq!(told.as_deref(), Ok(recovering), "port {port}");
    }
    // A worker that has left is joined again.
    lab.sh("node2", "docker swarm leave");
    lab.reconcile(&spec, &[]).expect(0).says("and serves");
    let told = lab.login("node2", 15432, &secrets).ask("select 1");
    assert_eq!(told.as_deref(), Ok("1"));
}

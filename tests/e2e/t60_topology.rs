//! Servers come and go under writes: one is lost and set up anew under its name, and one is added.
//! No acknowledged write is lost, and the members that stay are left alone.

use std::{path::PathBuf, time::Instant};

use crate::harness::{Lab, Load, Login, Once, PATIENCE, Secrets, figure, seconds, until};

const MEMBERS: &str =
    "ETCDCTL_API=3 etcdctl member list | awk -F', ' '{ print $3, $2, $6 }' | sort";
const NODES: &str = "docker node ls --format '{{.Hostname}} {{.Status}} {{if .ManagerStatus}}manager{{else}}worker{{end}}' | sort";
/// What the router runs with.
const ROUTER: &str = "docker config inspect --pretty $(docker service inspect db-utils_router --format '{{range .Spec.TaskTemplate.ContainerSpec.Configs}}{{.ConfigName}} {{end}}')";
/// When etcd's process started.
const STARTED: &str = "systemctl show -p ExecMainStartTimestampMonotonic --value etcd";

/// The example with a fourth server.
fn four(lab: &Lab) -> PathBuf {
    let text = lab.example();
    let line = format!("    - {{ name: node3, address: {} }}\n", lab.address("node3"));
    assert!(text.contains(&line), "`{line}` is not in\n{text}");
    let more = format!("{line}    - {{ name: node4, address: {} }}\n", lab.address("node4"));
    lab.write("four.yaml", &text.replace(&line, &more))
}

fn started(lab: &Lab, nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| lab.sh(node, STARTED)).collect()
}

fn ways_in(lab: &Lab, secrets: &Secrets, nodes: &[&str]) -> Vec<Login> {
    nodes.iter().map(|node| lab.login(node, 15432, secrets)).collect()
}

/// Ends a load, which lost nothing, and says what it saw.
fn told(load: Load, change: &str, took: std::time::Duration) {
    let seen = load.end();
    println!("{change}: {}; {seen}", seconds(took));
    figure(
        change,
        "0 acknowledged writes lost",
        &format!(
            "{}; {} writes, {} failed, 0 acknowledged lost, longest wait {}",
            seconds(took),
            seen.done(),
            seen.failed(),
            seconds(seen.longest_wait())
        ),
    );
}

#[test]
fn servers_come_and_go() {
    let name = format!("{}topology", Lab::shared_name());
    let once = Once(Lab::up(&name, &["--servers", "4"]));
    let lab = &once.0;
    let spec = lab.spec();
    let secrets = lab.secrets(&spec);
    lab.reconcile(&spec, &[]).expect(0).says("and serves");

    // A replica's server is gone, and a new one has its name and address.
    until("node1 to lead", PATIENCE, || {
        if lab.primary() == "node1" { Ok(()) } else { Err(lab.primary()) }
    });
    let before = started(lab, &["node1", "node2"]);
    let load = Load::start(&ways_in(lab, &secrets, &["node1", "node2"]));
    lab.lab(&["reset", "node3"]);
    let began = Instant::now();
    lab.reconcile(&spec, &[]).expect(0).says("and serves");
    told(load, "a dead replica's server is set up anew", began.elapsed());
    assert_eq!(started(lab, &["node1", "node2"]), before, "the others' etcd was not touched");
    let three = "node1 started false\nnode2 started false\nnode3 started false\n";
    assert_eq!(lab.sh("node1", MEMBERS), three);
    let managers = "node1 Ready manager\nnode2 Ready manager\nnode3 Ready manager\n";
    assert_eq!(lab.sh("node1", NODES), managers);
    lab.reconcile(&spec, &[]).expect(0).says("0 steps done");

    // A fourth server.
    let before = started(lab, &["node1", "node2", "node3"]);
    let spec = four(lab);
    let load = Load::start(&ways_in(lab, &secrets, &["node1", "node2", "node3"]));
    let began = Instant::now();
    lab.reconcile(&spec, &[]).expect(0).says("and serves");
    told(load, "a fourth server is added", began.elapsed());
    assert_eq!(started(lab, &["node1", "node2", "node3"]), before, "nor for a new one");
    assert_eq!(lab.sh("node1", MEMBERS), format!("{three}node4 started false\n"));
    assert_eq!(lab.sh("node1", NODES), format!("{managers}node4 Ready worker\n"));
    let told = lab.login("node4", 15432, &secrets).ask("select pg_is_in_recovery()::text");
    assert_eq!(told.as_deref(), Ok("false"));
    // The others know it: rules, and the router's servers.
    let address = lab.address("node4");
    lab.sh("node2", &format!("grep -qF {address}/32 /var/lib/postgresql/15/main/pg_hba.conf"));
    lab.sh("node1", &format!("{ROUTER} | grep -qF {address}:"));
    lab.reconcile(&spec, &[]).expect(0).says("0 steps done");
}

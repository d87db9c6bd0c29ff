//! Servers come and go under writes: one is added, lost and set up anew under its name, and the one
//! with the primary leaves. No acknowledged write is lost, and members that stay are left alone.

use std::{path::PathBuf, time::Instant};

use crate::harness::{
    Lab, Load, Login, Once, PATIENCE, Secrets, condition, figure, seconds, until,
};

const MEMBERS: &str =
    "ETCDCTL_API=3 etcdctl member list | awk -F', ' '{ print $3, $2, $6 }' | sort";
const NODES: &str = "docker node ls --format '{{.Hostname}} {{.Status}} {{if .ManagerStatus}}manager{{else}}worker{{end}}' | sort";
/// What the router runs with.
const ROUTER: &str = "docker config inspect --pretty $(docker service inspect db-utils_router --format '{{range .Spec.TaskTemplate.ContainerSpec.Configs}}{{.ConfigName}} {{end}}')";
/// When etcd's process started.
const STARTED: &str = "systemctl show -p ExecMainStartTimestampMonotonic --value etcd";
const HBA: &str = "/var/lib/postgresql/15/main/pg_hba.conf";

/// The example with the line of a server changed by `change`.
fn with(lab: &Lab, node: &str, change: impl Fn(&str) -> String) -> PathBuf {
    let text = lab.example();
    let line = format!("    - {{ name: {node}, address: {} }}\n", lab.address(node));
    assert!(text.contains(&line), "`{line}` is not in\n{text}");
    lab.write("cluster.yaml", &text.replace(&line, &change(&line)))
}

fn started(lab: &Lab, nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| lab.sh(node, STARTED)).collect()
}

fn ways_in(lab: &Lab, secrets: &Secrets, nodes: &[&str]) -> Vec<Login> {
    nodes.iter().map(|node| lab.login(node, 15432, secrets)).collect()
}

/// Ends a load, which lost nothing, and says what it saw.
fn told(load: Load, change: &str, began: Instant) {
    let took = seconds(began.elapsed());
    let seen = load.end();
    println!("{change}: {took}; {seen}");
    let (done, failed, wait) = (seen.done(), seen.failed(), seconds(seen.longest_wait()));
    figure(
        change,
        "0 acknowledged writes lost",
        &format!(
            "{took}; {done} writes, {failed} failed, 0 acknowledged lost, longest wait {wait}"
        ),
    );
}

#[test]
fn servers_come_and_go() {
    let name = format!("{}topology", Lab::shared_name());
    let once = Once(Lab::up(&name, &["--servers", "3"]));
    let lab = &once.0;
    let two = with(lab, "node3", |_| String::new());
    let secrets = lab.secrets(&two);
    lab.reconcile(&two, &[]).expect(0).says("and serves");
    until("node1 to lead", PATIENCE, || {
        if lab.primary() == "node1" { Ok(()) } else { Err(lab.primary()) }
    });
    let both = ["node1", "node2"];
    let before = started(lab, &both);

    // A third server.
    let spec = lab.spec();
    let load = Load::start(&ways_in(lab, &secrets, &both));
    let began = Instant::now();
    lab.reconcile(&spec, &[]).expect(0).says("and serves");
    told(load, "a third server is added", began);
    let three = "node1 started false\nnode2 started false\nnode3 started false\n";
    assert_eq!(lab.sh("node1", MEMBERS), three);
    let managers = "node1 Ready manager\nnode2 Ready manager\nnode3 Ready manager\n";
    assert_eq!(lab.sh("node1", NODES), managers);
    // The others know it: rules, and the router's servers.
    let address = lab.address("node3");
    lab.sh("node2", &format!("grep -qF {address}/32 {HBA}"));
    lab.sh("node1", &format!("{ROUTER} | grep -qF {address}:"));
    let there = lab.login("node3", 15432, &secrets).ask("select pg_is_in_recovery()::text");
    assert_eq!(there.as_deref(), Ok("false"));

    // Its machine is lost, and a new one has its name and address.
    let load = Load::start(&ways_in(lab, &secrets, &both));
    lab.lab(&["reset", "node3"]);
    let began = Instant::now();
    lab.reconcile(&spec, &[]).expect(0).says("and serves");
    told(load, "a dead replica's server is set up anew", began);
    assert_eq!(started(lab, &both), before, "the others' etcd was not touched");
    assert_eq!(lab.sh("node1", MEMBERS), three);
    assert_eq!(lab.sh("node1", NODES), managers);

    // The server with the primary leaves.
    let leaving = with(lab, "node1", |line| line.replace(" }", ", leaving: true }"));
    let load = Load::start(&ways_in(lab, &secrets, &["node2", "node3"]));
    let began = Instant::now();
    lab.reconcile(&leaving, &[]).expect(0).says("and serves");
    told(load, "the primary's server leaves", began);
    assert_eq!(lab.sh("node2", MEMBERS), "node2 started false\nnode3 started false\n");
    assert_eq!(lab.sh("node2", NODES), "node2 Ready manager\nnode3 Ready worker\n");
    let off = "systemctl is-active etcd patroni; systemctl is-enabled etcd patroni; docker info --format '{{.Swarm.LocalNodeState}}'; ls /var/lib/etcd/member/wal | grep -c wal; test -f /var/lib/postgresql/15/main/PG_VERSION && echo kept";
    let gone = lab.try_sh("node1", off).stdout;
    assert_eq!(gone, "inactive\ninactive\ndisabled\ndisabled\ninactive\n1\nkept\n");
    let address = lab.address("node1");
    lab.sh("node2", &format!("! grep -qF {address}/32 {HBA}"));
    lab.sh("node2", &format!("! {{ {ROUTER} | grep -qF {address}: ; }}"));
    let status = lab.await_ready(&leaving);
    assert_eq!(condition(&status, "Leaving"), "True", "{status:#}");
    assert!(status.to_string().contains("node1 has left and can be taken out of the file"));

    // And its entry with it.
    let rest = with(lab, "node1", |_| String::new());
    lab.reconcile(&rest, &[]).expect(0).says("0 steps done");
    let status = lab.await_ready(&rest);
    assert_eq!(condition(&status, "OrphanedMember"), "False", "{status:#}");
}

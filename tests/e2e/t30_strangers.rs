//! What somebody else made on the servers is held with a clear word and not touched, all the rest
//! proceeds; and when a person has cleared it away, the next run goes on to a serving cluster.

use serde_json::Value;

use crate::harness::{Held, Lab, same, seconds};

/// Listens on a port and waits, as a service that is none of ours.
const STRANGER: &str = "systemd-run --quiet --unit=stranger perl -MIO::Socket::INET -e \
    '@listener = IO::Socket::INET->new(LocalAddr => \"0.0.0.0:2379\", Listen => 1, ReuseAddr => 1); @listener or die; sleep 86400'
    for _ in $(seq 100); do ss -Hltn 'sport = :2379' | grep -q . && exit 0; sleep 0.1; done; exit 1";

/// All that is a stranger's, by server, such that a touch shows. (Debian's etcd-server sets the mode
/// of /var/lib/etcd itself when it is installed, whoever made that; what is in it stays.)
const PRINT: [&str; 3] = [
    "find /var/lib/postgresql/15/main /var/lib/etcd/member -printf '%p %y %m %U:%G %s %T@ %C@\\n' | LC_ALL=C sort
    cat /var/lib/etcd/member/snap/db /var/lib/postgresql/15/main/PG_VERSION",
    "systemctl show --timestamp=us+utc -p ActiveState,MainPID,ActiveEnterTimestamp stranger
    docker info --format '{{.Swarm.NodeID}} {{.Swarm.LocalNodeState}} {{.Swarm.Cluster.ID}} {{.Swarm.Cluster.Version.Index}}'
    docker network ls -q --filter scope=swarm; docker service ls -q; docker config ls -q; docker secret ls -q",
    "stat -c '%n %a %U:%G %s %y %z' /etc/default/etcd; cat /etc/default/etcd",
];

#[test]
fn strangers_are_held_and_not_touched_while_all_else_proceeds() {
    let mut lab = Lab::shared();
    lab.reset();
    let spec = lab.spec();
    lab.secrets(&spec);
    let [one, two, three] = lab.nodes()[..] else { panic!("the lab has three servers") };

    // A database and an etcd of somebody else on node1, a program on etcd's port and a Swarm of
    // somebody else on node2, settings of somebody else on node3.
    lab.sh(
        one,
        "mkdir -p /var/lib/postgresql/15/main /var/lib/etcd/member/snap
        echo 15 > /var/lib/postgresql/15/main/PG_VERSION; echo theirs > /var/lib/etcd/member/snap/db",
    );
    lab.sh(two, STRANGER);
    lab.sh(two, &format!("docker swarm init --advertise-addr {}", lab.address(two)));
    lab.sh(three, "mkdir -p /etc/default; echo 'ETCD_NAME=theirs' > /etc/default/etcd");
    let prints = |lab: &Lab| -> String {
        lab.nodes().iter().zip(PRINT).map(|(node, print)| lab.sh(node, print)).collect()
    };
    let before = prints(&lab);

    let plan = lab.plan(&spec);
    let held = Held::of(&plan);
    held.says(&format!("{one}/patroni-member"), "/var/lib/postgresql/15/main holds data");
    held.says(&format!("{one}/etcd.service"), "/var/lib/etcd holds data");
    held.says(&format!("{two}/etcd.service"), "perl of stranger.service listens on 0.0.0.0:2379");
    held.says(&format!("{three}:/etc/default/etcd"), "exists with other content");
    held.says(&format!("{three}/packages"), &format!("{three}:/etc/default/etcd"));
    held.says("swarm", "belongs to nobody known");

    let ran = lab.reconcile(&spec, &[]).expect(3);
    println!("around the strangers: {}", seconds(ran.took));
    same("something of a stranger's was touched", &before, &prints(&lab));
    for line in [
        format!("ok    create {one}/packages"),
        format!("ok    create {two}/packages"),
        format!("ok    create {two}:/etc/patroni/patroni.yml"),
        format!("ok    create {three}:/etc/systemd/system/patroni.service"),
    ] {
        assert!(ran.stderr.contains(&line), "`{line}` did not proceed\n{ran}");
    }
    // What remains are the holds alone, and they are told.
    let left = lab.plan(&spec);
    assert_eq!(left["steps"].as_array().map(Vec::len), Some(0), "{left:#}");
    assert!(ran.stdout.contains("belongs to nobody known"), "the holds are not told\n{ran}");
    nothing_of_ours_runs(&lab);

    lab.sh(one, "rm -rf /var/lib/postgresql/15 /var/lib/etcd/member");
    lab.sh(two, "systemctl stop stranger; docker swarm leave --force");
    lab.sh(three, "rm /etc/default/etcd");
    let ran = lab.reconcile(&spec, &[]).expect(0).says("and serves");
    println!("after a person cleared the strangers away: {}", seconds(ran.took));
}

/// No part of the cluster was started around a hold that it depends on.
fn nothing_of_ours_runs(lab: &Lab) {
    for node in lab.nodes() {
        let patroni = lab.sh(node, "systemctl is-active patroni || true");
        assert_eq!(patroni.trim(), "inactive", "Patroni on {node}");
        let containers = lab.sh(node, "docker ps -q");
        assert!(containers.is_empty(), "containers on {node}: {containers}");
    }
}

/// A port of a service taken by somebody else's program is told before anything is tried.
#[test]
fn a_pooler_port_taken_by_a_stranger_is_held() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let node = lab.nodes()[1];
    let stranger = STRANGER.replace("2379", "6432");
    lab.sh(lab.nodes()[0], "docker service rm db-utils_pgbouncer");
    lab.sh(
        node,
        "for _ in $(seq 300); do ss -Hltn 'sport = :6432' | grep -q . || exit 0; sleep 0.1; done; exit 1",
    );
    lab.sh(node, &stranger);
    let plan: Value = lab.plan(&spec);
    let held = Held::of(&plan);
    held.says(
        "swarm/service/db-utils_pgbouncer",
        "perl of stranger.service listens on 0.0.0.0:6432",
    );
    lab.sh(node, "systemctl is-active stranger; systemctl stop stranger");
    lab.reconcile(&spec, &[]).expect(0).says("1 step done");
}

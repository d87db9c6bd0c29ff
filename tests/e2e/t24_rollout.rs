//! New containers under clients: one node first, the primary's last, whoever is killed in between; and what
//! runs but does not serve comes to one node only. Docker's own orchestrator is real here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_postgres::{Config, NoTls};

use crate::harness::{Lab, figure, seconds};

/// Between two clients that come anew.
const PACE: Duration = Duration::from_millis(100);
const MARK: &str = "reconcile.io/waits-for-update";

/// A pooler that runs and does nothing, under a version of its own.
const MUTE: &str = r#"set -eu
docker pull -q "$1" >/dev/null
docker rm -f mute >/dev/null 2>&1 || :
docker create --name mute "$1" >/dev/null
at=$(docker run --rm --entrypoint sh "$1" -c 'command -v pgbouncer')
printf '#!/bin/sh\nexec sleep 100000\n' >/tmp/pgbouncer; chmod 755 /tmp/pgbouncer
docker cp -q /tmp/pgbouncer mute:"$at" 2>/dev/null || docker cp /tmp/pgbouncer mute:"$at"
docker commit mute "$2" >/dev/null; docker rm mute >/dev/null; docker push -q "$2" >/dev/null
rm /tmp/pgbouncer"#;

/// The nodes in the order in which they got the task of a service that runs there now.
fn order(lab: &Lab, service: &str) -> Vec<String> {
    let said = lab.sh(
        lab.nodes()[0],
        &format!(
            "docker service ps --filter desired-state=running --format '{{{{.ID}}}} {{{{.Node}}}}' db-utils_{service} |
             while read -r id node; do echo \"$(docker inspect -f '{{{{.CreatedAt}}}}' $id)|$node\"; done | sort"
        ),
    );
    said.lines().filter_map(|line| Some(line.split_once('|')?.1.to_owned())).collect()
}

/// Each node's availability, and whether it carries the mark.
fn nodes(lab: &Lab) -> Vec<(String, bool)> {
    let said = lab.sh(
        lab.nodes()[0],
        "docker node inspect -f '{{.Spec.Availability}} {{json .Spec.Labels}}' $(docker node ls -q)",
    );
    let node = |line: &str| {
        let (availability, labels) = line.split_once(' ').expect("two words");
        (availability.to_owned(), labels.contains(MARK))
    };
    said.lines().map(node).collect()
}

/// Clients that come anew all the time, each with the addresses of all nodes: how many were served, and
/// what the others heard.
fn clients(
    lab: &Lab,
    secrets: &crate::harness::Secrets,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<(usize, Vec<String>)> {
    let login = lab.login(lab.nodes()[0], 15432, secrets);
    let mut config = Config::new();
    for node in lab.nodes() {
        config.host(lab.address(node).to_string()).port(15432);
    }
    config.user(&login.user).password(&login.password).dbname(&login.database);
    config.connect_timeout(Duration::from_secs(5));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(async {
            let (mut served, mut failed) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let asked = async {
                    let (session, connection) = config.connect(NoTls).await?;
                    let connection = tokio::spawn(connection);
                    let answer = session.batch_execute("select pg_is_in_recovery()").await;
                    connection.abort();
                    answer
                };
                match tokio::time::timeout(Duration::from_secs(10), asked).await {
                    Ok(Ok(())) => served += 1,
                    Ok(Err(error)) => failed.push(error.to_string()),
                    Err(_) => failed.push("no answer within 10 s".to_owned()),
                }
                tokio::time::sleep(PACE).await;
            }
            (served, failed)
        })
    })
}

#[test]
fn what_is_new_comes_to_one_node_after_the_other_and_the_primarys_last() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let text = lab.example();
    let changed = lab.write("image.yaml", &text.replace("haproxy:2.6-1", "haproxy:2.6-2"));
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(&lab, &secrets, Arc::clone(&stop));
    // The operator dies when one node has the new front: the others wait, and keep what they have.
    let killed = lab
        .start(&changed, &["--plain"])
        .kill_when(|_, told| told.contains("ok    update swarm/service/db-utils_haproxy"));
    let left = nodes(&lab);
    let waits = left.iter().filter(|(availability, mark)| availability == "pause" && *mark).count();
    assert_eq!(waits, lab.nodes().len() - 1, "{left:?}\n{killed}");
    let rolled = lab.reconcile(&changed, &["--plain"]).expect(0).says("and serves");
    stop.store(true, Ordering::Relaxed);
    let (served, failed) = clients.join().expect("it ended");

    let primary = lab.primary();
    for service in ["haproxy", "router"] {
        let order = order(&lab, service);
        assert_eq!(order.len(), lab.nodes().len(), "{service}: {order:?}");
        assert_eq!(order.last(), Some(&primary), "{service}: {order:?}\n{rolled}");
    }
    assert!(nodes(&lab).iter().all(|(availability, mark)| availability == "active" && !mark));
    lab.reconcile(&changed, &["--plain"]).expect(0).says("0 steps done");
    figure(
        "another image of HAProxy on three nodes, new clients that know all of them",
        "the primary's node last",
        &format!(
            "{} in all after a kill in the middle, {} of {} clients were not served",
            seconds(rolled.took),
            failed.len(),
            served + failed.len()
        ),
    );
    assert!(served > 100, "{served} {failed:?}");
    // A connection through the node whose front ends is cut with it.
    assert!(failed.len() * 20 <= served, "{served} served, failed: {failed:?}");
    lab.reconcile(&spec, &["--plain"]).expect(0).says("and serves");
}

#[test]
fn what_runs_but_does_not_serve_comes_to_one_node_only() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let text = lab.example();
    let image =
        text.lines().find_map(|line| line.trim().strip_prefix("image: ")).expect("an image");
    assert!(image.contains("pgbouncer:1.18-1"), "{image}");
    let mute = image.replace("1.18-1", "1.18-mute");
    lab.sh(lab.nodes()[0], &format!("mute() {{ {MUTE}\n}}; mute {image} {mute}"));
    let changed = lab.write("mute.yaml", &text.replace(image, &mute));
    // The operator dies when the new pooler runs and has not been tried yet.
    let runs = "docker service ps --filter desired-state=running --format '{{.Image}} {{.CurrentState}}' db-utils_pgbouncer | grep -c '1.18-mute Running' || :";
    let began = std::time::Instant::now();
    let killed = lab.start(&changed, &["--plain"]).kill_when(|_, told| {
        told.contains("taken back") || lab.sh(lab.nodes()[0], runs).trim() != "0"
    });
    assert!(!killed.stderr.contains("taken back"), "{killed}");
    let tried = lab.reconcile(&changed, &["--plain"]).expect(3);
    let took = began.elapsed();
    let primary = lab.primary();
    assert!(tried.stderr.contains("taken back"), "{tried}");
    for service in ["pgbouncer", "pgbouncer-read"] {
        let had = lab.sh(
            lab.nodes()[0],
            &format!("docker service ps --format '{{{{.Node}}}} {{{{.Image}}}}' db-utils_{service} | grep 1.18-mute | sort -u"),
        );
        assert_eq!(had.lines().count(), 1, "{service}: {had}\n{tried}");
        assert!(!had.starts_with(&primary), "{service}: {had}\n{tried}");
    }
    assert!(nodes(&lab).iter().all(|(availability, mark)| availability == "active" && !mark));
    // All ways in serve, and it is not tried again.
    let again = lab.reconcile(&changed, &["--plain"]).expect(3).says("0 steps");
    assert!(again.stdout.contains("rolled this very change back"), "{again}");
    figure(
        "an image of PgBouncer that runs and does not serve",
        "one node has it, for a while",
        &format!(
            "taken back on one node of three, {} for both poolers after a kill before the first's trial",
            seconds(took)
        ),
    );
    lab.reconcile(&spec, &["--plain"]).expect(0).says("and serves");
}

/// HAProxy finds the poolers by their port: one without the other serves nobody.
#[test]
fn services_that_need_each_other_come_to_a_node_together() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let text = lab.example();
    let (poolers, moved) =
        ("  pgbouncer:\n", "  pgbouncer:\n    ports: { write: 6442, read: 6443 }\n");
    assert!(text.contains(poolers), "{text}");
    let changed = lab.write("port.yaml", &text.replace(poolers, moved));
    let plan = lab.dir().join("port.plan");
    let out = plan.to_string_lossy().into_owned();
    lab.reconcile(&changed, &["plan", "--out", &out]).expect(0);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(&lab, &secrets, Arc::clone(&stop));
    // Of a saved plan all nodes get it, too.
    let applied = lab.reconcile(&changed, &["--plain", "apply", &out]).expect(0);
    stop.store(true, Ordering::Relaxed);
    let (served, failed) = clients.join().expect("it ended");
    assert!(
        nodes(&lab).iter().all(|(availability, mark)| availability == "active" && !mark),
        "{applied}"
    );
    lab.reconcile(&changed, &["--plain"]).expect(0).says("and serves");
    println!("{} served, {} not: {failed:?}", served, failed.len());
    assert!(failed.len() * 20 <= served, "{served} served, failed: {failed:?}\n{applied}");
    lab.reconcile(&spec, &["--plain"]).expect(0).says("and serves");
}

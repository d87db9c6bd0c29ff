//! Whatever dies, freezes, is cut off or loses its power: the cluster serves again without a hand,
//! loses no acknowledged write (synchronous replication), and ends as desired, while the operator
//! watches.
//!
//! `RECONCILE_FAULTS=1` injects all of them; else a few that stand for the others.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::harness::{Job, Lab, Load, Secrets, figure, seconds, setting, until};

/// Until the cluster is whole again. A server that boots starts an engine and a database.
const WHOLE: Duration = Duration::from_secs(180);
/// A frozen Patroni loses its lease after 20 s; it is let go some time after.
const FROZEN: Duration = Duration::from_secs(35);
/// So long a server is cut off.
const CUT: Duration = Duration::from_secs(35);

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// A process is killed with SIGKILL.
    Kill(&'static str),
    /// Patroni is stopped with SIGSTOP, and let go later.
    Freeze,
    /// Its network is severed, and mended later.
    Cut,
}

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Leader,
    Replica,
}

const PROCESSES: [&str; 7] =
    ["postgres", "patroni", "etcd", "docker", "haproxy", "pgbouncer", "router"];

fn faults(all: bool) -> Vec<(Fault, Whose)> {
    if !all {
        return vec![
            (Fault::Kill("postgres"), Whose::Leader),
            (Fault::Kill("patroni"), Whose::Leader),
            (Fault::Kill("docker"), Whose::Replica),
            (Fault::Cut, Whose::Leader),
        ];
    }
    let faults = PROCESSES.map(Fault::Kill).into_iter().chain([Fault::Freeze, Fault::Cut]);
    faults.flat_map(|fault| [(fault, Whose::Leader), (fault, Whose::Replica)]).collect()
}

/// A cluster with clients that write and an operator that watches.
struct Watched<'a> {
    lab: &'a Lab,
    spec: &'a Path,
    secrets: &'a Secrets,
}

impl Watched<'_> {
    /// Does something to the cluster while clients write; waits until it serves and is whole.
    fn endure(&self, what: &str, harm: impl FnOnce()) {
        let lab = self.lab;
        let logins: Vec<_> =
            lab.nodes().into_iter().map(|node| lab.login(node, 15432, self.secrets)).collect();
        let load = Load::start(&logins);
        let began = Instant::now();
        harm();
        let harmed = Instant::now();
        until(&format!("every client to write after {what}"), WHOLE, || load.all_wrote(harmed));
        until(&format!("the cluster to be as desired after {what}"), WHOLE, || self.whole());
        let whole = began.elapsed();
        let silence = load.since(began).longest_silence();
        let seen = load.end();
        println!("{what}: {seen}");
        figure(
            &format!("{what}, 50 writes/s"),
            "serves again without a hand, 0 acknowledged writes lost, ends as desired",
            &format!(
                "no write for {}, {} failed of {}, as desired after {}",
                seconds(silence),
                seen.failed(),
                seen.done(),
                seconds(whole)
            ),
        );
    }

    fn whole(&self) -> Result<(), String> {
        let ran = self.lab.reconcile(self.spec, &["plan", "--exit-code"]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran.to_string()) }
    }

    fn strike(&self, fault: Fault, whose: Whose) {
        let lab = self.lab;
        let leader = lab.primary();
        let node = match whose {
            Whose::Leader => leader,
            Whose::Replica => {
                let replica = lab.nodes().into_iter().find(|node| *node != leader);
                replica.expect("there are three").to_owned()
            }
        };
        let server = format!("{whose:?}'s server").to_lowercase();
        match fault {
            Fault::Kill(process) => {
                let kill = kill(process);
                self.endure(&format!("SIGKILL of {process} on the {server}"), || {
                    lab.sh(&node, &kill);
                });
            }
            Fault::Freeze => {
                self.endure(&format!("SIGSTOP of patroni on the {server} for {FROZEN:?}"), || {
                    lab.sh(&node, "systemctl kill -s STOP --kill-who=main patroni");
                    std::thread::sleep(FROZEN);
                    lab.sh(&node, "systemctl kill -s CONT --kill-who=main patroni");
                });
            }
            Fault::Cut => {
                self.endure(&format!("the {server} cut off for {CUT:?}"), || {
                    lab.lab(&["cut", &node]);
                    std::thread::sleep(CUT);
                    lab.lab(&["heal", &node]);
                });
            }
        }
    }
}

/// SIGKILL of a component's process; of a service of the Swarm, its container's.
fn kill(process: &str) -> String {
    match process {
        "postgres" => {
            "kill -KILL $(head -n 1 /var/lib/postgresql/15/main/postmaster.pid)".to_owned()
        }
        "patroni" | "etcd" | "docker" => {
            format!("systemctl kill -s KILL --kill-who=main {process}")
        }
        service => format!("docker kill $(docker ps -q --filter 'name=^db-utils_{service}\\.')"),
    }
}

#[test]
fn the_cluster_gets_over_every_fault() {
    let mut lab = Lab::shared();
    lab.converged();
    let spec = lab.synchronous();
    lab.reconcile(&spec, &[]).expect(0);
    let secrets = lab.secrets(&spec);
    let operator = Operator::watch(&lab, &spec);
    let cluster = Watched { lab: &lab, spec: &spec, secrets: &secrets };
    let all = setting("RECONCILE_FAULTS", 0) == 1;
    for (fault, whose) in faults(all) {
        cluster.strike(fault, whose);
    }
    let nodes = lab.nodes();
    let orders: &[[usize; 3]] = if all {
        &[[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    } else {
        &[[2, 0, 1]]
    };
    for order in orders {
        let names = order.map(|index| nodes[index]);
        cluster.endure(&format!("all servers without power, back as {}", names.join(", ")), || {
            for node in names {
                lab.lab(&["stop", node]);
            }
            for node in names {
                lab.lab(&["start", node]);
            }
        });
    }
    operator.stop();
    let spec = lab.spec();
    lab.reconcile(&spec, &[]).expect(0);
}

/// `reconcile --watch`, ended when the test ends in whatever way.
struct Operator(Option<Job>);

impl Operator {
    fn watch(lab: &Lab, spec: &Path) -> Self {
        Self(Some(lab.start(spec, &["--watch", "--interval", "3"])))
    }

    fn stop(mut self) {
        let job = self.0.take().expect("it is stopped once");
        let ran = job.terminate(WHOLE);
        println!("the operator said:\n{}", ran.stderr);
        ran.expect(0);
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if let Some(job) = self.0.take() {
            println!("the operator said:\n{}", job.kill_when(|_, _| true).stderr);
        }
    }
}

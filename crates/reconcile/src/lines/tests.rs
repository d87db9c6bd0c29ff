//! What the terminal says of drift, of holds, and of the end of both, on worlds of the simulator.

use std::{sync::Arc, time::Duration};

use reconcile_core::{model::PauseNote, plan::plan, verify::Way};
use reconcile_sim::{Section, World, fixture};

use super::*;

const FILE: &str = "/etc/postgresql-common/createcluster.d/reconcile.conf";
const ETCD: &str = "/etc/default/etcd";

/// A terminal, and the cluster that it tells of.
struct Seen {
    desired: reconcile_core::desired::Desired,
    world: World,
    lines: Lines,
    said: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    /// All is well, and one look was made.
    fn calm() -> Self {
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        let world = World::converged(&desired);
        let said = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&said);
        let lines = Lines::to(move |line| sink.lock().expect("whole").push(line.to_owned()));
        let seen = Self { desired, world, lines, said };
        assert_eq!(seen.look(), [""; 0], "a calm cluster is silent");
        seen
    }

    /// One look; what was said of it.
    fn look(&self) -> Vec<String> {
        let observed = self.world.observe(&self.desired);
        let plan = plan(&self.desired, &observed);
        self.lines.hear(&Event::Looked {
            desired: &self.desired,
            observed: &observed,
            plan: &plan,
        });
        std::mem::take(&mut *self.said.lock().expect("whole"))
    }

    fn edit(&mut self, host: &str, path: &str) {
        let file = self.world.server_mut(host).files.get_mut(path).expect("a file of ours");
        file.bytes.extend_from_slice(b"# by hand\n");
    }

    fn heal(&mut self) {
        self.world = self.world.clone().apply_all(&self.desired);
    }

    fn ended(&self, word: &str, seconds: &str) -> String {
        let generation = &self.desired.digest()[..12];
        format!("{word}: 3 servers, generation {generation}, after {seconds} s")
    }
}

async fn rest(seconds: f64) {
    tokio::time::advance(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn drift_is_named_once_and_so_is_its_end() {
    let mut seen = Seen::calm();
    seen.edit("node2", FILE);
    assert_eq!(
        seen.look(),
        [format!("drift node2:{FILE} (files): has 1 line by hand").as_str(), "1 step to do"]
    );
    assert_eq!(seen.look(), [""; 0], "it is the same one");
    rest(1.2).await;
    seen.heal();
    assert_eq!(seen.look(), [seen.ended("converged again", "1.2")]);
    assert_eq!(seen.look(), [""; 0]);
    // Once more, and more of it than anybody reads.
    seen.edit("node2", FILE);
    for host in ["node1", "node2", "node3"] {
        seen.edit(host, "/etc/systemd/system/patroni.service");
        seen.world.server_mut(host).units.get_mut("etcd.service").expect("a unit").enabled = false;
    }
    let said = seen.look();
    assert_eq!(said.len(), 7, "{said:?}");
    assert!(said[..5].iter().all(|line| line.starts_with("drift node")), "{said:?}");
    assert_eq!(said[5..], ["and 2 more drifted", "7 steps to do"]);
    rest(2.0).await;
    seen.heal();
    assert_eq!(seen.look(), [seen.ended("converged again", "2.0")]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_file_is_no_drift() {
    let mut seen = Seen::calm();
    seen.world.power_off("node3");
    seen.look();
    seen.desired = fixture::desire(&fixture::spec(3, 0, |spec| {
        spec.postgresql.parameters.insert("work_mem".into(), "8MB".into());
    }));
    let said = seen.look().join("\n");
    assert!(!said.contains("drift"), "{said}");
    seen.heal();
    seen.look();
    // That server could not follow before.
    seen.world.server_mut("node3").power = true;
    let said = seen.look().join("\n");
    assert!(said.contains("to do") && !said.contains("drift node3:"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_only_waits_its_turn_is_no_news() {
    let mut seen = Seen::calm();
    for host in ["node1", "node2", "node3"] {
        seen.edit(host, ETCD);
    }
    let mut said = seen.look();
    assert_eq!(said.pop().as_deref(), Some("1 step to do"));
    assert_eq!(said.len(), 1, "{said:?}");
    rest(60.0).await;
    assert_eq!(seen.look(), [""; 0]);
    seen.heal();
    assert_eq!(seen.look(), [seen.ended("converged again", "60.0")]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_off_is_said_at_once_with_what_waits_for_it() {
    let mut seen = Seen::calm();
    seen.world.power_off("node3");
    let said = seen.look();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("held  host/node3: unknown: "), "{said:?}");
    rest(30.0).await;
    assert!(seen.look().len() <= 1, "what waits for it is not said one by one");
    rest(30.0).await;
    assert_eq!(seen.look(), [""; 0]);
    seen.world.server_mut("node3").power = true;
    seen.heal();
    let said = seen.look();
    assert_eq!(said.last(), Some(&seen.ended("converged again", "60.0")));
    assert!(said.contains(&"no longer held: host/node3".to_owned()), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn another_primary_is_said_by_name() {
    let mut seen = Seen::calm();
    // Who can take over does so before the next look.
    seen.world.power_off("node1");
    let said = seen.look();
    assert_eq!(said[0], "node2 is the primary now (it was node1), timeline 2", "{said:?}");
    assert!(!seen.look().iter().any(|line| line.contains("primary")), "once");
}

/// All that waits for the Swarm waits for one thing.
#[test]
fn that_the_swarm_has_no_leader_is_said_once() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let plan = plan(&desired, &World::bare(&desired).observe(&desired));
    let said = Arc::<Mutex<Vec<String>>>::default();
    let sink = Arc::clone(&said);
    let lines = Lines::to(move |line| sink.lock().expect("whole").push(line.to_owned()));
    let seen = |cause: &str| {
        reconcile_core::ports::EffectError::new(
            None,
            "ask the Swarm",
            cause,
            reconcile_core::ports::Retry::Later,
        )
    };
    let leaderless = seen("the Swarm has no leader yet");
    for step in plan.steps.iter().take(4) {
        lines.hear(&Event::StepWaits { step, seen: &leaderless });
    }
    let said = said.lock().expect("whole");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].ends_with("the Swarm has no leader yet"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_said_where_it_stays_and_not_where_it_passes() {
    let mut seen = Seen::calm();
    seen.world.server_mut("node1").unknown.insert(Section::Sql);
    let observed = seen.world.observe(&seen.desired);
    assert_ne!(plan(&seen.desired, &observed).held, [], "or nothing is tested");
    assert_eq!(seen.look(), [""; 0]);
    seen.world.server_mut("node1").unknown.clear();
    assert_eq!(seen.look(), [""; 0], "it came and went within one look");
    seen.world.server_mut("node1").unknown.insert(Section::Sql);
    assert_eq!(seen.look(), [""; 0]);
    rest(10.0).await;
    let said = seen.look();
    assert!(!said.is_empty() && said.iter().all(|line| line.starts_with("held  ")), "{said:?}");
    rest(10.0).await;
    assert_eq!(seen.look(), [""; 0], "it is said once");
    seen.world.server_mut("node1").unknown.clear();
    let after = seen.look();
    assert_eq!(after.len(), said.len() + 1, "{after:?}");
    assert_eq!(after.last(), Some(&seen.ended("converged again", "20.0")));
}

#[tokio::test(start_paused = true)]
async fn what_a_person_must_do_is_said_and_work_beside_it_ends() {
    let mut seen = Seen::calm();
    seen.world.server_mut("node1").clock_offset_ms = 60_000;
    let said = seen.look();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("needs a person: its clock"), "{said:?}");
    seen.edit("node2", FILE);
    assert_eq!(seen.look().len(), 2);
    rest(1.0).await;
    seen.heal();
    assert_eq!(seen.look(), [seen.ended("nothing left to do, 1 object held", "1.0")]);
}

#[tokio::test(start_paused = true)]
async fn one_way_in_that_fails_is_not_the_cluster() {
    let seen = Seen::calm();
    let prove = |deed: &str, broken: &[&str]| {
        let proofs = ["node1", "node2", "node3"].map(|host| Proof {
            what: format!("{deed} through HAProxy on {host}"),
            host: Some(host.into()),
            way: Some(Way::Write),
            holds: !broken.contains(&host),
            millis: 1,
            detail: "connection refused".to_owned(),
            ..Proof::default()
        });
        seen.lines.hear(&Event::Verified(&VerifyReport { proofs: proofs.into() }));
        std::mem::take(&mut *seen.said.lock().expect("whole"))
    };
    assert_eq!(prove("commit", &[]), ["the cluster is as desired and serves"]);
    rest(43.0).await;
    assert_eq!(
        prove("commit", &["node2"]),
        [
            "the cluster serves in part: 2 of 3 ways in serve (node1, node3), node2 not: \
             commit through HAProxy on node2: connection refused; all was proven to serve 43 s ago",
            "FAIL  commit through HAProxy on node2: connection refused",
        ]
    );
    assert_eq!(prove("write", &["node2"]), [""; 0], "it is the same way");
    let said = prove("write", &["node1", "node2", "node3"]);
    assert!(said[0].starts_with("the cluster does not serve: none of 3 ways in serves: write"));
    assert_eq!(said.len(), 3, "node2 was told: {said:?}");
    assert_eq!(prove("write", &[]), ["the cluster is as desired and serves"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_pause_keeps_from_being_undone_is_told_with_what_differs() {
    let mut seen = Seen::calm();
    let pause = PauseNote {
        number: 1,
        until: 4_102_444_800,
        by: "ada@ops1".to_owned(),
        reason: String::new(),
    };
    for host in ["node1", "node2", "node3"] {
        seen.world.server_mut(host).pause = Some(pause.clone());
    }
    assert_eq!(seen.look(), [format!("paused {pause}")]);
    seen.edit("node2", FILE);
    let said = seen.look();
    let drift = format!("held  node2:{FILE} (files): has 1 line by hand; paused: ");
    assert!(said.len() == 1 && said[0].starts_with(&drift), "{said:?}");
    assert!(said[0].contains("ada@ops1"), "{said:?}");
    assert_eq!(seen.look(), [""; 0], "once");
    let observed = seen.world.observe(&seen.desired);
    let plan = plan(&seen.desired, &observed);
    let status = reconcile_core::status::status(&seen.desired, &observed, &plan, None);
    let paused: Vec<_> = status.paused.iter().map(|step| step.differs.as_deref()).collect();
    assert_eq!(paused, [Some("has 1 line by hand")], "the status says so, too");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_good_again_is_said_and_that_all_is_well() {
    let seen = Seen::calm();
    let hear = |event: &Event<'_>| {
        seen.lines.hear(event);
        std::mem::take(&mut *seen.said.lock().expect("whole"))
    };
    let refused = reconcile_core::model::RefusedSource {
        file: "cluster.yaml".to_owned(),
        revision: None,
        report: "Error: a slip".to_owned(),
        unread: false,
    };
    let broken = ["the desired state is not taken; the last good one stays in force"];
    assert_eq!(hear(&Event::SourceBroken(&refused)), broken);
    assert_eq!(seen.look(), [""; 0]);
    assert_eq!(
        hear(&Event::SourceChanged(None)),
        ["the desired state is good again; the desired state was read"]
    );
    rest(0.3).await;
    assert_eq!(seen.look(), [seen.ended("converged again", "0.3")]);
    // What nobody could read was not refused.
    let unread = reconcile_core::model::RefusedSource { unread: true, ..refused };
    let told = ["the desired state cannot be read; the last good one stays in force"];
    assert_eq!(hear(&Event::SourceBroken(&unread)), told);
    assert_eq!(hear(&Event::SourceChanged(None)).len(), 1);
    seen.look();
    // A change of a file that was good says less.
    assert_eq!(hear(&Event::SourceChanged(None)), ["the desired state was read"]);
    assert_eq!(seen.look(), [""; 0]);
}

#[tokio::test]
async fn what_a_step_restarts_is_said() {
    let mut seen = Seen::calm();
    seen.edit("node1", ETCD);
    seen.edit("node2", FILE);
    let plan = plan(&seen.desired, &seen.world.observe(&seen.desired));
    for step in &plan.steps {
        seen.lines.hear(&Event::StepFinished {
            step,
            result: &Ok(()),
            took: Duration::from_millis(800),
        });
    }
    let mut said = std::mem::take(&mut *seen.said.lock().expect("whole"));
    said.sort();
    assert_eq!(
        said,
        [
            "ok    update node1:/etc/default/etcd (0.8 s), etcd.service restarted".to_owned(),
            format!("ok    update node2:{FILE} (0.8 s)"),
        ]
    );
}

#[tokio::test]
async fn a_step_that_takes_minutes_is_said_when_it_begins() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let world = World::bare(&desired);
    let plan = plan(&desired, &world.observe(&desired));
    let said = Arc::<Mutex<Vec<String>>>::default();
    let sink = Arc::clone(&said);
    let lines = Lines::to(move |line| sink.lock().expect("whole").push(line.to_owned()));
    for step in &plan.steps {
        lines.hear(&Event::StepStarted(step));
    }
    let said = said.lock().expect("whole");
    let install = "begin create node1/packages (may take up to 15 minutes)";
    assert!(said.iter().any(|line| line == install), "{said:?}");
    assert!(said.len() < plan.steps.len(), "what is done in a moment is told when it is done");
}

//! A process that is frozen keeps its port open and answers nobody: the operator tells which, soon, and
//! when it lives again. What it costs to ask is measured on the quiet cluster before.
//!
//! `RECONCILE_QUIET`: how long that is measured, seconds, 60.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::harness::{Job, Lab, PATIENCE, figure, seconds, setting, until};

/// The timer of `--watch`, a sign of life that is waited for, a proof that waits for what is frozen and tries
/// twice more what may only have been handed on to it, and what a busy machine takes.
const TOLD: Duration = Duration::from_secs(10 + 2 + 5 + 4 + 2 * 5 + 5);
/// Of one core, at a timer of 10 s.
const CPU_PERCENT: f64 = 1.0;

/// Processor time that a process has used.
fn used(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a command in brackets");
    // utime and stime, in ticks of 10 ms.
    let ticks =
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn says(job: &Job, from: usize, word: &str) {
    until(word, PATIENCE, || {
        let told = job.told()[from..].to_owned();
        told.contains(word).then_some(()).ok_or(told)
    });
}

#[test]
fn what_is_frozen_is_told_soon_and_by_name() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    lab.await_ready(&spec);
    let state = lab.dir().join("state-frozen");
    let state = state.to_str().expect("the lab's folder is text");
    let job = lab.start(&spec, &["--watch", "--state-dir", state, "--interval", "10"]);
    says(&job, 0, "is as desired and serves");
    sleep(Duration::from_secs(5));
    let (before, began) = (used(job.id()), Instant::now());
    sleep(Duration::from_secs(setting("RECONCILE_QUIET", 60)));
    let spent = used(job.id()).saturating_sub(before);
    let share = 100.0 * spent.as_secs_f64() / began.elapsed().as_secs_f64();
    figure(
        "an operator beside a quiet cluster, timer of 10 s, signs of life and proofs with it",
        "< 1 % of a core",
        &format!("{share:.2} % over {}", seconds(began.elapsed())),
    );
    assert!(share < CPU_PERCENT, "{share}");
    let node = lab.nodes()[1].to_owned();
    let (mut took, mut lives) = (Vec::new(), Vec::new());
    for (service, freeze, thaw) in [
        ("router", "kill -STOP", "kill -CONT"),
        ("haproxy", "kill -STOP", "kill -CONT"),
        ("pgbouncer", "docker pause", "docker unpause"),
    ] {
        let filter = format!("label=com.docker.swarm.service.name=db-utils_{service}");
        let id = lab.sh(&node, &format!("docker ps -q --filter '{filter}'"));
        let of = if freeze.starts_with("kill") { "{{.State.Pid}}" } else { "{{.Id}}" };
        let id = lab.sh(&node, &format!("docker inspect -f '{of}' {}", id.trim()));
        let from = job.told().len();
        let frozen = Instant::now();
        // The workers of HAProxy are its children.
        let all = |how: &str| {
            if how.starts_with("kill") {
                format!("{how} {0} $(pgrep -P {0})", id.trim())
            } else {
                format!("{how} {}", id.trim())
            }
        };
        lab.sh(&node, &format!("{} || :", all(freeze)));
        says(&job, from, &format!("FAIL  signs of life on {node}"));
        took.push(frozen.elapsed());
        let told = job.told()[from..].to_owned();
        println!("{service}, told after {}:\n{told}", seconds(frozen.elapsed()));
        assert!(told.contains("no answer; stopped or frozen?"), "{told}");
        assert!(told.contains("all was proven to serve"), "its age: {told}");
        let from = job.told().len();
        let thawed = Instant::now();
        lab.sh(&node, &format!("{} || :", all(thaw)));
        says(&job, from, "is as desired and serves");
        println!("and that it lives after {}", seconds(thawed.elapsed()));
        lives.push(thawed.elapsed());
    }
    let longest = took.iter().max().copied().unwrap_or_default();
    let again = lives.iter().max().copied().unwrap_or_default();
    figure(
        "SIGSTOP of a router and of HAProxy, `docker pause` of a pooler → told by name",
        "≤ 36 s",
        &format!("longest {}, and that it lives again {}", seconds(longest), seconds(again)),
    );
    assert!(longest < TOLD && again < TOLD, "{took:?} {lives:?}");
}

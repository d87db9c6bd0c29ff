//! Handing the primary over while ten clients with long connections write: nobody sees an error.
//!
//! `RECONCILE_SWITCHOVERS`: how often, 2.

use std::time::{Duration, Instant};

use crate::harness::{Lab, Load, PATIENCE, figure, seconds, setting, until};

/// 15 s until a node resumes its own pooler, and what routers and clients need after it.
const UNATTENDED: Duration = Duration::from_secs(15 + 8);

/// The figure is 3 s on a machine that does nothing else; the servers, the clients and the
/// operator share this one.
const LONGEST: Duration = Duration::from_millis(3_000 + 1_500);

#[test]
fn clients_wait_and_see_no_error() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let logins: Vec<_> =
        lab.nodes().into_iter().map(|node| lab.login(node, 15432, &secrets)).collect();
    let times = setting("RECONCILE_SWITCHOVERS", 2);
    let load = Load::start(&logins);
    let mut waits = Vec::new();
    for round in 1..=times {
        lab.await_ready(&spec);
        let old = lab.primary();
        let began = Instant::now();
        let ran = lab.reconcile(&spec, &["switchover"]).expect(0);
        let seen = load.since(began);
        println!("{round}: {}; {seen}", ran.stdout.trim());
        assert_ne!(lab.primary(), old, "{ran}");
        assert_eq!(seen.failed(), 0, "{seen}\n{ran}");
        waits.push(seen.longest_wait());
    }
    let seen = load.end();
    waits.sort();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    figure(
        &format!("{times} switchovers under 50 writes/s, clients with long connections"),
        "0 failed, longest wait ≤ 3 s",
        &format!(
            "{} failed of {}, longest wait median {}, worst {}",
            seen.failed(),
            seen.done(),
            seconds(median),
            seconds(longest)
        ),
    );
    assert_eq!(seen.failed(), 0, "{seen}");
    assert!(longest <= LONGEST, "{seen}");
}

/// kill -9 of the operator while the poolers are paused, and no operator after it.
#[test]
fn nobody_waits_for_an_operator_that_is_gone() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let logins: Vec<_> =
        lab.nodes().into_iter().map(|node| lab.login(node, 15432, &secrets)).collect();
    lab.await_ready(&spec);
    let state = lab.dir().join("state-killed");
    let journal = state.join("main/journal.jsonl");
    drop(std::fs::remove_dir_all(&state));
    let path = state.to_str().expect("the lab's folder is text");
    let load = Load::start(&logins);
    let job = lab.start(&spec, &["switchover", "--state-dir", path]);
    let begun = std::cell::Cell::new(None);
    let killed = job.kill_when(|elapsed, _| {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        if begun.get().is_none() && text.contains("switchover-begins") {
            begun.set(Some(elapsed));
        }
        // The guards take a moment, PAUSE hardly any, Patroni more than a second.
        begun.get().is_some_and(|at| elapsed > at + Duration::from_millis(500))
    });
    let at = Instant::now();
    let text = std::fs::read_to_string(&journal).expect("it has a journal");
    assert!(!text.contains("switchover-ends"), "killed too late: {text}\n{killed}");
    for node in lab.nodes() {
        lab.sh(node, "test -e /run/reconcile/resume.main");
    }
    until("all to write again", UNATTENDED, || load.all_wrote(at + Duration::from_secs(2)));
    let back = at.elapsed();
    println!("killed while the poolers were paused; all wrote again after {}", seconds(back));
    for node in lab.nodes() {
        until("the guard to be gone", PATIENCE, || {
            let left =
                lab.sh(node, "ls /run/reconcile; systemctl list-units --plain 'reconcile-*'");
            (!left.contains("resume")).then_some(()).ok_or(left)
        });
    }
    let seen = load.end();
    println!("{seen}");
    figure(
        "operator killed between PAUSE and RESUME, none after it",
        "writes go on within 23 s, 0 failed",
        &format!("after {}, {} failed of {}", seconds(back), seen.failed(), seen.done()),
    );
    assert_eq!(seen.failed(), 0, "{seen}");

    println!("again, and another operator looks at once");
    lab.await_ready(&spec);
    for node in lab.nodes() {
        lab.sh(node, "echo 99999999 > /run/reconcile/resume.main");
    }
    let ran = lab.reconcile(&spec, &[]).expect(0);
    println!("{ran}");
    for node in lab.nodes() {
        lab.sh(node, "test ! -e /run/reconcile/resume.main");
    }
}

/// A transaction that would be cut off is named before anybody waits.
#[test]
fn long_work_is_asked_about() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    lab.await_ready(&spec);
    let old = lab.primary();
    lab.sh(
        &old,
        "systemd-run --quiet --collect --unit=long-work --uid=postgres psql -c 'begin; select pg_sleep(40)'; sleep 3",
    );
    let ran = lab.reconcile(&spec, &["switchover"]).expect(1);
    println!("{ran}");
    ran.says("not begun: pid ").says("of postgres in postgres from the socket is in a transaction");
    assert_eq!(lab.primary(), old);
    lab.reconcile(&spec, &["switchover", "--regardless"]).expect(0);
    assert_ne!(lab.primary(), old);
}

//! Handing the primary over while ten clients with long connections write: nobody sees an error.
//!
//! `RECONCILE_SWITCHOVERS`: how often, 2. `RECONCILE_KILLS`: how often the operator is killed, 2.

use std::{
    path::Path,
    time::{Duration, Instant},
};

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
    drop(std::fs::remove_dir_all(&state));
    let path = state.to_str().expect("the lab's folder is text");
    let load = Load::start(&logins);
    let at = killed_while_paused(&lab, &spec, path);
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

/// Kills a switchover between PAUSE and RESUME; tells when.
fn killed_while_paused(lab: &Lab, spec: &Path, state: &str) -> Instant {
    let journal = Path::new(state).join("main/journal.jsonl");
    let earlier = std::fs::read_to_string(&journal).unwrap_or_default().len();
    let noted = || std::fs::read_to_string(&journal).unwrap_or_default().split_off(earlier);
    let job = lab.start(spec, &["switchover", "--state-dir", state]);
    let begun = std::cell::Cell::new(None);
    let killed = job.kill_when(|elapsed, _| {
        if begun.get().is_none() && noted().contains("switchover-begins") {
            begun.set(Some(elapsed));
        }
        // The guards take a moment, PAUSE hardly any, Patroni more than a second.
        begun.get().is_some_and(|at| elapsed > at + Duration::from_millis(500))
    });
    let at = Instant::now();
    let text = noted();
    assert!(!text.contains("switchover-ends"), "killed too late: {text}\n{killed}");
    at
}

/// The same, and the operator is started again at once, as its service is: it need not wait for the lease
/// of the one that is gone.
#[test]
fn who_is_started_again_at_once_resumes_at_once() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let logins: Vec<_> =
        lab.nodes().into_iter().map(|node| lab.login(node, 15432, &secrets)).collect();
    let times = setting("RECONCILE_KILLS", 2);
    let state = lab.dir().join("state-again");
    drop(std::fs::remove_dir_all(&state));
    let path = state.to_str().expect("the lab's folder is text");
    let load = Load::start(&logins);
    let mut waits = Vec::new();
    for _ in 0..times {
        lab.await_ready(&spec);
        let token = |lab: &Lab| {
            let node = lab.nodes()[0];
            let fence = lab.sh(node, "cat /var/lib/reconcile/fence.main");
            fence.split(' ').next().and_then(|token| token.parse::<u64>().ok()).expect(&fence)
        };
        let before = token(&lab);
        let at = killed_while_paused(&lab, &spec, path);
        let again = lab.start(&spec, &["--watch", "--state-dir", path]);
        until("all to write again", UNATTENDED, || load.all_wrote(at + Duration::from_secs(1)));
        waits.push(load.since(at).longest_wait());
        println!("{}", load.since(at));
        until("it to be as desired", PATIENCE, || {
            let told = again.told();
            told.contains("is as desired and serves").then_some(()).ok_or(told)
        });
        let told = again.told();
        println!("{told}");
        assert!(told.contains("was cut off; resuming the poolers"), "{told}");
        assert!(!told.contains("waiting:"), "{told}");
        assert!(token(&lab) >= before + 2, "one for each of the two");
        // Another on another machine waits for this one as ever.
        let node = lab.nodes()[1];
        let fence = lab.sh(node, "cat /var/lib/reconcile/fence.main");
        assert!(fence.contains(&format!("/{}/", again.id())), "{fence}");
        drop(again);
    }
    let seen = load.end();
    waits.sort();
    let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    println!("{seen}");
    figure(
        "operator killed between PAUSE and RESUME, started again at once",
        "writes go on within 10 s, 0 failed",
        &format!(
            "{times} times: longest wait median {}, worst {}; {} failed of {}",
            seconds(median),
            seconds(longest),
            seen.failed(),
            seen.done()
        ),
    );
    assert_eq!(seen.failed(), 0, "{seen}");
    assert!(longest <= Duration::from_secs(10), "{seen}");
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

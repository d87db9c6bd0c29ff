//! Handing the primary over while ten clients with long connections write: nobody sees an error.
//!
//! `RECONCILE_SWITCHOVERS`: how often, 2.

use std::time::{Duration, Instant};

use crate::harness::{Lab, Load, figure, seconds, setting};

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

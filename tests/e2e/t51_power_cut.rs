//! The leader's server loses its power while clients write: another takes over, no acknowledged
//! write is lost, and the server is part of the cluster again by itself when it is back.

use std::time::{Duration, Instant};

use crate::harness::{Lab, Load, PATIENCE, figure, seconds, setting, until};

/// Profile `fast` (ttl 20 s): the lease runs out, an election, and the routers' look.
const BACK: Duration = Duration::from_secs(29);

#[test]
fn no_acknowledged_write_is_lost() {
    let mut lab = Lab::shared();
    lab.converged();
    let spec = lab.synchronous();
    lab.reconcile(&spec, &[]).expect(0);
    let secrets = lab.secrets(&spec);
    until("a synchronous standby", PATIENCE, || {
        let members = lab.members()?;
        let sync = members.iter().any(|(_, role, _)| role == "sync_standby");
        if sync { Ok(()) } else { Err(format!("{members:?}")) }
    });
    for _ in 0..setting("RECONCILE_POWER_CUTS", 1) {
        lab.await_ready(&spec);
        let old = lab.primary();
        let others = lab.nodes().into_iter().filter(|node| *node != old);
        let logins: Vec<_> = others.map(|node| lab.login(node, 15432, &secrets)).collect();
        let load = Load::start(&logins);
        let cut = Instant::now();
        lab.lab(&["stop", &old]);
        until("writes to be back", PATIENCE, || {
            let seen = load.since(cut + Duration::from_secs(5));
            if seen.done() > 0 { Ok(()) } else { Err(seen.to_string()) }
        });
        let back = Instant::now();
        until("every client to write again", PATIENCE, || load.all_wrote(back));
        let silence = load.since(cut).longest_silence();
        let seen = load.end();
        println!("{seen}");
        figure(
            "power cut of the leader's server, `fast`, synchronous, 50 writes/s",
            "writes back ≤ 29 s, 0 acknowledged writes lost",
            &format!(
                "no write for {}, 0 of {} acknowledged lost, {} failed",
                seconds(silence),
                seen.done(),
                seen.failed()
            ),
        );
        assert!(silence <= BACK, "{seen}");
        let back = Instant::now();
        lab.lab(&["start", &old]);
        lab.await_ready(&spec);
        figure(
            "the server that lost power is a streaming replica again",
            "by itself",
            &format!(
                "{} after it was switched on, the operator only looking",
                seconds(back.elapsed())
            ),
        );
    }
    let spec = lab.spec();
    lab.reconcile(&spec, &[]).expect(0);
}

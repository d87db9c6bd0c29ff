//! A plan's cost grows with the number of servers and no faster. The bench has the figures; here
//! are generous multiples of its limits, so that a quadratic slip fails at once.

use std::time::{Duration, Instant};

use reconcile_core::plan::plan;
use reconcile_sim::{World, fixture};

fn best(members: usize, workers: usize) -> Duration {
    let desired = fixture::desire(&fixture::spec(members, workers, |_| {}));
    let world = World::converged(&desired);
    let observed = world.observe(&desired);
    let took = (0..3).map(|_| {
        let started = Instant::now();
        let plan = plan(&desired, &observed);
        let took = started.elapsed();
        assert!(plan.is_converged());
        took
    });
    took.min().unwrap()
}

#[test]
fn a_thousand_servers_are_planned_in_time() {
    let took = best(7, 993);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn fifty_databases_are_planned_in_time() {
    let took = best(50, 0);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

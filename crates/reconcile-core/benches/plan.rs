//! How long a plan takes where nothing is to be done, which is what every pass pays.
//!
//! Limits: 5 ms for 3 hosts, 50 ms for 100, 500 ms for 1000.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use reconcile_core::{desired::Desired, model::Observed, plan::plan};
use reconcile_sim::{World, fixture};

/// Desired state and converged observations of so many hosts, at most seven of them full members
/// (etcd refuses to be larger in practice), the others Swarm workers.
fn converged(hosts: usize) -> (Desired, Observed) {
    let members = hosts.min(7);
    let desired = fixture::desire(&fixture::spec(members, hosts - members, |_| {}));
    let world = World::converged(&desired);
    let observed = world.observe(&desired);
    (desired, observed)
}
fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(3));
    for hosts in [3, 100, 1000] {
        let (desired, observed) = converged(hosts);
        assert!(plan(&desired, &observed).is_converged());
        group.bench_with_input(BenchmarkId::new("converged", hosts), &hosts, |bench, _| {
            bench.iter(|| plan(black_box(&desired), black_box(&observed)));
        });
    }
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);

//! Random faults from seeds. `RECONCILE_SEEDS` sets how many, `RECONCILE_SEED` tells one again.

use reconcile_core::model::HostName;
use reconcile_sim::{Faults, Random, SimFleet};

use crate::{
    crashes::{Reference, more_writes, reference, same_state},
    run::{plan_now, settle},
    workloads::{self, Workload},
};

const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tells which seed a failing run had.
struct Told(u64, &'static str);

impl Drop for Told {
    #[expect(clippy::print_stderr, reason = "this is the way to run it again")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("workload {}: run again with RECONCILE_SEED={}", self.1, self.0);
        }
    }
}

async fn run(seed: u64, workload: &Workload, reference: &Reference) {
    let told = Told(seed, workload.name);
    let mut random = Random::new(seed);
    let hosts: Vec<HostName> = workload.before.servers.keys().cloned().collect();
    let fleet = SimFleet::new(workload.before.clone());
    drop(plan_now(&fleet, &workload.desired).await);
    fleet.change(|world| *world = workload.start());
    let (effects, reads) = (reference.effects + 4, reference.reads + 12);
    let faults = Faults::random(&mut random, effects, reads, &hosts);
    let (rebooted, stale) = (!faults.reboots.is_empty(), faults.stale_reads.len() as u64);
    fleet.fail(faults);
    settle(&fleet, &workload.desired, 12).await;
    fleet.heal();
    settle(&fleet, &workload.desired, 1).await;
    let what = format!("{} with seed {seed}", workload.name);
    let writes = same_state(&fleet, reference, &what);
    if !rebooted {
        // A reboot starts and stops units by itself; all else is done by us.
        let more = more_writes(&writes, reference, stale);
        assert_eq!(more, None, "{what}: more writes; {:#?}", fleet.effects());
        let done = |object: &&String| !writes.contains_key(*object);
        let missing: Vec<_> = reference.writes.keys().filter(done).collect();
        assert_eq!(missing, Vec::<&String>::new(), "{what}: fewer writes");
    }
    drop(told);
}

#[tokio::test(start_paused = true)]
async fn random_faults_come_to_the_same_end() {
    let mut all = vec![workloads::bare()];
    all.extend(workloads::changes().await);
    let mut references = Vec::new();
    for workload in &all {
        references.push(reference(workload).await);
    }
    let seeds: Vec<u64> = match number("RECONCILE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RECONCILE_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    for seed in seeds {
        // Every third run is from bare, where most can go wrong.
        let index = if seed % 3 == 0 { 0 } else { usize::try_from(seed).unwrap() % all.len() };
        run(seed, &all[index], &references[index]).await;
    }
}

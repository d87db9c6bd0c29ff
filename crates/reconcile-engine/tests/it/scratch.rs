//! scratch
use reconcile_sim::*;
use crate::run::*;
#[tokio::test(start_paused = true)]
async fn show() {
    let t = std::time::Instant::now();
    let spec = fixture::spec(3, 0, |_| {});
    println!("spec {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let desired = fixture::desire(&spec);
    println!("desire {:?}", t.elapsed());
    let fleet = SimFleet::new(World::bare(&desired));
    println!("{}", reconcile_core::plan::text(&plan_now(&fleet, &desired).await, false));
    let t = std::time::Instant::now();
    let c = settle(&fleet, &desired, 1).await;
    println!("settle {:?} passes {} steps {} effects {} reads {}", t.elapsed(), c.passes, c.steps_done, fleet.effects().len(), fleet.reads());
    let t = std::time::Instant::now();
    for _ in 0..10 { drop(plan_now(&fleet, &desired).await); }
    println!("10 looks {:?}", t.elapsed());
    println!("{}", fleet.world().end_state());
    println!("{:#?}", fleet.world().writes);
}

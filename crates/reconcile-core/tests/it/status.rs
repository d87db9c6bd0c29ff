//! What a status tells is what runs, and beside it what is to run.

use reconcile_core::{plan::plan, status::status};
use reconcile_sim::{World, fixture};

#[test]
fn images_are_those_that_run() {
    let before = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let observed = World::converged(&before).observe(&before);
    let mut after = before.clone();
    for service in &mut after.swarm.services {
        service.image.push_str("-next");
    }
    let told = |desired| status(desired, &observed, &plan(desired, &observed), None).services;
    for (same, moved) in told(&before).into_iter().zip(told(&after)) {
        assert_eq!(same.desired_image, None);
        assert_eq!(moved.image, same.image);
        assert_eq!(moved.desired_image, Some(format!("{}-next", same.image)));
    }
}

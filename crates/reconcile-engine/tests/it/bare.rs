//! From freshly installed servers to a converged cluster.

use reconcile_sim::{SimFleet, World, fixture};

use crate::run::{apply, plan_now, settle};

async fn from_bare(members: usize, workers: usize, docker: bool) -> World {
    let spec = fixture::spec(members, workers, |spec| {
        if !docker {
            fixture::no_docker(spec);
        }
    });
    let desired = fixture::desire(&spec);
    let fleet = SimFleet::new(World::bare(&desired));
    let first = settle(&fleet, &desired, 1).await;
    assert!(first.passes <= 4, "{} passes", first.passes);
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new());
    assert_eq!(world.census()["main"], (1, members - 1));

    // What was just applied plans nothing and changes nothing.
    let plan = plan_now(&fleet, &desired).await;
    assert!(plan.is_converged(), "{}", reconcile_core::plan::text(&plan, true));
    let effects = fleet.effects().len();
    let second = apply(&fleet, &desired).await.unwrap();
    assert_eq!((second.steps_done, second.passes), (0, 1));
    assert_eq!(fleet.effects().len(), effects);
    assert_eq!(fleet.world().end_state(), world.end_state());
    world
}

#[tokio::test(start_paused = true)]
async fn one_server() {
    from_bare(1, 0, true).await;
}

#[tokio::test(start_paused = true)]
async fn three_servers() {
    from_bare(3, 0, true).await;
}

#[tokio::test(start_paused = true)]
async fn five_servers() {
    from_bare(5, 0, true).await;
}

#[tokio::test(start_paused = true)]
async fn three_servers_and_a_worker() {
    from_bare(3, 1, true).await;
}

#[tokio::test(start_paused = true)]
async fn three_servers_without_docker() {
    let world = from_bare(3, 0, false).await;
    assert!(world.swarms.is_empty());
}

/// T13: looking again and again changes nothing and costs one round trip a server.
#[tokio::test(start_paused = true)]
async fn nothing_happens_to_what_is_as_desired() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let fleet = SimFleet::new(World::converged(&desired));
    let before = fleet.world().end_state();
    for pass in 1..=100 {
        let result = apply(&fleet, &desired).await.unwrap();
        assert!(result.is_converged() && result.passes == 1);
        let trips: Vec<u64> =
            reconcile_core::ports::Fleet::round_trips(&fleet).into_values().collect();
        assert_eq!(trips, [2 * pass, pass, pass], "one probe each, and one look at the Swarm");
    }
    assert_eq!(fleet.effects(), Vec::<String>::new());
    assert_eq!(fleet.world().end_state(), before);
}

//! T5: answers in any order; one server that never answers or refuses is never touched, and
//! everything that does not need it goes on.

use reconcile_core::plan::HoldReason;
use reconcile_sim::{Faults, Reach, SimFleet, World};

use crate::{
    crashes::{reference, same_end},
    run::{apply, holds, plan_now, settle},
    workloads::{self, Workload, host},
};

/// What stands on one server, without the lines that other servers bring about.
fn server(world: &World, name: &str) -> String {
    let end = world.end_state();
    let lines = end.lines().skip_while(|line| !line.starts_with(&format!("server {name} ")));
    let (mut first, mut text) = (true, String::new());
    for line in lines {
        if !std::mem::take(&mut first) && !line.starts_with("  ") {
            break;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

async fn without(workload: &Workload, absent: &str, reach: Reach) {
    let reference = reference(workload).await;
    let what = format!("{} without {absent} ({reach:?})", workload.name);
    let fleet = SimFleet::new(workload.start());
    fleet.change(|world| world.server_mut(absent).reach = reach.clone());
    let before = server(&fleet.world(), absent);

    let result = apply(&fleet, &workload.desired).await.unwrap();
    let world = fleet.world();
    assert_eq!(world.violations, Vec::<String>::new(), "{what}");
    assert!(result.errors.is_empty(), "{what}: {:?}", result.errors);
    assert!(!result.is_converged(), "{what}");
    assert_eq!(server(&world, absent), before, "{what}: it was touched");
    let touched: Vec<_> =
        fleet.effects().into_iter().filter(|effect| effect.starts_with(absent)).collect();
    assert_eq!(touched, Vec::<String>::new(), "{what}");
    let plan = plan_now(&fleet, &workload.desired).await;
    let held = plan.held.iter().any(|held| {
        held.object.host() == Some(&host(absent)) && matches!(held.reason, HoldReason::Unknown(_))
    });
    assert!(held, "{what}: {:?}", holds(&plan));
    assert!(plan.steps.is_empty(), "{what}: {}", reconcile_core::plan::text(&plan, false));

    // It comes back: the same end as ever.
    fleet.change(|world| world.server_mut(absent).reach = Reach::Answers);
    settle(&fleet, &workload.desired, 1).await;
    same_end(&fleet, &reference, &what);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_left_alone() {
    let mut all = vec![workloads::bare()];
    all.extend(workloads::changes().await);
    let refuses = Reach::Refuses("its host key is not the pinned one".to_owned());
    for workload in all {
        for name in workload.desired.servers.keys() {
            for reach in [Reach::Silent, refuses.clone()] {
                without(&workload, name.as_str(), reach).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_may_come_in_any_order() {
    let mut all = vec![workloads::bare()];
    all.extend(workloads::changes().await);
    for workload in all {
        let reference = reference(&workload).await;
        for seed in 0..4 {
            let faults = Faults { shuffle: Some(seed), ..Faults::default() };
            let fleet = SimFleet::with_faults(workload.start(), faults);
            settle(&fleet, &workload.desired, 1).await;
            same_end(&fleet, &reference, &format!("{}: order {seed}", workload.name));
        }
    }
}

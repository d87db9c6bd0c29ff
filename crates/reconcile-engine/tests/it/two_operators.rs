//! T9: two operators on one fleet, each stopped at random for longer than its lease lasts: what
//! they do never interleaves, nothing is done twice, and both come to the end.

use std::time::Duration;

use reconcile_core::{model::HostName, ports::Switching as _};
use reconcile_engine::{Event, Listener as _};
use reconcile_engine::{
    Leased, converge,
    lease::{Candidate, LeaseError, Wait, keep, release, win},
    resume::resume_owed,
    switchover::Order,
};
use reconcile_sim::{Operator, Shared, SimFleet};
use tokio_util::sync::CancellationToken;

use crate::{
    crashes::{more_writes, reference, same_state},
    run::{Memory, converged},
    workloads::{self, Workload},
};

/// Converges under the lease until nothing is left to do.
async fn operate(operator: &Operator, name: &str, workload: &Workload) {
    for round in 0..200 {
        let holder = format!("{name}/{round}");
        let stop = CancellationToken::new();
        let held =
            win(operator, holder.as_str(), Wait::Behind, || 0.7, |_| {}, &stop).await.unwrap();
        let leased = Leased { fleet: operator, held: held.clone() };
        let result = tokio::select! {
            result = converge(&leased, &workload.desired, &(), held.lost()) => Some(result.unwrap()),
            () = async { keep(operator, &held).await; std::future::pending().await } => None,
        };
        release(operator, &held).await;
        if result.is_some_and(|converged| converged.is_converged()) {
            return;
        }
    }
    panic!("{name} does not come to an end");
}

async fn both(workload: &Workload, seed: u64, stops: u64) -> usize {
    let reference = reference(workload).await;
    let what = format!("{} with seed {seed}", workload.name);
    let shared = Shared::new(SimFleet::new(workload.start()));
    let (one, two) = (Operator::new(&shared, seed, stops), Operator::new(&shared, !seed, stops));
    tokio::join!(operate(&one, "one", workload), operate(&two, "two", workload));
    assert_eq!(shared.overlaps(), Vec::<String>::new(), "{what}");
    let tokens = shared.took_place();
    assert!(tokens.is_sorted(), "{what}: an older token after a newer: {tokens:?}");
    let writes = same_state(&shared.fleet, &reference, &what);
    // An effect whose answer its operator did not live to hear is observed, not repeated.
    assert_eq!(more_writes(&writes, &reference, 0), None, "{what}");
    shared.refused()
}

#[tokio::test(start_paused = true)]
async fn two_operators_never_interleave_and_do_nothing_twice() {
    let mut all = vec![workloads::bare()];
    all.extend(workloads::changes().await);
    let mut refused = 0;
    for seed in 0..40 {
        let workload = &all[usize::try_from(seed).unwrap() % all.len()];
        refused += both(workload, seed, 120).await;
    }
    assert!(refused > 0, "the fence was never needed, so nothing was tested");
}

#[tokio::test(start_paused = true)]
async fn without_stops_the_second_waits_and_finds_nothing_to_do() {
    let refused = both(&workloads::bare(), 7, 0).await;
    assert_eq!(refused, 0);
}

/// Holds the lease until it is asked for it, again and again, as `--watch` does; tells how often.
async fn stays(operator: &Operator, until: &CancellationToken) -> usize {
    let mut given_back = 0;
    while let Ok(held) = win(operator, "stays", Wait::Behind, || 0.7, |_| {}, until).await {
        tokio::select! {
            () = held.asked().cancelled() => given_back += 1,
            () = until.cancelled() => {}
            () = keep(operator, &held) => panic!("it was lost"),
        }
        release(operator, &held).await;
        if until.is_cancelled() {
            break;
        }
    }
    given_back
}

#[tokio::test(start_paused = true)]
async fn who_holds_it_all_the_time_gives_it_to_one_that_asks_and_gets_it_back() {
    let shared = Shared::new(SimFleet::new(workloads::bare().start()));
    let [watch, plain, asks] = [1, 2, 3].map(|seed| Operator::new(&shared, seed, 0));
    let (end, never) = (CancellationToken::new(), CancellationToken::new());
    let commands = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let patience = Duration::from_secs(20);
        let refused =
            win(&plain, "plain", Wait::For(patience), || 0.7, |_| {}, &never).await.unwrap_err();
        assert_eq!(refused, LeaseError::Taken { holder: "stays".to_owned() });
        for round in 0..3 {
            let (name, began) = (format!("asks/{round}"), tokio::time::Instant::now());
            let held =
                win(&asks, name.as_str(), Wait::Asking(patience), || 0.7, |_| {}, &never).await;
            let held = held.unwrap();
            assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
            tokio::time::sleep(Duration::from_secs(9)).await;
            assert!(held.holds(), "nobody takes it meanwhile");
            release(&asks, &held).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        end.cancel();
    };
    let (given_back, ()) = tokio::join!(stays(&watch, &end), commands);
    assert_eq!(given_back, 3);
}

/// What is left of an operator that was killed after PAUSE: its lease, poolers that wait, and a journal in
/// which the switchover is open.
async fn killed_between_pause_and_resume(operator: &Operator, holder: &str) -> Memory {
    let never = CancellationToken::new();
    win(operator, holder, Wait::Behind, || 0.7, |_| {}, &never).await.unwrap();
    let nodes: Vec<HostName> = ["node1", "node2", "node3"].map(HostName::from).to_vec();
    let (leader, candidate) = (nodes[0].clone(), nodes[1].clone());
    let order = Order { leader, candidate, restart: None, nodes: nodes.clone(), regardless: false };
    let memory = Memory::default();
    memory.hear(&Event::SwitchBegins(&order));
    for node in &nodes {
        operator.guard(node).await.unwrap();
        operator.pause(node).await.unwrap();
    }
    memory
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_a_killed_one_resumes_at_once_and_only_its_own_pause() {
    let desired = workloads::bare().desired;
    for away in [0, 4, 11, 16, 25] {
        let shared = Shared::new(SimFleet::new(converged(&desired).await));
        let [first, heir, other] = [1, 2, 3].map(|seed| Operator::new(&shared, seed, 0));
        let began = tokio::time::Instant::now();
        let memory = killed_between_pause_and_resume(&first, "ops1/1/mark").await;
        assert_eq!(shared.fleet.world().paused.len(), 3);
        let never = CancellationToken::new();
        // On another machine, from the moment of the kill: it pauses for a switchover of its own.
        let elsewhere = async {
            let held = win(&other, "ops2/1", Wait::Behind, || 0.7, |_| {}, &never).await.unwrap();
            let won = began.elapsed();
            for node in ["node1", "node2", "node3"] {
                other.guard(&node.into()).await.unwrap();
                other.pause(&node.into()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            let paused = shared.fleet.world().paused.len();
            release(&other, &held).await;
            (won, paused)
        };
        let restarted = async {
            tokio::time::sleep(Duration::from_secs(away)).await;
            let started = tokio::time::Instant::now();
            let candidate =
                Candidate { holder: "ops1/2/mark", gone: &|holder| holder == "ops1/1/mark" };
            let held = win(&heir, candidate, Wait::Behind, || 0.7, |_| {}, &never).await.unwrap();
            let took = started.elapsed();
            let failed = resume_owed(&heir, &desired, &memory).await;
            assert!(failed.is_empty() && held.holds(), "{failed:?}");
            let paused = shared.fleet.world().paused.len();
            release(&heir, &held).await;
            (took, paused)
        };
        let ((won, kept), (took, left)) = tokio::join!(elsewhere, restarted);
        let what = format!("{away} s later: {took:?}, the other after {won:?}");
        assert_eq!(kept, 3, "nobody resumes what another paused; {what}");
        assert_eq!(left, 0, "{what}");
        if away < 14 {
            assert!(took < Duration::from_secs(2), "{what}");
        }
        assert!(shared.took_place().is_sorted());
    }
}

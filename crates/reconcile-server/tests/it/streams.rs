//! The event stream: what comes, in which order, and what a client that was away gets.

use std::time::{Duration, Instant};

use reconcile_engine::settled::Drifts;
use reconcile_sim::World;

use crate::{
    client::{Events, get},
    world::{converged, desired, pass, planned, proof, serve},
};

#[test]
fn first_the_whole_then_what_changes() {
    let site = serve(|_| {});
    let desired = desired();
    let address = site.served.address();
    let mut events = Events::open(address, None);
    let first = events.next();
    assert_eq!(first.kind, "status");
    assert!(first.data["events"].is_array());
    assert!(events.tick().data["now"].is_string());

    let plan = planned(&site.board, &desired, &World::bare(&desired), 1);
    let event = loop {
        let event = events.next();
        if event.kind == "status" {
            break event;
        }
    };
    assert_eq!(event.data["plan"]["steps"].as_array().unwrap().len(), plan.steps.len());
    assert_eq!(events.next().kind, "calm");

    // A step under way is told at once, not when its pass ends.
    let started = Instant::now();
    site.board.step_started(&plan.steps[0]);
    let event = events.next();
    assert!(started.elapsed() < Duration::from_millis(500));
    assert_eq!(
        (event.kind.as_str(), &event.data["progress"]["state"]),
        ("step", &"running".into())
    );
    site.board.step_finished(&plan.steps[0], None, Duration::from_secs(2));
    assert_eq!(events.next().data["progress"]["state"], "done");
    assert_eq!(events.next().kind, "log");
}

/// Drift is told when it comes up: on the stream, and in the history of `/status`.
#[test]
fn drift_is_told() {
    let (site, desired, mut world) = converged();
    let address = site.served.address();
    let mut drifts = Drifts::default();
    let mut look = |world: &World, number| {
        let observed = world.observe(&desired);
        let plan = reconcile_core::plan::plan(&desired, &observed);
        let news = drifts.looked(&desired, &plan);
        site.board.drifted(&news.into_iter().map(|drift| drift.told).collect::<Vec<_>>());
        pass(&site.board, &desired, world, number);
    };
    look(&world, 2);
    let mut events = Events::open(address, None);
    assert_eq!(events.next().kind, "status");
    let file = world.server_mut("node1").files.get_mut("/etc/default/etcd").unwrap();
    file.bytes.extend_from_slice(b"ETCD_LOG_LEVEL=canary-4711\n");
    look(&world, 3);
    let told = "drift node1:/etc/default/etcd (files): has 1 line by hand";
    let event = events.next();
    assert_eq!((event.kind.as_str(), &event.data["text"]), ("log", &told.into()));
    assert_eq!(event.data["kind"], "drift");
    look(&world, 4);
    let status = get(address, "/status");
    let history = status.json()["events"].to_string();
    assert_eq!(history.matches(told).count(), 1, "{history}");
    assert!(!history.contains("canary"), "what was written by hand may be a secret: {history}");
    // More at once than anybody reads.
    site.board.drifted(&(0..23).map(|number| format!("object {number}")).collect::<Vec<_>>());
    let history = get(address, "/status").json()["events"].to_string();
    assert!(history.contains("drift object 19\""), "{history}");
    assert!(!history.contains("object 20") && history.contains("drift of 3 more"), "{history}");
}

/// A calm cluster sends a few bytes a pass, not the whole status.
#[test]
fn calm() {
    let (site, desired, world) = converged();
    let mut events = Events::open(site.served.address(), None);
    assert_eq!(events.next().kind, "status");
    pass(&site.board, &desired, &world, 2);
    let event = events.next();
    assert_eq!((event.kind.as_str(), &event.data["passes"]["number"]), ("calm", &2.into()));
    assert_eq!(event.data["passes"]["running"], false);
    site.board.verified(&proof(true));
    let event = events.next();
    assert_eq!(event.kind, "calm");
    assert!(event.data["proofAt"].is_string());
}

#[test]
fn resumed() {
    let (site, desired, mut world) = converged();
    let address = site.served.address();
    let last = Events::open(address, None).next().id;
    pass(&site.board, &desired, &world, 2);
    world.server_mut("node3").power = false;
    pass(&site.board, &desired, &world, 3);
    let mut events = Events::open(address, Some(&last));
    let mut kinds = Vec::new();
    let mut ids = Vec::new();
    while ids.len() < 3 || kinds.last().is_some_and(|kind| kind != "calm") {
        let event = events.next();
        ids.push(event.id);
        kinds.push(event.kind);
    }
    // What happened between, and not the whole anew.
    assert_eq!(kinds[0], "calm");
    assert!(kinds.contains(&"log".to_owned()) && kinds.contains(&"status".to_owned()), "{kinds:?}");
    let numbers: Vec<u64> =
        ids.iter().map(|id| id.rsplit('-').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");

    // A client that has seen all waits; one of another process, or of long ago, starts anew.
    let newest = ids.last().unwrap();
    let mut events = Events::open(address, Some(newest));
    site.board.source_changed(None);
    assert_eq!(events.next().kind, "log");
    for id in ["0-1", "nonsense", "", &format!("{}-999999", newest.split('-').next().unwrap())] {
        assert_eq!(Events::open(address, Some(id)).next().kind, "status", "{id}");
    }
    for number in 4..700 {
        pass(&site.board, &desired, &world, number);
    }
    let event = Events::open(address, Some(&last)).next();
    assert_eq!((event.kind.as_str(), &event.data["passes"]["number"]), ("status", &699.into()));
}

#[test]
fn streams_end_with_the_server() {
    let (site, ..) = converged();
    let address = site.served.address();
    let mut events = Events::open(address, None);
    drop(events.next());
    assert!(get(address, "/metrics").body.contains("reconcile_event_streams 1"));
    let started = Instant::now();
    drop(site);
    assert!(started.elapsed() < Duration::from_secs(2));
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        loop {
            drop(events.next());
        }
    }));
    assert!(ended.is_err());
}

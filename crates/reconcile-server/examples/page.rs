//! The page with a simulated cluster behind it, for working on the page: `cargo run -p
//! reconcile-server --example page -- [converged|drift|down|bare|broken|waits|
//! standby|leaving|window|paused]`, then open
//! http://127.0.0.1:7433/.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "an example")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reconcile_core::{
    desired::Desired,
    model::{PauseNote, RefusedSource, Revision},
    plan::plan,
    verify::{Proof, VerifyReport, Way, observed_proofs},
};
use reconcile_engine::settled::Drifts;
use reconcile_server::{About, Board, Lease, Listen, start};
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::{Permission, Window};

fn main() {
    let scene = std::env::args().nth(1).unwrap_or_else(|| "converged".to_owned());
    let mut desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    if scene == "leaving" {
        desired = fixture::desire(&fixture::spec_without(4, 0, &["node4"]));
    }
    if scene == "window" {
        let policy = &mut desired.policy;
        (policy.restart, policy.switchover) = (Permission::InWindow, Permission::InWindow);
        let (cron, timezone) = ("0 2 * * 6".parse().unwrap(), "Europe/Berlin".to_owned());
        policy.windows = vec![Window { cron, duration_s: 7200, timezone }];
    }
    let board = Arc::new(Board::new(About {
        cluster: "main".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interval: Duration::from_secs(10),
    }));
    let address = "127.0.0.1:7433".parse().unwrap();
    let listen = Listen { address, tls: None, token: None, webhook: None };
    let served = start(listen, Arc::clone(&board), tokio::sync::mpsc::channel(1).0).unwrap();
    eprintln!("{scene} on {}", served.url());
    let good = revision("600d", "Three servers");
    board.source_changed((scene == "broken").then_some(&good));
    board.lease(&if scene == "waits" {
        let why = "lease: 1 of 3 servers granted it, 2 are needed".to_owned();
        Lease::Waits { why, keeper: None }
    } else if scene == "standby" {
        let keeper = "ops@laptop (process 4711)";
        let why = format!("{keeper} holds the lease of this cluster, since 10:15Z");
        Lease::Waits { why, keeper: Some(keeper.to_owned()) }
    } else {
        Lease::Held { token: 7, left: Duration::from_secs(3600) }
    });
    let good = World::converged(&desired);
    let mut world = good.clone();
    world.now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    match scene.as_str() {
        "bare" => world = World::bare(&desired),
        "down" => {
            world.server_mut("node3").power = false;
            world.server_mut("node2").units.get_mut("patroni.service").unwrap().running = false;
        }
        "leaving" => {
            world = World::converged(&fixture::desire(&fixture::spec(4, 0, |_| {})));
            world.grow(&desired);
        }
        "drift" | "window" | "paused" => {
            for host in ["node1", "node2"] {
                let files = &mut world.server_mut(host).files;
                let file = files.get_mut("/etc/default/etcd").unwrap();
                file.bytes.extend_from_slice(b"ETCD_LOG_LEVEL=debug\n");
            }
            if scene == "paused" {
                world.server_mut("node3").pause = Some(PauseNote {
                    number: 1,
                    until: world.now + 3600,
                    by: "ada@ops1".to_owned(),
                    reason: "disk swap".to_owned(),
                });
            }
            if scene == "drift" {
                world.server_mut("node3").units.get_mut("etcd.service").unwrap().running = false;
            }
        }
        _ => {}
    }
    let mut drifts = Drifts::default();
    for number in 1.. {
        if scene == "standby" {
            std::thread::sleep(Duration::from_secs(1));
            board.tick();
            continue;
        }
        let shown = if number == 1 && scene != "bare" { &good } else { &world };
        pass(&board, &desired, shown, number, &mut drifts);
        if scene == "broken" && number == 2 {
            let text = include_str!("../../../tests/spec/invalid/unknown-fields.yaml");
            let report = reconcile_spec::load("prod/cluster.yaml", text).unwrap_err().to_string();
            board.source_broken(&RefusedSource {
                file: "prod/cluster.yaml".to_owned(),
                revision: Some(revision("bad0", "Raise <b>work_mem</b> for the reports")),
                report,
                unread: false,
            });
        }
        std::thread::sleep(Duration::from_secs(if number == 1 { 1 } else { 10 }));
    }
}

fn revision(hash: &str, subject: &str) -> Revision {
    Revision {
        commit: hash.repeat(10),
        author: "Ada Lovelace <ada@example.org>".to_owned(),
        time: "2026-11-22T10:15:00+01:00".to_owned(),
        subject: subject.to_owned(),
    }
}

/// A pass whose first step is done and whose next ones stay under way.
fn pass(board: &Board, desired: &Desired, world: &World, number: u32, drifts: &mut Drifts) {
    board.pass_started(number);
    let observed = world.observe(desired);
    let known = observed.hosts.iter().filter(|(_, facts)| facts.known().is_some());
    let answers: BTreeMap<_, _> =
        known.map(|(host, _)| (host.clone(), Duration::from_millis(183))).collect();
    board.observed(&answers);
    let plan = plan(desired, &observed);
    let news = drifts.looked(desired, &plan);
    board.drifted(&news.into_iter().map(|drift| drift.told).collect::<Vec<_>>());
    board.looked(desired, &observed, &plan);
    for (at, step) in plan.steps.iter().take(4).enumerate() {
        board.step_started(step);
        std::thread::sleep(Duration::from_millis(300));
        match at {
            0 => board.step_finished(step, None, Duration::from_millis(300)),
            1 => board.step_finished(
                step,
                Some("apply on node1: no space left on device"),
                Duration::from_millis(300),
            ),
            _ => {}
        }
    }
    if !plan.steps.is_empty() {
        return;
    }
    board.pass_ended(Duration::from_millis(412), 0, 0);
    let mut report = VerifyReport { proofs: observed_proofs(desired, &observed) };
    for (word, way, host) in [
        ("write", Way::Write, "node1"),
        ("read", Way::Read, "node1"),
        ("write", Way::Write, "node2"),
        ("read", Way::Read, "node2"),
    ] {
        report.proofs.push(Proof {
            what: format!("{word} through HAProxy on {host}"),
            host: Some(host.into()),
            way: Some(way),
            holds: true,
            millis: 14,
            detail: "served by 10.0.0.2:5432".to_owned(),
            ..Proof::default()
        });
    }
    board.verified(&report);
}

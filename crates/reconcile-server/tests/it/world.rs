//! A board with what a simulated cluster shows, and a server before it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reconcile_core::{
    desired::Desired,
    plan::{Plan, plan},
    verify::{Proof, VerifyReport, Way},
};
use reconcile_server::{About, Board, Listen, Served, Token, start};
use reconcile_sim::{World, fixture};
use tokio::sync::mpsc;

pub(crate) const TOKEN: &str = "a-token-that-is-long";
pub(crate) const WEBHOOK: &str = "a-webhook-secret-that-is-long";

pub(crate) struct Site {
    pub(crate) board: Arc<Board>,
    pub(crate) served: Served,
    pub(crate) dirty: mpsc::Receiver<()>,
}

pub(crate) fn board() -> Arc<Board> {
    Arc::new(Board::new(About {
        cluster: "main".to_owned(),
        version: "0.0.0-test".to_owned(),
        interval: Duration::from_secs(10),
    }))
}

pub(crate) fn listen() -> Listen {
    Listen { address: "127.0.0.1:0".parse().unwrap(), tls: None, token: None, webhook: None }
}

pub(crate) fn serve(change: impl FnOnce(&mut Listen)) -> Site {
    let board = board();
    let (sender, dirty) = mpsc::channel(1);
    let mut options = listen();
    change(&mut options);
    let served = start(options, Arc::clone(&board), sender).unwrap();
    Site { board, served, dirty }
}

pub(crate) fn token(text: &str) -> Token {
    Token::new(text).unwrap()
}

pub(crate) fn desired() -> Desired {
    fixture::desire(&fixture::spec(3, 0, |_| {}))
}

/// A whole pass over a world, without its steps.
pub(crate) fn pass(board: &Board, desired: &Desired, world: &World, number: u32) {
    drop(planned(board, desired, world, number));
}

/// The same, for those who take the steps of its plan.
pub(crate) fn planned(board: &Board, desired: &Desired, world: &World, number: u32) -> Plan {
    board.pass_started(number);
    let observed = world.observe(desired);
    let answers: BTreeMap<_, _> = observed
        .hosts
        .iter()
        .filter(|(_, facts)| facts.known().is_some())
        .map(|(host, _)| (host.clone(), Duration::from_millis(180)))
        .collect();
    board.observed(&answers);
    let plan = plan(desired, &observed);
    board.looked(desired, &observed, &plan);
    board.pass_ended(Duration::from_millis(400), 0, 0);
    plan
}

pub(crate) fn proof(holds: bool) -> VerifyReport {
    let proof = Proof {
        what: "write through HAProxy on node1".to_owned(),
        host: Some("node1".into()),
        way: Some(Way::Write),
        holds,
        millis: 12,
        detail: "10.0.0.2:5432".to_owned(),
        ..Proof::default()
    };
    VerifyReport { proofs: vec![proof] }
}

/// A site that shows a converged cluster.
pub(crate) fn converged() -> (Site, Desired, World) {
    let site = serve(|_| {});
    let desired = desired();
    let world = World::converged(&desired);
    site.board.source_changed(None);
    pass(&site.board, &desired, &world, 1);
    site.board.verified(&proof(true));
    (site, desired, world)
}

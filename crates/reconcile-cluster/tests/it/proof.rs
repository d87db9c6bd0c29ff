//! What is proven, and what is said where it is not.

use reconcile_cluster::verify;
use reconcile_core::{
    model::SecretText,
    verify::{Front, VerifyReport, VerifyRequest},
};

use crate::fake::{Fake, READ, WRITE};

fn request(commit: bool, nodes: &[&str]) -> VerifyRequest {
    let front = |node: &&str| Front {
        host: (*node).into(),
        address: "192.0.2.1".to_owned(),
        write_port: WRITE,
        read_port: Some(READ),
        through: "HAProxy".to_owned(),
    };
    VerifyRequest {
        unseen: Vec::new(),
        fronts: nodes.iter().map(front).collect(),
        role: "probe".to_owned(),
        password: SecretText::new("canary"),
        database: "postgres".to_owned(),
        commit,
        token: "run-1".to_owned(),
    }
}

fn lines(report: &VerifyReport) -> Vec<String> {
    let line = |proof: &reconcile_core::verify::Proof| {
        format!("{} {}: {}", if proof.holds { "+" } else { "-" }, proof.what, proof.detail)
    };
    report.proofs.iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_awaited_at_the_read_port() {
    let fake = Fake::with(|state| state.lag = 3);
    let report = verify(&fake, &request(true, &["node1"])).await;
    assert_eq!(
        lines(&report),
        [
            "+ commit through HAProxy on node1: committed on 192.0.2.11",
            "+ read through HAProxy on node1: read from standby 192.0.2.12, the committed row is there, at try 4",
        ]
    );
    assert!(report.holds());
    assert!(report.proofs[1].millis >= 750);
}

#[tokio::test(start_paused = true)]
async fn without_commit_nothing_stays_and_each_proof_gets_one_try() {
    let fake = Fake::default();
    let report = verify(&fake, &request(false, &["node1", "node2"])).await;
    assert_eq!(
        lines(&report),
        [
            "+ write through HAProxy on node1: written and rolled back on 192.0.2.11",
            "+ read through HAProxy on node1: read from standby 192.0.2.12",
            "+ write through HAProxy on node2: written and rolled back on 192.0.2.11",
            "+ read through HAProxy on node2: read from standby 192.0.2.12",
        ]
    );
    {
        let state = fake.0.lock().unwrap();
        assert_eq!(state.token, None);
        let writes = state.asked.iter().filter(|sql| sql.starts_with("BEGIN; INSERT")).count();
        assert_eq!((state.asked.len(), writes), (4, 2));
    }
    let fake = Fake::with(|state| state.refuse = 1);
    let report = verify(&fake, &request(false, &["node1"])).await;
    assert_eq!(
        lines(&report)[0],
        "- write through HAProxy on node1: reach 192.0.2.1:6432 on node1: connection refused"
    );
    assert!(!report.holds());
}

#[tokio::test(start_paused = true)]
async fn fresh_services_get_a_few_seconds_after_a_change() {
    let fake = Fake::with(|state| state.refuse = 5);
    let report = verify(&fake, &request(true, &["node1"])).await;
    assert_eq!(report.proofs[0].detail, "committed on 192.0.2.11, at try 6");
    assert!(report.holds());
    let fake = Fake::with(|state| state.refuse = 1000);
    let report = verify(&fake, &request(true, &["node1"])).await;
    assert!(report.proofs[0].detail.contains("connection refused (last of "), "{report:?}");
    assert!(report.proofs.iter().all(|proof| proof.millis < 9_000), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_never_arrives_is_told_with_the_server() {
    let fake = Fake::with(|state| state.lag = 1000);
    let report = verify(&fake, &request(true, &["node1"])).await;
    let detail = &report.proofs[1].detail;
    assert!(
        detail.starts_with("standby 192.0.2.12 does not show the committed row yet"),
        "{detail}"
    );
    assert!((9_000..11_000).contains(&report.proofs[1].millis));
}

#[tokio::test(start_paused = true)]
async fn a_refused_log_in_is_final_and_a_broken_pooler_is_not() {
    let fake = Fake::with(|state| state.reject = Some(("28P01", "password authentication failed")));
    let report = verify(&fake, &request(true, &["node1"])).await;
    assert_eq!(
        report.proofs[0].detail,
        "log in at 192.0.2.1:6432: password authentication failed (SQLSTATE 28P01)"
    );
    let fake = Fake::with(|state| state.reject = Some(("08P01", "server login has been failing")));
    let report = verify(&fake, &request(true, &["node1"])).await;
    assert!(report.proofs[0].detail.contains("tries)"), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_lands_on_a_standby_fails_with_the_servers_words() {
    let fake = Fake::with(|state| {
        state.fail = Some(("25006", "cannot execute INSERT in a read-only transaction"));
    });
    let report = verify(&fake, &request(false, &["node1"])).await;
    assert_eq!(
        report.proofs[0].detail,
        "cannot execute INSERT in a read-only transaction (SQLSTATE 25006)"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_bounded() {
    let fake = Fake::with(|state| state.silent = true);
    let report = verify(&fake, &request(false, &["node1"])).await;
    assert_eq!(report.proofs[0].detail, "no session at 192.0.2.1:6432 within 5 s");
    assert_eq!(report.proofs[0].millis, 5_000);
}

#[tokio::test]
async fn words_that_could_be_more_than_words_never_reach_a_server() {
    let fake = Fake::default();
    let request = VerifyRequest { token: "x'); DROP".to_owned(), ..request(true, &["node1"]) };
    let report = verify(&fake, &request).await;
    assert!(report.proofs[0].detail.contains("is no word"), "{report:?}");
    assert!(fake.0.lock().unwrap().asked.iter().all(|sql| !sql.contains("DROP")));
}

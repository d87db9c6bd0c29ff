//! No secret's value in any answer, however the world differs from what should be.

use reconcile_core::{desired::Desired, model::RefusedSource};
use reconcile_sim::World;

use crate::{
    client::{Events, ask, get},
    world::{Site, TOKEN, WEBHOOK, desired, planned, serve, token},
};

/// Every secret of the fixture holds the first; every password in PostgreSQL starts like the second.
const NEVER: [&str; 4] = ["canary-", "SCRAM-SHA-256$", TOKEN, WEBHOOK];

fn silent(site: &Site, what: &str) {
    let address = site.served.address();
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    for path in ["/", "/status", "/metrics", "/openapi.json", "/healthz", "/readyz", "/none"] {
        let answer = ask(address, "GET", path, &headers, b"");
        for word in NEVER {
            let shown = answer.body.contains(word) || answer.head.contains(word);
            assert!(!shown, "{path} shows a secret, {what}");
        }
    }
}

#[test]
fn secrets_stay_secret() {
    let site = serve(|listen| {
        listen.token = Some(token(TOKEN));
        listen.webhook = Some(token(WEBHOOK));
    });
    let desired = desired();
    let look = |world: &World, what: &str| {
        let plan = planned(&site.board, &desired, world, 1);
        for step in &plan.steps {
            site.board.step_started(step);
            site.board.step_finished(step, Some("it broke"), std::time::Duration::ZERO);
        }
        silent(&site, what);
        plan.steps.len()
    };
    assert!(look(&World::bare(&desired), "bare") > 50);
    let converged = World::converged(&desired);
    assert_eq!(look(&converged, "converged"), 0);
    let mut drifted = converged.clone();
    for (host, server) in &desired.servers {
        for (path, file) in &server.files {
            if file.file.content.is_secret() {
                let file = drifted.server_mut(host.as_str()).files.get_mut(path).unwrap();
                file.bytes = b"canary-by-hand".to_vec();
            }
        }
    }
    assert!(look(&drifted, "drifted") > 0);
    assert!(alive(&desired));
}

/// The canary lives: what is written to the servers does hold the values.
fn alive(desired: &Desired) -> bool {
    desired
        .servers
        .values()
        .flat_map(|server| server.files.values())
        .any(|file| String::from_utf8_lossy(file.file.content.bytes()).contains("canary-"))
}

#[test]
fn the_stream_holds_none_either() {
    let site = serve(|_| {});
    let desired = desired();
    let mut events = Events::open(site.served.address(), None);
    drop(events.next());
    let plan = planned(&site.board, &desired, &World::bare(&desired), 1);
    for step in &plan.steps {
        site.board.step_started(step);
    }
    // A client that is slow gets some of the steps within the whole.
    site.board.source_broken(&RefusedSource {
        unread: false,
        file: "main.yaml".to_owned(),
        revision: None,
        report: "the last word".to_owned(),
    });
    loop {
        let event = events.next();
        let text = event.data.to_string();
        assert!(NEVER.iter().all(|word| !text.contains(word)), "{text}");
        if event.data["source"]["state"] == "broken" {
            break;
        }
    }
    assert_eq!(get(site.served.address(), "/status").code, 200);
}

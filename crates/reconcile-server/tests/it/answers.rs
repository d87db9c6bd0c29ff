//! What is told.

use reconcile_core::model::{ArchiverFact, Observation, PauseNote, RefusedSource, Revision};
use reconcile_server::Lease;
use reconcile_sim::{World, fixture};
use reconcile_spec::valid::{Permission, Window};
use serde_json::{Value, json};

use crate::{
    client::{ask, get},
    world::{converged, desired, pass, planned, proof, serve},
};

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let mut all = status["conditions"].as_array().unwrap().iter();
    all.find(|condition| condition["type"] == kind).unwrap()
}

#[test]
fn a_converged_cluster() {
    let (site, ..) = converged();
    let status = get(site.served.address(), "/status").json();
    assert_eq!(condition(&status, "Ready")["status"], "True");
    assert_eq!(status["source"]["state"], "inForce");
    assert_eq!(status["hosts"].as_array().unwrap().len(), 3);
    assert_eq!(status["hosts"][0]["answerSeconds"], 0.18);
    assert_eq!(status["services"][0]["running"], 3);
    assert_eq!(status["services"][0]["tasks"].as_array().unwrap().len(), 3);
    assert_eq!(status["plan"], json!({ "steps": [], "paused": [], "queued": [], "held": [] }));
    assert_eq!(status["proof"]["holds"], true);
    assert!(status["lastGoodProof"].is_string());
    assert!(status["hosts"][0]["versions"]["postgresql"].is_string());
    for route in ["/healthz", "/readyz"] {
        assert_eq!(get(site.served.address(), route).code, 200, "{route}");
    }
}

#[test]
fn before_the_first_pass_nothing_is_claimed() {
    let site = serve(|_| {});
    let address = site.served.address();
    assert_eq!(get(address, "/healthz").code, 200);
    let ready = get(address, "/readyz");
    assert_eq!((ready.code, ready.body.as_str()), (503, "the desired state was not read yet\n"));
    let metrics = get(address, "/metrics").body;
    for name in ["host_reachable{", "tasks_running{", "lag_bytes{", "proof_holds ", "last_pass"] {
        let absent = metrics.lines().all(|line| line.starts_with('#') || !line.contains(name));
        assert!(absent, "{name} in\n{metrics}");
    }
}

/// `lastTransitionTime` is that of the change, not of the last look.
#[test]
fn transitions() {
    let (site, desired, mut world) = converged();
    let address = site.served.address();
    let before = get(address, "/status").json();
    std::thread::sleep(std::time::Duration::from_millis(5));
    world.server_mut("node2").units.get_mut("patroni.service").unwrap().running = false;
    pass(&site.board, &desired, &world, 2);
    let after = get(address, "/status").json();
    let time = |status: &Value, kind: &str| condition(status, kind)["lastTransitionTime"].clone();
    assert_eq!(condition(&after, "DatabaseHealthy")["status"], "False");
    assert_ne!(time(&before, "DatabaseHealthy"), time(&after, "DatabaseHealthy"));
    assert_eq!(time(&before, "EtcdHealthy"), time(&after, "EtcdHealthy"));
    let texts: Vec<_> = after["events"].as_array().unwrap().iter().map(|e| &e["text"]).collect();
    assert!(texts.iter().any(|text| **text == "PostgreSQL on node2: replica → down"), "{texts:?}");
}

#[test]
fn unknown_is_not_zero() {
    let (site, desired, mut world) = converged();
    world.server_mut("node3").power = false;
    let metrics = get(site.served.address(), "/metrics").body;
    assert!(metrics.contains("reconcile_host_reachable{host=\"node3\"} 1"), "{metrics}");
    assert!(metrics.contains("reconcile_postgresql_timeline{host=\"node3\"}"));
    assert!(metrics.contains("type=\"EtcdHealthy\",status=\"True\"} 1"), "{metrics}");
    pass(&site.board, &desired, &world, 2);
    let metrics = get(site.served.address(), "/metrics").body;
    assert!(metrics.contains("reconcile_host_reachable{host=\"node3\"} 0"), "{metrics}");
    // So this is what an alert asks for (docs/guide.md).
    let guide = include_str!("../../../../docs/guide.md");
    let alert = "reconcile_condition{type=\"EtcdHealthy\",status=\"True\"}";
    assert!(guide.contains(&format!("`{alert} == 0`")));
    assert!(metrics.contains(&format!("{alert} 0")), "{metrics}");
    for name in ["postgresql_timeline", "postgresql_leader", "etcd_member_healthy", "host_answer"] {
        let line = metrics.lines().find(|line| line.contains(name) && line.contains("node3"));
        assert_eq!(line, None);
    }
    let leaders: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("reconcile_postgresql_leader{")).collect();
    assert_eq!(leaders.len(), 2);
    assert_eq!(leaders.iter().filter(|line| line.ends_with(" 1.0")).count(), 1, "{leaders:?}");
}

/// A lease is told as it stands; its renewals are no events.
#[test]
fn the_lease_is_told() {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    let (site, ..) = converged();
    let address = site.served.address();
    let none = get(address, "/metrics").body;
    assert!(!none.contains("\nreconcile_lease"), "{none}");
    let waits = |keeper: Option<&str>| Lease::Waits {
        why: "ops@laptop holds it".to_owned(),
        keeper: keeper.map(str::to_owned),
    };
    site.board.lease(&waits(None));
    let metrics = get(address, "/metrics").body;
    assert!(metrics.contains("\nreconcile_lease_held 0.0"), "{metrics}");
    assert!(!metrics.contains("\nreconcile_lease_until"), "{metrics}");
    let lease = |status: &Value| status["operator"]["lease"].clone();
    let told = get(address, "/status").json();
    assert_eq!(lease(&told)["waits"], "ops@laptop holds it");
    assert!(lease(&told)["keeper"].is_null());
    assert_eq!(get(address, "/readyz").body, "ok\n", "it looked a moment ago");
    // A standby says whose, and relies on nothing that it saw before.
    site.board.lease(&waits(Some("ops@laptop (process 4711)")));
    assert_eq!(lease(&get(address, "/status").json())["keeper"], "ops@laptop (process 4711)");
    let ready = get(address, "/readyz");
    assert_eq!(ready.body, "a standby: ops@laptop (process 4711) keeps this cluster\n");
    assert_eq!(ready.code, 503);
    let mut ends = Vec::new();
    for left in [9, 12, 12] {
        site.board.lease(&Lease::Held { token: 7, left: Duration::from_secs(left) });
        let metrics = get(address, "/metrics").body;
        assert!(metrics.contains("\nreconcile_lease_held 1.0"), "{metrics}");
        assert!(metrics.contains("\nreconcile_lease_token 7.0"), "{metrics}");
        let end = metrics
            .lines()
            .find_map(|line| line.strip_prefix("reconcile_lease_until_timestamp_seconds "));
        ends.push(end.unwrap().parse::<f64>().unwrap());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(ends[1] >= ends[0] + 2.0 && (ends[2] - now - 12.0).abs() < 3.0, "{ends:?}");
    let status = get(address, "/status").json();
    assert_eq!((&lease(&status)["held"], &lease(&status)["token"]), (&json!(true), &json!(7)));
    let texts: Vec<_> = status["events"].as_array().unwrap().iter().map(|e| &e["text"]).collect();
    let ours = texts.iter().filter(|text| ***text == "the lease is ours, number 7").count();
    assert_eq!(ours, 1, "{texts:?}");
}

/// Only a primary that archives has an age of what it archived; never archived is not 1970.
#[test]
fn archives_are_told_where_there_are_any() {
    let (site, desired, world) = converged();
    let address = site.served.address();
    let told = |archiver: Option<ArchiverFact>| {
        let mut observed = world.observe(&desired);
        for facts in observed.hosts.values_mut() {
            let Observation::Known(facts) = facts else { continue };
            if let Observation::Known(Some(sql)) = &mut facts.sql {
                sql.archiver.clone_from(&archiver);
            }
        }
        let plan = reconcile_core::plan::plan(&desired, &observed);
        site.board.looked(&desired, &observed, &plan);
        (get(address, "/metrics").body, get(address, "/status").json())
    };
    let (metrics, status) = told(None);
    assert!(!metrics.contains("\nreconcile_postgresql_last_archive"), "{metrics}");
    assert!(status["hosts"][0]["archive"].is_null());
    let (metrics, _) = told(Some(ArchiverFact::default()));
    assert!(!metrics.contains("\nreconcile_postgresql_last_archive"), "{metrics}");
    let at = ArchiverFact { archived_at: Some(1_735_689_599), failed_at: None };
    let (metrics, status) = told(Some(at));
    let series: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("reconcile_postgresql_last_arch")).collect();
    let wanted =
        "reconcile_postgresql_last_archived_timestamp_seconds{host=\"node1\"} 1735689599.0";
    assert_eq!(series, [wanted]);
    assert_eq!(
        status["hosts"][0]["archive"],
        json!({ "lastArchivedAt": "2024-12-31T23:59:59.000Z" })
    );
}

#[test]
fn counters_and_holds() {
    let site = serve(|_| {});
    let desired = desired();
    let plan = planned(&site.board, &desired, &World::bare(&desired), 1);
    let step = &plan.steps[0];
    site.board.step_started(step);
    site.board.step_finished(step, None, std::time::Duration::from_secs(1));
    site.board.step_started(&plan.steps[1]);
    site.board.step_finished(&plan.steps[1], Some("it broke"), std::time::Duration::from_secs(1));
    site.board.step_skipped(&plan.steps[2]);
    let status = get(site.served.address(), "/status").json();
    let state = |at: usize| status["plan"]["steps"][at]["progress"]["state"].clone();
    assert_eq!((state(0), state(1), state(2)), (json!("done"), json!("failed"), json!("skipped")));
    assert_eq!(status["plan"]["steps"][1]["progress"]["error"], "it broke");
    let metrics = get(site.served.address(), "/metrics").body;
    for line in [
        format!("reconcile_steps_total{{verb=\"{}\",result=\"done\"}} 1", step.verb.word()),
        "reconcile_passes_total{result=\"nothingToDo\"} 1".to_owned(),
        "reconcile_pending_steps{class=\"packages\"} 3".to_owned(),
        "reconcile_build_info{version=\"0.0.0-test\"} 1".to_owned(),
        "reconcile_pass_duration_seconds_count 1".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

/// A proof says nothing any more about a cluster in which something was changed since.
#[test]
fn a_step_outdates_the_proof() {
    let (site, desired, mut world) = converged();
    let ready = || condition(&get(site.served.address(), "/status").json(), "Ready").clone();
    assert_eq!(ready()["status"], "True");
    world.server_mut("node2").units.get_mut("patroni.service").unwrap().running = false;
    let plan = planned(&site.board, &desired, &world, 2);
    site.board.step_finished(&plan.steps[0], None, std::time::Duration::from_secs(1));
    pass(&site.board, &desired, &World::converged(&desired), 3);
    assert_eq!(ready()["status"], "Unknown");
    site.board.verified(&proof(false));
    assert_eq!(ready()["reason"], "NotServing");
    site.board.verified(&proof(true));
    assert_eq!(ready()["status"], "True");
}

/// What does not hold is an event when it begins and when it ends, however often it is proven between.
#[test]
fn a_doubt_is_told_at_its_beginning_and_at_its_end() {
    let (site, ..) = converged();
    let address = site.served.address();
    let told = || {
        let status = get(address, "/status").json();
        let events = status["events"].as_array().unwrap().clone();
        let told = events.iter().filter(|event| event["kind"] == "proof");
        told.map(|event| event["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let fails = |detail: &str, more: bool| {
        let mut report = proof(false);
        report.proofs[0].detail = detail.to_owned();
        if more {
            let mut other = report.proofs[0].clone();
            (other.what, other.host) = ("etcd member node2".to_owned(), Some("node2".into()));
            (other.way, other.comes_of) = (None, Some("node2 does not answer".to_owned()));
            report.proofs.push(other);
        }
        site.board.verified(&report);
    };
    for millis in 1..6 {
        fails(&format!("no session within {millis} ms"), false);
    }
    let first = "not proven: write through HAProxy on node1: no session within 1 ms";
    assert_eq!(told(), [first]);
    fails("no session", true);
    fails("no session", true);
    assert_eq!(told(), [first, "not proven: node2 does not answer"], "what it comes of");
    site.board.verified(&proof(true));
    site.board.verified(&proof(true));
    let ends =
        ["no longer so: node2 does not answer", "no longer so: write through HAProxy on node1"];
    let mut last = told().split_off(2);
    last.sort();
    assert_eq!(last, ends);
}

/// A task that runs and gives no sign of life is no task that runs.
#[test]
fn a_silent_task_is_marked_until_it_lives() {
    let (site, desired, world) = converged();
    let silent = || {
        let status = get(site.served.address(), "/status").json();
        let services = status["services"].as_array().unwrap().clone();
        let tasks = services.iter().flat_map(|service| {
            let name = service["name"].as_str().unwrap().to_owned();
            let tasks = service["tasks"].as_array().unwrap().clone();
            tasks.into_iter().map(move |task| (name.clone(), task))
        });
        let silent = tasks.filter(|(_, task)| task["silent"] == true);
        silent.map(|(name, task)| format!("{name} {}", task["host"])).collect::<Vec<_>>()
    };
    let mut report = proof(true);
    let mut sign = report.proofs[0].clone();
    (sign.what, sign.way) = ("signs of life on node2".to_owned(), None);
    (sign.host, sign.holds, sign.silent) = (Some("node2".into()), false, vec!["pgbouncer"]);
    report.proofs.push(sign);
    site.board.verified(&report);
    assert_eq!(silent(), ["db-utils_pgbouncer \"node2\""]);
    pass(&site.board, &desired, &world, 2);
    assert_eq!(silent().len(), 1, "also after a look");
    let status = get(site.served.address(), "/status").json();
    assert_eq!(condition(&status, "UtilitiesHealthy")["reason"], "TasksSilent");
    site.board.verified(&proof(true));
    assert_eq!(silent(), [""; 0]);
}

#[test]
fn maintenance_windows_are_told_with_what_waits() {
    let (site, mut desired, mut world) = converged();
    let address = site.served.address();
    assert_eq!(get(address, "/status").json()["maintenance"], Value::Null);
    desired.policy.restart = Permission::InWindow;
    let (cron, timezone) = ("0 2 * * 6".parse().unwrap(), "UTC".to_owned());
    desired.policy.windows = vec![Window { cron, duration_s: 7200, timezone }];
    // Sun 2026-11-22 10:00Z.
    world.now = 1_795_341_600;
    let file = world.server_mut("node2").files.get_mut("/etc/default/etcd").unwrap();
    file.bytes.extend_from_slice(b"ETCD_MAX_SNAPSHOTS=9\n");
    pass(&site.board, &desired, &world, 2);
    let status = get(address, "/status").json();
    assert_eq!(
        status["maintenance"],
        json!({
            "open": false, "opensAt": "2026-11-28T02:00:00.000Z", "opens": "Sat 2026-11-28 02:00 UTC",
            "keeps": ["restart"], "waiting": ["node2:/etc/default/etcd"],
        })
    );
    assert_eq!(status["plan"]["held"][0]["kind"], "window");
    world.now += 6 * 86_400 - 8 * 3600;
    pass(&site.board, &desired, &world, 3);
    let status = get(address, "/status").json();
    assert_eq!(status["maintenance"]["open"], true);
    assert_eq!(status["maintenance"]["closesAt"], "2026-11-28T04:00:00.000Z");
    assert_eq!(status["maintenance"]["waiting"], json!([]));
    assert!(status["events"].to_string().contains("a maintenance window is open"));
}

#[test]
fn a_server_that_leaves_is_told_until_it_has_left() {
    let site = serve(|_| {});
    let address = site.served.address();
    let four = fixture::desire(&fixture::spec(4, 0, |_| {}));
    let mut world = World::converged(&four);
    pass(&site.board, &four, &world, 1);
    assert_eq!(get(address, "/status").json()["hosts"][3]["leaving"], Value::Null);
    let desired = fixture::desire(&fixture::spec_without(4, 0, &["node4"]));
    world.grow(&desired);
    pass(&site.board, &desired, &world, 2);
    let status = get(address, "/status").json();
    assert_eq!(status["hosts"][2]["leaving"], Value::Null);
    assert_eq!(status["hosts"][3]["leaving"]["left"], false);
    assert_eq!(status["hosts"][3]["leaving"]["remains"].as_array().unwrap().len(), 4);
    pass(&site.board, &desired, &world.apply_all(&desired), 3);
    let status = get(address, "/status").json();
    assert_eq!(status["hosts"][3]["leaving"], json!({ "left": true, "remains": [] }));
    let levels = |text: &str| {
        let events = status["events"].as_array().unwrap().iter();
        let found = events.filter(|event| event["text"].as_str().unwrap().contains(text));
        found.map(|event| event["level"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(levels("node4 is to leave"), ["info"]);
    assert_eq!(levels("node4 has left"), ["good"]);
    assert_eq!(levels("Leaving: False → True"), ["info"], "it is somebody's will");
}

/// What the file's own reader says of a broken file.
fn refused(text: &str, revision: Option<Revision>) -> RefusedSource {
    let report = reconcile_spec::load("main.yaml", text).unwrap_err().to_string();
    RefusedSource { file: "main.yaml".to_owned(), revision, report, unread: false }
}

#[test]
fn a_broken_source_is_shown_with_its_lines_and_no_secret() {
    let (site, ..) = converged();
    let text = "apiVersion: reconcile/v1alpha1\nkind: PostgresCluster\nmetadata: { name: main }\nspec:\n  parametres: { pasword: hunter22 }\n";
    let of = |hash: &str, subject: &str| Revision {
        commit: hash.repeat(40),
        author: "Ada <ada@example.org>".to_owned(),
        time: "2026-11-22T10:00:00Z".to_owned(),
        subject: subject.to_owned(),
    };
    site.board.source_changed(Some(&of("a", "the good one")));
    site.board.source_broken(&refused(text, Some(of("b", "<b>the bad one</b>"))));
    let address = site.served.address();
    let status = get(address, "/status");
    assert!(!status.body.contains("hunter22"));
    let json = status.json();
    let source = &json["source"];
    assert_eq!(source["state"], "broken");
    assert_eq!(source["commit"]["subject"], "the good one");
    assert!(source["inForceSince"].is_string());
    let refused = &source["refused"];
    assert_eq!(refused["commit"]["subject"], "<b>the bad one</b>");
    assert_eq!(refused["commit"]["author"], "Ada <ada@example.org>");
    assert_eq!(refused["file"], "main.yaml");
    let report = refused["report"].as_str().unwrap();
    let first = format!("error: {}\n", refused["reason"].as_str().unwrap());
    assert!(report.starts_with(&first), "{first}{report}");
    for part in
        ["--> main.yaml:5:3", "5 |   parametres: { pasword: ********", "  |   ^^^^^^^^^^", "= help"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }
    let condition = |json: &Value| {
        let conditions = json["conditions"].as_array().unwrap().iter();
        let [one] = conditions.filter(|one| one["type"] == "SourceInForce").collect::<Vec<_>>()[..]
        else {
            panic!("it is there once: {json}")
        };
        (one["status"].clone(), one["reason"].clone(), one["message"].as_str().unwrap().to_owned())
    };
    let (told, reason, message) = condition(&json);
    assert_eq!((told, reason), (json!("False"), json!("Refused")));
    assert!(message.contains("is refused: `hosts` is missing in `spec`"), "{message}");
    assert_eq!(get(address, "/readyz").code, 503);
    assert_eq!(get(address, "/healthz").code, 200);
    assert!(get(address, "/metrics").body.contains("\nreconcile_source_broken 1.0"));
    // A repository that is out of reach refuses nothing; the commit that is named twice is named once.
    let said = "Error: commit bbbbbbbbbbbb is refused: it is not signed\n";
    for (report, unread, told) in [
        ("Error: fetch x: Connection refused\n", true, ("Unknown", "Unread")),
        (said, false, ("False", "Refused")),
    ] {
        let (file, report) = ("main.yaml".to_owned(), report.to_owned());
        site.board.source_broken(&RefusedSource { file, revision: None, report, unread });
        let json = get(address, "/status").json();
        assert_eq!(json["source"]["refused"]["unread"], unread);
        let (status, reason, _) = condition(&json);
        assert_eq!((status, reason), (json!(told.0), json!(told.1)));
        let reason = json["source"]["refused"]["reason"].as_str().unwrap();
        assert!(["fetch x: Connection refused", "it is not signed"].contains(&reason), "{reason}");
    }
    site.board.source_changed(None);
    assert_eq!(condition(&get(address, "/status").json()).1, "Newest");
    assert_eq!(get(address, "/readyz").code, 200);
    let source = get(address, "/status").json()["source"].clone();
    assert_eq!((&source["state"], &source["refused"]), (&json!("inForce"), &Value::Null));
}

/// Whoever may push can make the report as long as they want.
#[test]
fn a_report_without_end_is_cut_off() {
    let (site, ..) = converged();
    let wrong = "wrong: 1\n".repeat(2000);
    site.board.source_broken(&refused(&wrong, None));
    let source = get(site.served.address(), "/status").json()["source"].clone();
    let report = source["refused"]["report"].as_str().unwrap().to_owned();
    assert!(report.len() < 17_000 && report.contains("tells the rest"), "{}", report.len());
}

/// Every route is described, every reference resolves, and every field that is served is known.
#[test]
fn description() {
    let (site, ..) = converged();
    let address = site.served.address();
    let api = get(address, "/openapi.json").json();
    for route in ["/healthz", "/readyz", "/status", "/events", "/metrics", "/openapi.json"] {
        assert!(api["paths"][route]["get"].is_object(), "{route}");
    }
    assert!(api["paths"]["/reconcile"]["post"].is_object());
    let schemas = &api["components"]["schemas"];
    let resolve = |schema: &Value| -> Value {
        match schema["$ref"].as_str() {
            Some(name) => schemas[name.rsplit('/').next().unwrap()].clone(),
            None => schema.clone(),
        }
    };
    let top = &api["paths"]["/status"]["get"]["responses"]["200"]["content"]["application/json"];
    let top = resolve(&top["schema"]);
    let status = get(address, "/status").json();
    for (name, value) in status.as_object().unwrap() {
        assert!(top["properties"][name].is_object(), "{name} is not described");
        if let Some(first) = value.as_array().and_then(|items| items.first()) {
            let items = resolve(&top["properties"][name]["items"]);
            for field in first.as_object().unwrap().keys() {
                assert!(items["properties"][field].is_object(), "{name}.{field}");
            }
        }
    }
}

#[test]
fn every_answer_is_marked() {
    let (site, ..) = converged();
    let address = site.served.address();
    for (path, code) in [("/", 200), ("/status", 200), ("/nothing", 404), ("/reconcile", 405)] {
        let answer = ask(address, "GET", path, "", b"");
        assert_eq!(answer.code, code, "{path}");
        for line in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "content-security-policy: default-src 'none'",
            "frame-ancestors 'none'",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(answer.head.contains(line), "{path}: {line} in {}", answer.head);
        }
        assert!(!answer.head.contains("access-control-"));
    }
}

#[test]
fn the_page_is_whole() {
    let (site, ..) = converged();
    let page = get(site.served.address(), "/");
    assert!(page.head.contains("content-type: text/html"));
    assert!(!page.body.contains("{{"), "a placeholder is left");
    assert!(!page.body.contains("innerHTML") && !page.body.contains("insertAdjacentHTML"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        let own = page.body.matches(outside).count();
        let xml = page.body.matches("http://www.w3.org/").count();
        let kept = if outside == "http://" { xml } else { 0 };
        assert_eq!(own, kept, "{outside}");
    }
}

/// As in the plan: what waits for its turn is queued, and what a pause holds is told with its verb.
#[test]
fn queued_and_paused_are_not_held_alike() {
    let (site, desired, mut world) = converged();
    world.now = 1_000;
    for host in ["node1", "node2"] {
        let file = world.server_mut(host).files.get_mut("/etc/default/etcd").unwrap();
        file.bytes.extend_from_slice(b"ETCD_MAX_SNAPSHOTS=9\n");
    }
    let told = |world: &World, number| {
        pass(&site.board, &desired, world, number);
        get(site.served.address(), "/status").json()["plan"].clone()
    };
    let counts = |plan: &Value| {
        ["steps", "paused", "queued", "held"].map(|part| plan[part].as_array().unwrap().len())
    };
    let open = told(&world, 2);
    assert_eq!(counts(&open), [1, 0, 1, 0], "{open}");
    assert_eq!(open["queued"][0]["kind"], "oneAtATime");
    let by = PauseNote { number: 1, until: 9_000, by: "ada@ops".to_owned(), reason: String::new() };
    world.server_mut("node3").pause = Some(by);
    let shut = told(&world, 3);
    assert_eq!(counts(&shut), [0, 1, 1, 1], "{shut}");
    assert_eq!(shut["paused"][0]["verb"], "update");
    assert_eq!(shut["held"][0]["kind"], "paused");
}

//! The journal: what cannot be noted is not done, what was cut off is told, and it does not grow for
//! ever.

use std::{fs, os::unix::fs::symlink, path::Path};

use reconcile_core::{
    model::{HostName, PauseNote, RefusedSource},
    verify::{Proof, VerifyReport, Way},
};
use reconcile_engine::{
    Event, Journal, Listener as _, converge,
    journal::{FULL, KEPT, read_all, read_last, unfinished},
    look,
    switchover::{Order, SwitchoverError, order, switch_over},
};
use reconcile_sim::{Reach, SimFleet, fixture};
use tokio_util::sync::CancellationToken;

use crate::{run::converged, workloads::host};

const FILE: &str = "journal.jsonl";

fn kinds(folder: &Path) -> Vec<String> {
    let entries = read_all(folder).unwrap().entries;
    entries.iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_noted_is_not_done() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let fleet = SimFleet::new(converged(&desired).await);
    fleet.change(|world| {
        world.server_mut("node2").files.remove("/etc/default/etcd");
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    // Each write says that no space is left.
    symlink("/dev/full", &path).unwrap();
    let journal = Journal::open(folder.path(), &()).unwrap();
    let stop = CancellationToken::new();
    let result = converge(&fleet, &desired, &journal, &stop).await.unwrap();
    assert_eq!(fleet.effects(), Vec::<String>::new());
    let error = result.errors.first().unwrap().to_string();
    assert!(error.contains("the journal ") && error.contains("No space left"), "{error}");

    let observed = look(&fleet, &desired, &journal).await.unwrap().observed;
    let order = order(&desired, &observed, None).unwrap();
    let result = switch_over(&fleet, &order, &journal).await;
    assert!(matches!(result, Err(SwitchoverError::NotFit(_))), "{result:?}");
    let paused = fleet.effects().into_iter().find(|effect| effect.ends_with("PAUSE"));
    assert_eq!(paused, None);

    // Space is made.
    fs::remove_file(&path).unwrap();
    let result = converge(&fleet, &desired, &journal, &stop).await.unwrap();
    assert!(result.is_converged(), "{:?}", result.errors);
    assert!(kinds(folder.path()).contains(&"finished".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_noted_when_it_is_another() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let fleet = SimFleet::new(converged(&desired).await);
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &()).unwrap();
    for (reach, passes) in [(Reach::Answers, 3), (Reach::Silent, 5), (Reach::Answers, 3)] {
        fleet.change(|world| world.server_mut("node3").reach = reach.clone());
        for _ in 0..passes {
            look(&fleet, &desired, &journal).await.unwrap();
        }
    }
    assert_eq!(kinds(folder.path()), ["as-desired", "planned", "as-desired"]);
}

/// What was noted of one kind.
fn told(folder: &Path, kind: &str) -> Vec<String> {
    let entries = read_all(folder).unwrap().entries;
    let of = entries.iter().filter(|entry| entry["kind"] == kind);
    of.map(|entry| {
        let left = entry["left"].as_str().map(|left| format!(" [{left}]")).unwrap_or_default();
        format!("{}{left}", entry["told"].as_str().unwrap())
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn drift_is_noted_when_it_comes_up_and_not_in_every_pass() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let fleet = SimFleet::new(converged(&desired).await);
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &()).unwrap();
    let stop = CancellationToken::new();
    let path = "/etc/postgresql-common/createcluster.d/reconcile.conf";
    let edit = |host: &str| {
        fleet.change(|world| {
            let file = world.server_mut(host).files.get_mut(path).unwrap();
            file.bytes.extend_from_slice(b"password = hunter2hunter2\n");
        });
    };
    // Before anything is known to have been as desired, a difference is none.
    edit("node1");
    drop(look(&fleet, &desired, &journal).await.unwrap());
    drop(converge(&fleet, &desired, &journal, &stop).await.unwrap());
    assert_eq!(told(folder.path(), "drift"), [""; 0]);
    for _ in 0..2 {
        edit("node2");
        for _ in 0..3 {
            drop(look(&fleet, &desired, &journal).await.unwrap());
        }
        drop(converge(&fleet, &desired, &journal, &stop).await.unwrap());
    }
    let line = format!("node2:{path} (files): has 1 line by hand");
    assert_eq!(told(folder.path(), "drift"), [line.as_str(), &line], "twice, for it was healed");
    // What a pause leaves alone is noted as that, and not again when it is undone.
    fleet.change(|world| {
        for host in ["node1", "node2", "node3"] {
            let (by, reason) = ("ada@ops1".to_owned(), String::new());
            world.server_mut(host).pause =
                Some(PauseNote { number: 1, until: u64::MAX, by, reason });
        }
    });
    edit("node3");
    for _ in 0..3 {
        drop(look(&fleet, &desired, &journal).await.unwrap());
    }
    fleet.change(|world| {
        for host in ["node1", "node2", "node3"] {
            world.server_mut(host).pause = None;
        }
    });
    drop(converge(&fleet, &desired, &journal, &stop).await.unwrap());
    let drift = told(folder.path(), "drift");
    assert_eq!(drift[2..], [format!("node3:{path} (files): has 1 line by hand [paused]")]);
    let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
    assert!(!text.contains("hunter2"), "what somebody wrote there is counted and not noted");
}

#[test]
fn a_proof_is_noted_when_it_fails_otherwise_and_when_it_holds_again() {
    let folder = tempfile::tempdir().unwrap();
    let report = |fails: &[&str], millis: u64| VerifyReport {
        proofs: ["node1", "node2"]
            .map(|host| Proof {
                what: format!("write through HAProxy on {host}"),
                host: Some(HostName::new(host)),
                way: Some(Way::Write),
                holds: !fails.contains(&host),
                millis,
                detail: format!("refused after {millis} ms"),
                ..Proof::default()
            })
            .into(),
    };
    let journal = Journal::open(folder.path(), &()).unwrap();
    let prove = |journal: &Journal<'_>, fails: &[&str], millis| {
        journal.hear(&Event::Verified(&report(fails, millis)));
    };
    prove(&journal, &[], 1);
    assert_eq!(kinds(folder.path()), [""; 0], "a proof that holds is no news");
    for millis in 1..5 {
        prove(&journal, &["node2"], millis);
    }
    prove(&journal, &["node1", "node2"], 9);
    drop(journal);
    // The next operator knows how it was.
    let journal = Journal::open(folder.path(), &()).unwrap();
    prove(&journal, &["node1", "node2"], 10);
    prove(&journal, &[], 1);
    prove(&journal, &[], 1);
    assert_eq!(kinds(folder.path()), ["proof-failed", "proof-failed", "proof-holds"]);
    let failed = told(folder.path(), "proof-failed");
    assert!(failed[0].contains("node2 not: write through HAProxy on node2: refused"), "{failed:?}");
    drop(journal);
    let journal = Journal::open(folder.path(), &()).unwrap();
    prove(&journal, &[], 1);
    assert_eq!(kinds(folder.path()).len(), 3);
}

fn refused(report: &str) -> RefusedSource {
    RefusedSource {
        file: "c.yaml".to_owned(),
        revision: None,
        report: report.to_owned(),
        unread: false,
    }
}

#[test]
fn a_line_that_was_cut_off_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    fs::write(&path, "{\"kind\":\"started\",\"step\":1,\"object\":\"x\"}\n{\"kind\":\"fini")
        .unwrap();
    let journal = Journal::open(folder.path(), &()).unwrap();
    journal.hear(&Event::SourceBroken(&refused("broken")));
    let read = read_all(folder.path()).unwrap();
    assert_eq!((kinds(folder.path()).join(" ").as_str(), read.torn), ("started refused", 1));
    assert_eq!(unfinished(&read.entries).len(), 1);
}

#[test]
fn it_does_not_grow_for_ever_and_forgets_no_pause() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), &()).unwrap();
    let nodes = vec![host("node1")];
    let order = Order {
        leader: host("node1"),
        candidate: host("node2"),
        restart: None,
        nodes,
        regardless: false,
    };
    let long = refused(&"x".repeat(1 << 20));
    for round in 0..u64::try_from(KEPT + 2).unwrap() * (FULL >> 20) {
        if round == (FULL >> 20) * 4 {
            journal.hear(&Event::SwitchBegins(&order));
        }
        journal.hear(&Event::SourceBroken(&long));
    }
    let files: Vec<u64> = fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    assert_eq!(files.len(), KEPT + 1, "{files:?}");
    assert!(files.iter().all(|size| *size < FULL + (2 << 20)), "{files:?}");
    // The one in which it stands was put aside.
    let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
    assert!(!text.contains("switchover-begins"));
    assert!(Journal::open(folder.path(), &()).unwrap().owes_resume().is_some());
    assert_eq!(read_all(folder.path()).unwrap().torn, 0);
}

#[test]
fn its_end_is_read_without_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    assert!(read_last(folder.path()).unwrap().entries.is_empty(), "there is none yet");
    let journal = Journal::open(folder.path(), &()).unwrap();
    let report = |round: u32| format!("{round:0>1000}");
    for round in 0..9_000 {
        journal.hear(&Event::SourceBroken(&refused(&report(round))));
    }
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 2, "one was put aside, and the one in use holds little");
    let (all, last) = (read_all(folder.path()).unwrap(), read_last(folder.path()).unwrap());
    assert_eq!((all.entries.len(), last.torn), (9_000, 0));
    assert!((100..9_000).contains(&last.entries.len()), "{}", last.entries.len());
    let reports = |entries: &[serde_json::Value], from: usize| {
        entries[from..].iter().map(|entry| entry["report"].clone()).collect::<Vec<_>>()
    };
    // Between the two files may be a gap; the end is whole.
    let newest = all.entries.len() - 100;
    assert_eq!(reports(&last.entries, last.entries.len() - 100), reports(&all.entries, newest));
}

//! The support bundle, where no server answers: complete, and without secrets.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::{folder, reconcile, stderr, stdout};

#[test]
fn a_report_is_a_readable_archive_without_any_secret() {
    let folder = folder();
    let file = folder.path().join("cluster.yaml");
    let text = fs::read_to_string(&file).expect("read");
    let jump = "  ssh:\n    jump: nobody@127.0.0.1:1\n    jumpHostKey: \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDGvNKQ+D8g6yuSP7W7unc6NODzwlNlCTQC3TaF5E2gu\"\n";
    fs::write(&file, text.replace("  ssh:\n", jump)).expect("written");
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    let secrets = fs::read_to_string(folder.path().join("secrets.yaml")).expect("read");
    let values: Vec<_> =
        secrets.lines().filter_map(|line| Some(line.split_once(": ")?.1.to_owned())).collect();
    assert!(values.len() >= 4, "canaries");
    // As if a fault of ours, or a log, had let one slip into the journal.
    let state = folder.path().join(".local/state/reconcile/main");
    fs::create_dir_all(&state).expect("made");
    let slip = format!("{{\"at\":1.0,\"kind\":\"slip\",\"text\":\"{}\"}}\n", values.join(" "));
    fs::write(state.join("journal.jsonl"), slip).expect("written");

    let report = || reconcile(folder.path(), &["report", "--out", "r.tar", "-f", "cluster.yaml"]);
    let output = report();
    assert!(output.status.success(), "{}", stderr(&output));
    let archive = folder.path().join("r.tar");
    assert_eq!(fs::metadata(&archive).expect("made").permissions().mode() & 0o777, 0o600);
    let bytes = String::from_utf8_lossy(&fs::read(&archive).expect("read")).into_owned();
    for value in &values {
        assert!(!bytes.contains(value), "a secret is in the report");
        assert!(!stdout(&output).contains(value) && !stderr(&output).contains(value));
    }
    assert!(bytes.contains("<secret:"), "the slip is there, without its values");
    let unpacked = Command::new("tar").args(["-xf", "r.tar"]).current_dir(folder.path()).output();
    let unpacked = unpacked.expect("tar runs");
    let written = fs::metadata(folder.path().join("reconcile-report-main/plan.txt"));
    let age = written.and_then(|file| file.modified()).expect("a time").elapsed();
    assert!(age.is_ok_and(|age| age.as_secs() < 600), "its files are of now");
    assert!(unpacked.status.success() && unpacked.stderr.is_empty(), "{}", stderr(&unpacked));
    let read = |name: &str| {
        let path = folder.path().join("reconcile-report-main").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    assert!(read("versions.txt").contains(env!("CARGO_PKG_VERSION")));
    assert!(read("spec.yaml").contains("192.0.2.11"));
    assert!(read("plan.txt").contains("node1"));
    assert!(read("status.json").contains("\"conditions\""));
    assert!(read("journal.jsonl").contains("slip"));
    assert!(read("servers/node2.txt").contains("node2"));
    for component in ["etcd", "patroni", "docker", "haproxy", "pgbouncer"] {
        assert!(read(&format!("logs/{component}.txt")).contains("read the log of"), "{component}");
    }
    // What is there is not written over.
    let before = fs::read(&archive).expect("read");
    let again = report();
    assert_eq!(again.status.code(), Some(1));
    let said = stderr(&again);
    assert!(said.contains("r.tar is there already and is not written over"), "{said}");
    assert!(said.contains("name another with `--out FILE`"), "{said}");
    assert_eq!(fs::read(&archive).expect("read"), before);
}

#[test]
fn logs_of_what_there_is_none_are_usage_errors() {
    let folder = folder();
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    let logs = |words: &[&str]| {
        reconcile(folder.path(), &[&["logs", "-f", "cluster.yaml"], words].concat())
    };
    let unknown = logs(&["mongodb; id"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("etcd") && stderr(&unknown).contains("haproxy"));
    assert_eq!(logs(&["etcd", "node9"]).status.code(), Some(2));
    assert_eq!(logs(&["etcd", "--since", "10m; id"]).status.code(), Some(2));
}

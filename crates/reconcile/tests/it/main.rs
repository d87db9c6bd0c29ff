//! The command line from outside: what is printed where, and every exit code that needs no server.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

mod broken;
mod docs;
mod git;
mod render;
mod report;
mod sealed;

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the root exists")
}

/// Runs `reconcile` with nothing of the caller's environment.
pub(crate) fn reconcile(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_reconcile"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A folder with the least file in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(root().join("examples/three-servers.yaml"), folder.path().join("cluster.yaml"))
        .expect("copied");
    key(folder.path());
    folder
}

/// The key that the examples name, in the home that the binary is run with.
pub(crate) fn key(home: &Path) {
    fs::create_dir_all(home.join(".ssh")).expect("made");
    fs::write(home.join(".ssh/id_ed25519"), "no key that opens anything\n").expect("written");
}

/// No secret is needed to say whom the rules keep out, and a name is taken with a word about it.
#[test]
fn access_rules_that_lock_out_are_a_warning() {
    let folder = folder();
    let file = folder.path().join("cluster.yaml");
    let text = fs::read_to_string(&file).expect("read");
    let rules = "  postgresql:\n    hba:\n      - { type: host, database: all, user: all, address: db.example.org }\n      - { type: host, database: all, user: all, address: 0.0.0.0/0, method: reject }\n";
    let with = text + rules;
    fs::write(&file, &with).expect("written");
    let output = reconcile(folder.path(), &["validate", "-f", "cluster.yaml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("`db.example.org` is a name: PostgreSQL looks up"), "{told}");
    // What may or may not be let in before is for the trial.
    assert!(!told.contains("lock out"), "{told}");
    let name = "      - { type: host, database: all, user: all, address: db.example.org }\n";
    fs::write(&file, with.replace(name, "")).expect("written");
    let output = reconcile(folder.path(), &["validate", "-f", "cluster.yaml"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("warning: the access rules of the file lock out "), "{told}");
    assert!(told.contains("by `host all all 0.0.0.0/0 reject`"), "{told}");
}

#[test]
fn every_example_is_valid() {
    for entry in fs::read_dir(root().join("examples")).expect("examples") {
        let path = entry.expect("an entry").path();
        let output = reconcile(&root(), &["validate", "-f", path.to_str().expect("UTF-8")]);
        assert!(output.status.success(), "{}: {}", path.display(), stderr(&output));
        assert!(stdout(&output).contains("is valid"));
    }
}

#[test]
fn no_file_is_a_usage_error_with_a_hint() {
    let output = reconcile(&root(), &["plan"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("Hint: name one with `-f FILE`"), "{}", stderr(&output));
}

#[test]
fn unknown_words_are_usage_errors() {
    assert_eq!(reconcile(&root(), &["conquer"]).status.code(), Some(2));
    assert_eq!(reconcile(&root(), &["plan", "--nope"]).status.code(), Some(2));
}

/// What makes no sense is refused and not passed by, and before a lock or a server is asked.
#[test]
fn what_makes_no_sense_together_is_a_usage_error() {
    let folder = folder();
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    let refused = |words: &[&str], why: &str| {
        let output = reconcile(folder.path(), &[words, &["-f", "cluster.yaml"]].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {said}");
        said
    };
    refused(&["--watch", "plan"], "leave `--watch` or the command out");
    refused(&["--watch", "status"], "`reconcile status --watch`");
    refused(&["events", "-o", "wide"], "possible values: text, json, yaml");
    let said = refused(&["switchover", "--to", "node9"], "the file has no server named node9");
    assert!(said.contains("Hint: one of: node1, node2, node3"), "{said}");
    let said = refused(&["logs", "etcd", "node9"], "the file has no server named node9");
    assert!(said.contains("Hint: one of: node1, node2, node3"), "{said}");
    // Another holds the lock, which does not matter yet.
    let state = folder.path().join(".local/state/reconcile/main");
    fs::create_dir_all(&state).expect("made");
    let lock = fs::File::create(state.join("lock")).expect("made");
    lock.lock().expect("locked");
    let said = refused(&["--watch", "--listen", "foo"], "`--listen foo` is not an address");
    assert!(!said.contains("another reconcile"), "{said}");
    let output = reconcile(folder.path(), &["--watch", "-f", "cluster.yaml", "--listen", "off"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("another reconcile works on this"), "{}", stderr(&output));
}

#[test]
fn a_repository_that_is_named_as_a_page_is_told_how_it_is_named() {
    for (named, hint) in [
        ("https://example.org/team/db.git", "git+https://example.org/team/db.git#BRANCH:PATH"),
        ("git@example.org:team/db.git", "git+ssh://git@example.org/team/db.git#BRANCH:PATH"),
        (
            "ssh://git@example.org/db.git#main:c.yaml",
            "git+ssh://git@example.org/db.git#main:c.yaml",
        ),
    ] {
        let output = reconcile(&root(), &["plan", "-f", named]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let hint = format!("Hint: a repository is named as {hint}\n");
        assert!(stderr(&output).contains(&hint), "{}", stderr(&output));
    }
}

/// The same entries in each form.
#[test]
fn the_journal_is_printed_as_asked_for() {
    let folder = folder();
    let state = folder.path().join(".local/state/reconcile/main");
    fs::create_dir_all(&state).expect("made");
    let entry = "{\"at\":1.5,\"kind\":\"skipped\",\"object\":\"role/app\"}\n";
    fs::write(state.join("journal.jsonl"), entry.repeat(3)).expect("written");
    let events = |form: &str| {
        let last = ["events", "--last", "2", "-f", "cluster.yaml", "-o", form];
        let output = reconcile(folder.path(), &last);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(events("json"), entry.repeat(2));
    assert_eq!(events("yaml"), "- at: 1.5\n  kind: skipped\n  object: role/app\n".repeat(2));
    assert_eq!(events("text"), "1970-01-01T00:00:01.500Z skip  role/app\n".repeat(2));
}

#[test]
fn a_broken_file_is_reported_with_its_place_on_stderr() {
    let folder = folder();
    let file = folder.path().join("cluster.yaml");
    let text = fs::read_to_string(&file).expect("read").replace("name: node2", "name: node1");
    fs::write(&file, text).expect("written");
    let output = reconcile(folder.path(), &["validate", "-f", "cluster.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let report = stderr(&output);
    assert!(report.contains("cluster.yaml:") && report.contains("node1"), "{report}");
}

#[test]
fn secrets_are_made_once_with_mode_0600_and_never_shown() {
    let folder = folder();
    let init = || reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]);
    let first = init();
    assert!(first.status.success(), "{}", stderr(&first));
    let path = folder.path().join("secrets.yaml");
    assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o600);
    let before = fs::read_to_string(&path).expect("read");
    let second = init();
    assert!(stdout(&second).contains("nothing is missing"), "{}", stdout(&second));
    assert_eq!(fs::read_to_string(&path).expect("read"), before);
    for line in before.lines().filter(|line| !line.starts_with('#')) {
        let value = line.split_once(": ").expect("name: value").1;
        assert!(value.len() >= 40, "a strong value");
        for output in [&first, &second] {
            assert!(!stdout(output).contains(value) && !stderr(output).contains(value));
        }
    }
}

#[test]
fn a_secrets_file_that_others_may_read_is_refused() {
    let folder = folder();
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    let path = folder.path().join("secrets.yaml");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    let output = reconcile(folder.path(), &["plan", "-f", "cluster.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Hint: chmod 600"), "{}", stderr(&output));
}

#[test]
fn secrets_are_not_written_where_git_would_take_them() {
    let folder = folder();
    let git = Command::new("git").args(["init", "--quiet"]).current_dir(folder.path()).status();
    if !git.is_ok_and(|status| status.success()) {
        return;
    }
    let output = reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(".gitignore"), "{}", stderr(&output));
    assert!(!folder.path().join("secrets.yaml").exists());
    fs::write(folder.path().join(".gitignore"), "/secrets.yaml\n").expect("written");
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
}

#[test]
fn weak_or_missing_secrets_are_named_but_not_shown() {
    let folder = folder();
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    let path = folder.path().join("secrets.yaml");
    let text = fs::read_to_string(&path).expect("read");
    let weak: String = text
        .lines()
        .filter(|line| !line.starts_with("postgres-rewind"))
        .map(|line| {
            if line.starts_with("patroni-restapi") {
                "patroni-restapi: s3cr3t\n".to_owned()
            } else {
                line.to_owned() + "\n"
            }
        })
        .collect();
    fs::write(&path, weak).expect("written");
    let output = reconcile(folder.path(), &["plan", "-f", "cluster.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let report = stderr(&output);
    assert!(report.contains("`patroni-restapi` is shorter than 12"), "{report}");
    assert!(report.contains("`postgres-rewind` is missing"), "{report}");
    assert!(!report.contains("s3cr3t"), "{report}");
}

#[test]
fn servers_that_cannot_be_reached_are_held_and_nothing_is_done() {
    let folder = folder();
    let file = folder.path().join("cluster.yaml");
    // Loopback with no sshd on port 1: refused at once. The file's own rules refuse loopback
    // addresses, so this is the documentation range with a jump through loopback.
    let text = fs::read_to_string(&file).expect("read");
    let text = text.replace("  ssh:\n", "  ssh:\n    jump: nobody@127.0.0.1:1\n    jumpHostKey: \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDGvNKQ+D8g6yuSP7W7unc6NODzwlNlCTQC3TaF5E2gu\"\n");
    fs::write(&file, text).expect("written");
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    let output = reconcile(folder.path(), &["-f", "cluster.yaml"]);
    assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("host/node1: unknown:"), "{}", stdout(&output));
}

/// Nothing is asked with a key that is not there, and nothing is held for it.
#[test]
fn a_key_file_that_does_not_exist_is_one_error() {
    let folder = folder();
    assert!(reconcile(folder.path(), &["secrets", "init", "-f", "cluster.yaml"]).status.success());
    fs::remove_file(folder.path().join(".ssh/id_ed25519")).expect("removed");
    for words in [&["-f", "cluster.yaml"][..], &["status", "-f", "cluster.yaml"]] {
        let output = reconcile(folder.path(), words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert_eq!(stdout(&output), "", "{words:?}");
        assert!(said.contains(".ssh/id_ed25519 does not exist"), "{words:?}: {said}");
        assert_eq!(said.matches("does not exist").count(), 1, "{words:?}: {said}");
    }
}

#[test]
fn the_schema_printed_is_the_one_committed() {
    let output = reconcile(&root(), &["schema"]);
    let committed = fs::read_to_string(root().join("manifests/reconcile.schema.json"));
    assert_eq!(stdout(&output), committed.expect("committed"));
}

#[test]
fn help_names_every_command_and_exit_code() {
    let help = stdout(&reconcile(&root(), &["--help"]));
    for word in [
        "plan",
        "apply",
        "status",
        "validate",
        "render",
        "schema",
        "secrets",
        "lab",
        "events",
        "logs",
        "report",
        "3 something is held",
    ] {
        assert!(help.contains(word), "{word} is missing in\n{help}");
    }
    assert!(stdout(&reconcile(&root(), &["completions", "bash"])).contains("_reconcile"));
}

//! Parts of the trial of access rules, run for real by this machine's shell.

use std::{fs, path::Path, process::Command, time::Duration};

use reconcile_core::{
    action::{AccessTrial, DesiredFile, HostAction},
    model::Content,
};
use reconcile_hosts::apply::action_script;

/// Runs commands after the functions of a trial's script.
fn run(folder: &Path, commands: &str) -> String {
    let trial = AccessTrial {
        digest: "digest".to_owned(),
        lines: vec!["local all all peer".to_owned()],
        logins: Vec::new(),
        back: false,
        data_dir: "/data".to_owned(),
        bin_dir: "/bin".to_owned(),
        socket_dir: "/run".to_owned(),
        port: 5432,
        primary: false,
        notice_seconds: 30,
    };
    let file = DesiredFile {
        path: "/etc/patroni/patroni.yml".to_owned(),
        content: Content::open("new"),
        mode: 0o640,
        owner: "postgres".to_owned(),
        group: "postgres".to_owned(),
    };
    let action = HostAction::TryAccess { file, before: None, trial: Box::new(trial) };
    let script = action_script(&action, Duration::from_secs(60)).unwrap();
    let (_, functions) = script.split_once("\nnote() {").unwrap();
    let (functions, _) = functions.split_once("\nowe() {").unwrap();
    let text = format!("T=.\nK=kept\nnote() {{{functions}\n{commands}");
    let output = Command::new("sh").arg("-c").arg(text).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The old file with the new rules, as the shell makes it.
fn spliced(old: &str, new: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("kept"), old).unwrap();
    fs::write(folder.path().join("new"), new).unwrap();
    run(folder.path(), "splice; cat tried")
}

const NEW: &str = "scope: main
postgresql:
  listen: new
  pg_hba:
    - local all all peer
    - host all all all reject
  authentication: {}
";

#[test]
fn only_the_rules_of_the_new_file_are_tried() {
    let wanted = NEW.replace("listen: new", "listen: old");
    for section in [
        "    - local all all trust\n",
        "    - local all all peer\n    - host all all all reject\n",
        "    - local all all trust\n    # by hand\n    - host all all all trust\n",
        "# by hand\n\n    - local all all trust\n\n",
        "  - local all all trust\n  - host all all all trust\n",
        "      - local all all trust\n      # by hand\n",
        "    - local all all\n        trust\n    - host all all all trust\n",
        "",
    ] {
        let old = format!(
            "scope: main\npostgresql:\n  listen: old\n  pg_hba:\n{section}  authentication: {{}}\n"
        );
        assert_eq!(spliced(&old, NEW), wanted, "{section}");
        // At the end of the file, and of the mapping.
        for rest in ["", "tags: {}\n"] {
            let old =
                format!("scope: main\npostgresql:\n  listen: old\n  pg_hba:\n{section}{rest}");
            let start = wanted.strip_suffix("  authentication: {}\n").unwrap();
            assert_eq!(spliced(&old, NEW), format!("{start}{rest}"), "{section}");
        }
    }
}

/// What cannot be taken apart for certain is tried whole.
#[test]
fn a_file_in_another_shape_is_replaced_whole() {
    for old in [
        "",
        "scope: main\n",
        "postgresql:\n  pg_hba: [local all all trust]\n",
        "postgresql:\n    pg_hba:\n    - local all all trust\n",
        "bootstrap:\n  pg_hba:\n    - local all all trust\npostgresql: {}\n",
        "postgresql:\n  pg_hba:\n    - local all all trust\n  pg_hba:\n    - local all all peer\n",
    ] {
        assert_eq!(spliced(old, NEW), NEW, "{old}");
    }
}

#[test]
fn refused_is_only_what_a_rule_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let at = "psql: error: connection to server at \"10.0.0.2\", port 5432 failed: ";
    let fatal = [
        (
            "refused",
            "pg_hba.conf rejects connection for host \"10.0.0.2\", user \"app\", database \"app\", no encryption",
        ),
        (
            "refused",
            "pg_hba.conf rejects replication connection for host \"10.0.0.2\", user \"replicator\", no encryption",
        ),
        (
            "refused",
            "no pg_hba.conf entry for host \"10.0.0.2\", user \"app\", database \"app\", no encryption",
        ),
        ("refused", "kein pg_hba.conf-Eintrag f\u{fc}r Host \u{bb}10.0.0.2\u{ab}"),
        ("refused", "Peer authentication failed for user \"postgres\""),
        ("refused", "Ident authentication failed for user \"app\""),
        ("refused", "LDAP authentication failed for user \"app\""),
        ("refused", "certificate authentication failed for user \"app\""),
        ("refused", "connection requires a valid client certificate"),
        ("proven", "database \"shop\" does not exist"),
        ("proven", "role \"app\" does not exist"),
        ("unknown", "the database system is starting up"),
        ("unknown", "the database system is in recovery mode"),
        (
            "unknown",
            "the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet reached.",
        ),
        ("unknown", "sorry, too many clients already"),
        (
            "unknown",
            "remaining connection slots are reserved for non-replication superuser connections",
        ),
        (
            "unknown",
            "number of requested standby connections exceeds max_wal_senders (currently 10)",
        ),
        ("unknown", "terminating connection due to administrator command"),
        (
            "unknown",
            "could not open file \"global/pg_filenode.map\": Too many open files in system",
        ),
    ];
    let fatal = fatal.map(|(verdict, words)| (verdict, format!("{at}FATAL:  {words}\n")));
    let others = [
        ("proven", format!("{at}fe_sendauth: no password supplied\n")),
        // With TLS it is refused, and let in without.
        (
            "proven",
            format!(
                "{at}FATAL:  pg_hba.conf rejects connection for host \"10.0.0.2\", SSL encryption\n{at}fe_sendauth: no password supplied\n"
            ),
        ),
        // What it is told last counts.
        (
            "unknown",
            format!(
                "{at}FATAL:  no pg_hba.conf entry for host \"10.0.0.2\", SSL encryption\n{at}FATAL:  sorry, too many clients already\n"
            ),
        ),
        ("refused", format!("{at}GSSAPI authentication not supported\n")),
        (
            "refused",
            format!(
                "{at}could not initiate GSSAPI security context: No credentials were supplied\n"
            ),
        ),
        (
            "unknown",
            format!("{at}could not fork new process for connection: Cannot allocate memory\n"),
        ),
        ("unknown", format!("{at}Connection refused\n\tIs the server running on that host?\n")),
        ("unknown", format!("{at}timeout expired\n")),
        ("unknown", "setpriv: failed to execute psql: No such file or directory\n".to_owned()),
        ("unknown", String::new()),
    ];
    for (verdict, text) in fatal.into_iter().chain(others) {
        fs::write(folder.path().join("err"), &text).unwrap();
        assert_eq!(run(folder.path(), "judge; printf %s \"$verdict\""), verdict, "{text}");
    }
}

/// Wherever it was cut off; and it waits for what was loaded, and only for that.
#[test]
fn what_was_cut_off_is_taken_back() {
    let (old, tried) = (NEW.replace("reject", "trust"), NEW);
    let world = "P=now A=./note H=rules D=. B=now MODE=0600 OWNER=o GROUP=g NOTICE=1
        digest() { sha256sum <\"$1\"; }
        known() { :; }; owned() { :; }; owe() { :; }; at() { :; }
        fail() { echo \"$2\"; exit 0; }
        pg() { echo t; }
        ";
    let late = "a trial of access rules that was cut off was taken back, but the old rules were not loaded within 1 s\n";
    // What Patroni does when it is told, the file that is there, whether its rules were loaded.
    for (tell, now, loaded, said) in [
        ("sleep 0.02; echo old >rules", tried, true, ""),
        (":", tried, false, ""),
        (":", &old, true, ""),
        (":", tried, true, late),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::write(path(name), text).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        };
        write("kept", &old);
        write("note", "trying digest");
        write(if loaded { "now" } else { "rules" }, now);
        write(if loaded { "rules" } else { "now" }, now);
        let commands = format!("{world}tell() {{ {tell}; }}\ntake_back");
        assert_eq!(run(folder.path(), &commands), said, "{tell} {loaded}");
        assert_eq!(fs::read_to_string(path("now")).unwrap(), old);
        assert!(!path("note").exists() && !path("kept").exists());
    }
}

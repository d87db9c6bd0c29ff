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
        lockout: None,
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
    let script = action_script(&action, Duration::from_mins(1)).unwrap();
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

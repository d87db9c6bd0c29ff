//! Scripts of actions: their syntax, that nothing in them is taken for shell, and the file ones run
//! for real in a folder of their own.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reconcile_core::{
    action::{
        AccessTrial, DesiredFile, EtcdChange, HostAction, PatroniAction, PatroniGoal, UnitVerb,
    },
    desired::Login,
    model::{Claim, ClaimKind, Content, SecretText, sha256_hex},
};
use reconcile_hosts::{
    apply::{action_script, guard_script, patroni_script},
    transactions::transactions_script,
};

const DEADLINE: Duration = Duration::from_secs(60);
/// Words that a shell would like to take for more.
const NASTY: &str = "/etc/a b'$(touch x)`id`\"; rm -rf \\ *?[x]\n@@FILE";

pub(crate) fn check_syntax(what: &str, script: &str) {
    let mut shell =
        Command::new("sh").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{what}: {said}\n{script}");
}

fn claim(kind: ClaimKind, name: &str) -> Claim {
    Claim { kind, name: name.to_owned() }
}

fn file(path: &str, text: &str) -> DesiredFile {
    let content = Content::open(text);
    let (owner, group) = (own("-un"), own("-gn"));
    DesiredFile { path: path.to_owned(), content, mode: 0o640, owner, group }
}

fn own(option: &str) -> String {
    let output = Command::new("id").arg(option).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn write(path: &str, text: &str, before: Option<&str>) -> HostAction {
    HostAction::WriteFile {
        file: file(path, text),
        before: before.map(|text| sha256_hex(text.as_bytes())),
        claim: true,
        notify: None,
        quorum: None,
        cluster: "shop".to_owned(),
    }
}

fn login(word: &str, replication: bool) -> Login {
    let (address, user) = (Some(word.to_owned()), word.to_owned());
    Login { address, user, databases: vec![word.to_owned()], replication }
}

fn every_action(word: &str) -> Vec<HostAction> {
    let text = || word.to_owned();
    let claims = vec![claim(ClaimKind::File, word)];
    let unit = |verb, enable| HostAction::Unit { unit: word.to_owned(), verb, enable };
    let mut actions = vec![
        HostAction::Claim { cluster: text(), claims: claims.clone() },
        HostAction::InstallPackages {
            packages: vec![("patroni".to_owned(), Some("3.0.2-1".to_owned()))],
            cluster: text(),
            claims: vec![claim(ClaimKind::Package, word)],
            silence: vec![text()],
            start: vec![text()],
            replica: Some(text()),
        },
        HostAction::TryAccess {
            file: file(word, word),
            before: Some(text()),
            trial: Box::new(AccessTrial {
                digest: text(),
                lines: vec![text()],
                logins: vec![login(word, false), login(word, true)],
                back: false,
                data_dir: text(),
                bin_dir: text(),
                socket_dir: text(),
                port: 5432,
                primary: false,
                notice_seconds: 30,
            }),
        },
        HostAction::RemoveFile { path: text(), digest: text() },
        HostAction::EnsureDirectory { path: text(), mode: 0o700, owner: text(), group: text() },
        HostAction::StartEtcd {
            data_dir: text(),
            initial_cluster_state: text(),
            initial_cluster: Some(text()),
            claims: claims.clone(),
        },
        HostAction::AwaitEtcd { endpoint: text(), claims: claims.clone() },
        HostAction::ResumePooler { cluster: text(), port: 6432 },
        HostAction::StopPatroni { endpoint: text() },
        HostAction::RestartPatroni { endpoint: text(), data_dir: text(), max_lag_bytes: 16 << 20 },
        HostAction::UpgradePackages {
            packages: vec![("patroni".to_owned(), "3.0.2-1+deb12u1".to_owned())],
            outdates: vec!["patroni.service".to_owned()],
            replica: Some(text()),
        },
        HostAction::Sql {
            socket_dir: text(),
            port: 5432,
            database: text(),
            sql: Content::secret(word),
        },
    ];
    for verb in
        [UnitVerb::Start, UnitVerb::Stop, UnitVerb::Restart, UnitVerb::Reload, UnitVerb::Keep]
    {
        actions.extend([unit(verb, true), unit(verb, false)]);
        actions.push(HostAction::Notify { unit: text(), verb, quorum: None });
        actions.push(HostAction::WriteFile {
            file: file(word, word),
            before: None,
            claim: true,
            notify: Some((text(), verb)),
            quorum: None,
            cluster: text(),
        });
    }
    for until in [PatroniGoal::Primary, PatroniGoal::Replica, PatroniGoal::Either] {
        actions.push(HostAction::StartPatroni {
            endpoint: text(),
            data_dir: text(),
            claims: vec![claim(ClaimKind::DataDir, word), claim(ClaimKind::File, word)],
            until,
        });
    }
    let changes = [
        EtcdChange::Add { peer_url: text() },
        EtcdChange::Promote { id: text() },
        EtcdChange::Leave { id: text() },
        EtcdChange::Forget { id: text() },
    ];
    actions.extend(changes.map(|change| HostAction::EtcdMembership {
        change,
        via: vec![text(), text()],
        data_dir: text(),
        token: text(),
    }));
    actions
}

#[test]
fn every_script_is_a_shells() {
    for word in ["/etc/plain", NASTY] {
        for action in every_action(word) {
            let script = action_script(&action, DEADLINE).unwrap();
            check_syntax(&format!("{action:?}"), &script);
        }
    }
    check_syntax("patch", &patch(&SecretText::new(NASTY)));
    check_syntax("transactions", &transactions_script(NASTY, 5432, Duration::from_secs(2)));
    check_syntax("guard", &guard_script(NASTY, 6432, Duration::from_secs(30)));
}

fn patch(password: &SecretText) -> String {
    let action =
        PatroniAction::PatchConfig { patch: r#"{"ttl":20}"#.to_owned(), settle_seconds: 0 };
    patroni_script("http://192.0.2.11:8008/", Some(("ops", password)), &action, DEADLINE).unwrap()
}

#[test]
fn a_replica_is_restarted_on_conditions_and_awaited() {
    let runs = BTreeMap::from([(NASTY.to_owned(), NASTY.to_owned())]);
    let action = PatroniAction::RestartReplica {
        runs: runs.clone(),
        replaced: Some(4711),
        notice_seconds: 10,
        data_dir: NASTY.to_owned(),
        max_lag_bytes: 16 << 20,
    };
    let script = patroni_script("http://192.0.2.11:8008", None, &action, DEADLINE).unwrap();
    check_syntax("restart", &script);
    assert!(script.contains("ask '/replica?lag=16777216'"));
    let noticed = script.find("notice 10\n").unwrap();
    let asked = script.find("asking Patroni: POST /restart").unwrap();
    let back = script.find("waiting for the replica to stream again").unwrap();
    assert!(noticed < asked && asked < back, "{script}");
    assert!(!script.contains("the restart changed nothing"), "its program did");
    assert!(script.chars().all(|c| c == '\n' || !c.is_control()), "{script:?}");
    let action = PatroniAction::RestartReplica {
        runs: runs.clone(),
        replaced: None,
        notice_seconds: 10,
        data_dir: NASTY.to_owned(),
        max_lag_bytes: 16 << 20,
    };
    let script = patroni_script("http://192.0.2.11:8008", None, &action, DEADLINE).unwrap();
    assert!(script.contains("the restart changed nothing"));
    let primary = PatroniAction::RestartPrimary {
        runs,
        replaced: None,
        data_dir: NASTY.to_owned(),
        nodes: Vec::new(),
    };
    let script = patroni_script("http://192.0.2.11:8008", None, &primary, DEADLINE).unwrap();
    check_syntax("restart of the primary", &script);
    let whole = PatroniAction::HandOver { candidate: "node2".into(), nodes: Vec::new() };
    assert_eq!(patroni_script("http://192.0.2.11:8008", None, &whole, DEADLINE), None);
}

#[test]
fn a_request_to_patroni_has_its_credentials_on_standard_input_alone() {
    let script = patch(&SecretText::new("S3cr\"et"));
    assert!(!script.contains("S3cr"));
    let lines = script.lines().skip_while(|line| {
        !line.ends_with("<<'@@CURL' | curl -q -K - -o \"$T/body\" -w '%{http_code}' 2>\"$T/err\"")
    });
    let encoded: String = lines.skip(1).take_while(|line| *line != "@@CURL").collect();
    let config = String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap();
    let expected = r#"url = "http://192.0.2.11:8008/config"
request = PATCH
header = "Content-Type: application/json"
data-binary = "{\"ttl\":20}"
max-time = 57
noproxy = "*"
insecure
silent
show-error
user = "ops:S3cr\"et"
"#;
    assert_eq!(config, expected);
}

/// Only where it is installed, and not on every variant: it takes a third of a second for each.
#[test]
fn shellcheck_has_nothing_to_say() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut scripts = vec![
        super::probes::whole_script(),
        super::probes::marking(),
        guard_script("shop", 6432, Duration::from_secs(30)),
    ];
    let mut kinds = Vec::new();
    for action in every_action("/etc/plain") {
        let kind = std::mem::discriminant(&action);
        if !kinds.contains(&kind) {
            kinds.push(kind);
            scripts.push(action_script(&action, DEADLINE).unwrap());
        }
    }
    let paths = scripts.iter().enumerate().map(|(index, script)| {
        let path = folder.path().join(format!("{index}.sh"));
        std::fs::write(&path, script).unwrap();
        path
    });
    // Left out: what a script does not use of the common head (SC2034, SC2317), a loop over one
    // name (SC2043), and `mkdir -p -m`, whose parents get the umask's mode as meant (SC2174).
    let output = Command::new("shellcheck")
        .args(["-s", "dash", "-S", "warning", "-e", "SC2034,SC2317,SC2043,SC2174"])
        .args(paths)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_script_cut_off_on_its_way_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let script = here(folder.path(), &write(path.to_str().unwrap(), "text\n", None));
    let last = script.rfind("}\nmain ").unwrap();
    for part in [script.len() / 3, script.len() / 2, last] {
        let (status, _) = run(&script[..part]);
        assert_ne!(status, 0);
        assert!(!path.exists() && !folder.path().join("lib").exists());
    }
}

/// The action's script with the manifest in `folder`, for whoever runs the tests.
pub(crate) fn here(folder: &Path, action: &HostAction) -> String {
    action_script(action, DEADLINE)
        .unwrap()
        .replace("/var/lib/reconcile", folder.join("lib").to_str().unwrap())
        .replace("[ \"$(id -u)\" = 0 ]", "true")
}

pub(crate) fn run(script: &str) -> (i32, String) {
    let mut shell = Command::new("sh")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that fails early need not read all of its text.
    let _closed_early = shell.stdin.take().unwrap().write_all(script.as_bytes());
    let output = shell.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn perform(folder: &Path, action: &HostAction) -> Result<(), String> {
    let (status, stderr) = run(&here(folder, action));
    let failed = stderr.lines().find(|line| line.starts_with("@@fail ")).map(str::to_owned);
    match (status, failed) {
        (0, None) => Ok(()),
        (status, failed) => Err(failed.unwrap_or_else(|| format!("{status}: {stderr}"))),
    }
}

fn manifest(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("lib/manifest")).unwrap_or_default()
}

#[test]
fn a_file_is_claimed_written_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub dir/it's a file");
    let name = path.to_str().unwrap();
    let text = "one\n$two `three` \\ 'four'\n@@FILE\n";
    perform(folder.path(), &write(name, text, None)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(mode(&path), 0o640);
    let lines = format!("cluster shop\nclaim file {name}\n");
    assert_eq!(manifest(folder.path()), lines);

    // Again: nothing is written, nothing is claimed twice. Only the mode is set right.
    let before = inode(&path);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    perform(folder.path(), &write(name, text, None)).unwrap();
    assert_eq!((inode(&path), mode(&path)), (before, 0o640));
    assert_eq!(manifest(folder.path()), lines);
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn a_file_that_somebody_changed_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "by hand\n").unwrap();
    for before in [None, Some("as planned\n")] {
        let why = perform(folder.path(), &write(name, "ours\n", before)).unwrap_err();
        assert!(why.starts_with("@@fail after-change"), "{why}");
        assert!(why.contains("changed by somebody else since the plan"), "{why}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "by hand\n");
    assert_eq!(manifest(folder.path()), "");
    perform(folder.path(), &write(name, "ours\n", Some("by hand\n"))).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "ours\n");

    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let why = perform(folder.path(), &write(link.to_str().unwrap(), "x\n", None)).unwrap_err();
    assert!(why.contains("a symbolic link"), "{why}");
}

#[test]
fn a_missing_owner_is_told_before_anything_is_claimed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let HostAction::WriteFile { file, before, claim, notify, quorum, cluster } =
        write(path.to_str().unwrap(), "x\n", None)
    else {
        unreachable!()
    };
    let file = DesiredFile { owner: "nobody-here".to_owned(), ..file };
    let action = HostAction::WriteFile { file, before, claim, notify, quorum, cluster };
    let why = perform(folder.path(), &action).unwrap_err();
    assert!(why.contains("user nobody-here does not exist"), "{why}");
    assert!(!path.exists() && manifest(folder.path()).is_empty());
}

#[test]
fn a_file_is_removed_only_if_it_is_ours_and_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let name = path.to_str().unwrap();
    let remove = |text: &str| HostAction::RemoveFile {
        path: name.to_owned(),
        digest: sha256_hex(text.as_bytes()),
    };
    std::fs::write(&path, "ours\n").unwrap();
    let why = perform(folder.path(), &remove("ours\n")).unwrap_err();
    assert!(why.contains("is not claimed"), "{why}");
    perform(folder.path(), &write(name, "ours\n", Some("ours\n"))).unwrap();
    let why = perform(folder.path(), &remove("other\n")).unwrap_err();
    assert!(why.contains("changed by somebody else"), "{why}");
    perform(folder.path(), &remove("ours\n")).unwrap();
    assert!(!path.exists());
    perform(folder.path(), &remove("ours\n")).unwrap();
    let expected = format!("cluster shop\nclaim file {name}\nrelease file {name}\n");
    assert_eq!(manifest(folder.path()), expected);
    // It can be claimed again after.
    perform(folder.path(), &write(name, "ours\n", None)).unwrap();
    assert_eq!(manifest(folder.path()), format!("{expected}claim file {name}\n"));
}

#[test]
fn claims_are_appended_once_and_another_cluster_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let claims = |cluster: &str, names: &[&str]| HostAction::Claim {
        cluster: cluster.to_owned(),
        claims: names.iter().map(|name| claim(ClaimKind::Package, name)).collect(),
    };
    perform(folder.path(), &claims("shop", &["patroni", "etcd-server"])).unwrap();
    perform(folder.path(), &claims("shop", &["etcd-server", "curl"])).unwrap();
    let lines =
        "cluster shop\nclaim package patroni\nclaim package etcd-server\nclaim package curl\n";
    assert_eq!(manifest(folder.path()), lines);
    let why = perform(folder.path(), &claims("other", &["jq"])).unwrap_err();
    assert!(why.starts_with("@@fail after-change this server belongs to cluster shop"), "{why}");
    assert_eq!(manifest(folder.path()), lines);

    // A line that a crash cut off stays alone.
    let path = folder.path().join("lib/manifest");
    std::fs::write(&path, format!("{lines}claim file /etc/ha")).unwrap();
    perform(folder.path(), &claims("shop", &["jq"])).unwrap();
    assert_eq!(manifest(folder.path()), format!("{lines}claim file /etc/ha\nclaim package jq\n"));
}

#[test]
fn a_directory_is_made_or_set_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b");
    let action = |path: &Path| HostAction::EnsureDirectory {
        path: path.to_str().unwrap().to_owned(),
        mode: 0o750,
        owner: own("-un"),
        group: own("-gn"),
    };
    perform(folder.path(), &action(&path)).unwrap();
    assert_eq!(mode(&path), 0o750);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    perform(folder.path(), &action(&path)).unwrap();
    assert_eq!(mode(&path), 0o750);
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let why = perform(folder.path(), &action(&file)).unwrap_err();
    assert!(why.contains("is no directory"), "{why}");
}

fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions())
        & 0o7777
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

//! Encrypted secrets through the whole binary, from this machine and from Git. The files were made
//! by `age` and `sops` (`crates/reconcile-sops/tests/fixtures/make.sh`).

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{folder, reconcile, root, stderr, stdout};

fn fixture(name: &str) -> Vec<u8> {
    let folder = root().join("crates/reconcile-sops/tests/fixtures");
    fs::read(folder.join(name)).expect("a fixture")
}

/// A key file beside nothing else, mode 0600.
fn key(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, fixture(name)).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed");
    path
}

/// Both outputs; no value in them, nor any of the private key.
fn said(output: &Output) -> String {
    let said = format!("{}{}", stdout(output), stderr(output));
    assert!(!said.contains("canary-") && !said.contains("AGE-SECRET"), "{said}");
    said
}

fn list(folder: &Path, more: &[&str]) -> Output {
    reconcile(folder, &[&["secrets", "list", "-f", "cluster.yaml"], more].concat())
}

#[test]
fn encrypted_files_are_opened_with_the_identity_and_only_with_it() {
    let folder = folder();
    let path = folder.path();
    key(path, "key-for-tests.txt");
    key(path, "other-key-for-tests.txt");
    for name in ["cluster.sops.yaml", "cluster.age"] {
        // Anyone may read it: it is encrypted.
        fs::write(path.join("secrets.yaml"), fixture(name)).expect("written");
        let output = list(path, &["--identity", "key-for-tests.txt"]);
        assert!(output.status.success(), "{name}: {}", said(&output));
        let none = list(path, &[]);
        assert_eq!(none.status.code(), Some(1));
        assert!(said(&none).contains("no age identity is given"), "{}", said(&none));
        let other = list(path, &["--identity", "other-key-for-tests.txt"]);
        assert_eq!(other.status.code(), Some(1));
        let text = said(&other);
        assert!(
            text.contains("secrets.yaml") && text.contains("for other keys than ours"),
            "{text}"
        );
        assert!(text.contains("other-key-for-tests.txt") && text.contains("age1"), "{text}");
    }
    let fresh = reconcile(
        path,
        &["secrets", "init", "-f", "cluster.yaml", "--identity", "key-for-tests.txt"],
    );
    assert!(said(&fresh).contains("nothing is missing"), "{}", said(&fresh));
    let left: Vec<_> =
        fs::read_dir(path).expect("a folder").map(|e| e.expect("one").path()).collect();
    for file in left.iter().filter(|path| path.is_file()) {
        let clear = String::from_utf8_lossy(&fs::read(file).expect("read")).contains("canary-");
        assert!(!clear, "{} holds a secret in clear", file.display());
    }
}

#[test]
fn the_identity_comes_from_the_environment_or_a_systemd_credential_too() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("secrets.yaml"), fixture("cluster.sops.yaml")).expect("written");
    let file = key(path, "key-for-tests.txt");
    let credentials = path.join("credentials");
    fs::create_dir(&credentials).expect("made");
    fs::copy(&file, credentials.join("age-identity")).expect("copied");
    // systemd guards the folder; the mode within it is its own affair.
    fs::set_permissions(credentials.join("age-identity"), fs::Permissions::from_mode(0o440))
        .expect("set");
    let run = |name: &str, value: &Path| {
        Command::new(env!("CARGO_BIN_EXE_reconcile"))
            .args(["secrets", "list", "-f", "cluster.yaml"])
            .current_dir(path)
            .env_clear()
            .env(name, value)
            .output()
            .expect("the binary runs")
    };
    let named = run("RECONCILE_AGE_IDENTITY_FILE", &file);
    assert!(named.status.success(), "{}", said(&named));
    let credential = run("CREDENTIALS_DIRECTORY", &credentials);
    assert!(credential.status.success(), "{}", said(&credential));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("opened");
    let open = run("RECONCILE_AGE_IDENTITY_FILE", &file);
    assert!(said(&open).contains("may be read by others"), "{}", said(&open));
    let gone = run("RECONCILE_AGE_IDENTITY_FILE", &path.join("gone.txt"));
    assert!(said(&gone).contains("read the age identities"), "{}", said(&gone));
}

#[test]
fn what_an_encrypted_file_lacks_is_named_and_not_written_into_it() {
    let folder = folder();
    let path = folder.path();
    key(path, "key-for-tests.txt");
    fs::write(path.join("secrets.yaml"), fixture("lacks-one.sops.yaml")).expect("written");
    let output = list(path, &["--identity", "key-for-tests.txt"]);
    let text = said(&output);
    assert!(text.contains("`pgbouncer-auth` is missing") && text.contains("sops edit"), "{text}");
    let init = ["secrets", "init", "-f", "cluster.yaml", "--identity", "key-for-tests.txt"];
    let output = reconcile(path, &init);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("it lacks pgbouncer-auth"), "{}", said(&output));
    assert_eq!(fs::read(path.join("secrets.yaml")).expect("read"), fixture("lacks-one.sops.yaml"));
    // A value of somebody who has no key.
    let text = String::from_utf8(fixture("cluster.sops.yaml")).expect("UTF-8");
    let line = text.lines().find(|line| line.starts_with("pgbouncer-auth:")).expect("there");
    let forged = text.replace(line, "pgbouncer-auth: known-to-an-attacker");
    fs::write(path.join("secrets.yaml"), forged).expect("written");
    let output = list(path, &["--identity", "key-for-tests.txt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("its MAC does not hold"), "{}", said(&output));
}

#[test]
fn validate_looks_at_the_secrets_that_are_given() {
    let folder = folder();
    let path = folder.path();
    key(path, "key-for-tests.txt");
    let validate = |more: &[&str]| {
        let output = reconcile(path, &[&["validate", "-f", "cluster.yaml"], more].concat());
        (output.status.code(), said(&output))
    };
    let (code, text) = validate(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("were not checked: there is no ./secrets.yaml"), "{text}");
    fs::write(path.join("secrets.yaml"), fixture("lacks-one.sops.yaml")).expect("written");
    let (code, text) = validate(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("not checked: ./secrets.yaml is encrypted, and no age identity"),
        "{text}"
    );
    let (code, text) = validate(&["--identity", "key-for-tests.txt"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("`pgbouncer-auth` is missing"), "{text}");
    fs::write(path.join("secrets.yaml"), fixture("cluster.sops.yaml")).expect("written");
    let (code, text) = validate(&["--identity", "key-for-tests.txt"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("cluster main is valid: 3 hosts; all 7 secrets are there"), "{text}");
    // A program is not run for it.
    let spec = fs::read_to_string(path.join("cluster.yaml")).expect("read");
    let exec = spec.replace("  ssh:\n", "  secrets: { exec: [touch, ran] }\n  ssh:\n");
    fs::write(path.join("cluster.yaml"), exec).expect("written");
    let (code, text) = validate(&[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("`exec` is not run") && !path.join("ran").exists(), "{text}");
}

/// A repository with the example in a folder, and a key outside of it.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(repository.path().join("prod")).expect("made");
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        let text = fs::read(root().join("examples/three-servers.yaml")).expect("read");
        repository.write("prod/cluster.yaml", &text);
        key(repository.folder.path(), "key-for-tests.txt");
        repository
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path().join(name), bytes).expect("written");
        self.git(&["add", "--all"]);
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
        self.git(&[&who[..], &["commit", "--quiet", "--allow-empty", "-m", name]].concat());
    }

    fn git(&self, arguments: &[&str]) {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(self.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(git.status().expect("git runs").success());
    }

    fn list(&self, path: &str) -> Output {
        let source = format!("git+file://{}#main:{path}", self.path().display());
        let identity = ["--identity", "key-for-tests.txt"];
        let list = ["secrets", "list", "-f", &source];
        reconcile(self.folder.path(), &[&list[..], &identity].concat())
    }
}

#[test]
fn from_git_secrets_are_of_the_same_commit_and_never_in_clear() {
    let repository = Repository::new();
    let nowhere = repository.list("prod/cluster.yaml");
    assert!(said(&nowhere).contains("read the secrets file ./secrets.yaml"), "{}", said(&nowhere));
    for name in ["cluster.sops.yaml", "cluster.age"] {
        repository.write("prod/secrets.yaml", &fixture(name));
        let output = repository.list("prod/cluster.yaml");
        assert!(output.status.success(), "{name}: {}", said(&output));
    }
    // In a folder it is no cluster.
    repository.write("prod/secrets.yaml", &fixture("cluster.sops.yaml"));
    let output = repository.list("prod");
    assert!(output.status.success(), "{}", said(&output));

    let clear = b"postgres-superuser: canary-superuser-7Qx\n";
    repository.write("prod/secrets.yaml", clear);
    for path in ["prod/cluster.yaml", "prod"] {
        let output = repository.list(path);
        assert_eq!(output.status.code(), Some(1), "{path}");
        let text = said(&output);
        assert!(
            text.contains("holds secrets in clear") && text.contains("prod/secrets.yaml"),
            "{text}"
        );
    }
    // Nor one that the desired state does not name.
    repository.write("prod/secrets.yaml", &fixture("cluster.sops.yaml"));
    repository.write("prod/old-secrets.yaml", clear);
    let output = repository.list("prod");
    assert!(
        said(&output).contains("prod/old-secrets.yaml holds secrets in clear"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_link_in_the_repository_leads_to_no_secrets() {
    let repository = Repository::new();
    let outside = repository.folder.path().join("outside.yaml");
    fs::write(&outside, fixture("cluster.sops.yaml")).expect("written");
    std::os::unix::fs::symlink(&outside, repository.path().join("prod/secrets.yaml"))
        .expect("linked");
    repository.write("prod/other", b"x");
    let output = repository.list("prod/cluster.yaml");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("prod/secrets.yaml is no regular file"), "{}", said(&output));
}

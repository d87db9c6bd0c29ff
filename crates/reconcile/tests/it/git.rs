//! The desired state from a Git repository or a folder, through the whole binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{reconcile, root, stderr, stdout};

/// A repository beside the folder that the operator runs in.
struct Repository {
    folder: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(repository.path()).expect("made");
        crate::key(repository.folder.path());
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        let text = fs::read_to_string(root().join("examples/three-servers.yaml")).expect("read");
        // No server of this file can be reached, at once.
        let jump = "  ssh:\n    jump: nobody@127.0.0.1:1\n    jumpHostKey: \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDGvNKQ+D8g6yuSP7W7unc6NODzwlNlCTQC3TaF5E2gu\"\n";
        repository.commit("the first", &text.replace("  ssh:\n", jump));
        let init = repository.run(&["secrets", "init", "-f", &repository.source()]);
        assert!(init.status.success(), "{}", stderr(&init));
        repository
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn source(&self) -> String {
        format!("git+file://{}#main:cluster.yaml", self.path().display())
    }

    fn git(&self, arguments: &[&str]) {
        let output = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(arguments)
            .current_dir(self.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{}", stderr(&output));
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path().join("cluster.yaml")).expect("read")
    }

    fn commit(&self, subject: &str, text: &str) {
        fs::write(self.path().join("cluster.yaml"), text).expect("written");
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        reconcile(self.folder.path(), arguments)
    }

    fn events(&self) -> String {
        let output = self.run(&["events", "-f", &self.source()]);
        stdout(&output)
    }

    fn await_event(&self, wanted: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let events = self.events();
            if events.contains(wanted) {
                return events;
            }
            assert!(Instant::now() < until, "no `{wanted}` in\n{events}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn watch(&self) -> Watching {
        self.watch_with(&["--listen", "off", "--git-interval", "1"])
    }

    fn watch_with(&self, arguments: &[&str]) -> Watching {
        let child = Command::new(env!("CARGO_BIN_EXE_reconcile"))
            .args(["--watch", "-f", &self.source()])
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        Watching(child)
    }
}

/// A running operator, ended with the test.
struct Watching(Child);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }
}

#[test]
fn a_git_source_is_read_and_the_commit_in_force_is_shown() {
    let repository = Repository::new();
    let source = repository.source();
    let status = || stdout(&repository.run(&["status", "--no-proof", "-f", &source]));
    assert!(status().contains("\"the first\" by Ada <ada@example.org>"), "{}", status());
    // Held, since no server answers; but the commit is in force from now on.
    assert_eq!(repository.run(&["-f", &source]).status.code(), Some(3));
    let good = repository.text();
    repository.commit("broken", "apiVersion: nonsense\n");
    let broken = repository.run(&["-f", &source]);
    assert_eq!(broken.status.code(), Some(1), "a commit that cannot be read is never converged to");
    let text = status();
    assert!(text.contains("\"the first\"") && text.contains("not in force"), "{text}");
    let condition = |text: &str, wanted: &[&str]| {
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert!(lines.any(|words| words.starts_with(wanted)), "{text}");
    };
    condition(&text, &["SourceInForce", "False", "Refused"]);
    let plan = repository.run(&["plan", "-f", &source]);
    assert_eq!(plan.status.code(), Some(1));
    let said = stderr(&plan);
    assert!(said.starts_with("commit ") && said.contains("\"broken\" by Ada"), "{said}");
    assert!(said.contains(" is not taken:\n"), "{said}");
    // Nobody knows whether a repository that is away has a newer one.
    let away = repository.folder.path().join("away");
    fs::rename(repository.path(), &away).expect("moved");
    let text = status();
    fs::rename(&away, repository.path()).expect("moved");
    assert!(text.contains("whether there is a newer commit is not known:"), "{text}");
    assert!(!text.contains("not in force"), "{text}");
    condition(&text, &["SourceInForce", "Unknown", "Unread"]);
    repository.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    repository.git(&["commit", "--quiet", "--amend", "-m", "rewritten"]);
    let moved = repository.run(&["-f", &source]);
    assert!(stderr(&moved).contains("another history"), "{}", stderr(&moved));
    assert_eq!(repository.run(&["--allow-rewind", "-f", &source]).status.code(), Some(3));
    assert_eq!(repository.text(), good);
    assert!(status().contains("\"rewritten\""), "{}", status());
}

#[test]
fn the_watch_keeps_the_last_good_commit_and_journals_what_it_refuses() {
    let repository = Repository::new();
    let good = repository.text();
    let watching = repository.watch();
    repository.await_event("in force: commit");
    repository.commit("broken", "apiVersion: nonsense\n");
    repository.await_event("refused: commit");
    repository.commit("mended", &good);
    repository.await_event("\"mended\"");
    repository.git(&["reset", "--quiet", "--hard", "HEAD~2"]);
    repository.await_event("another history");
    drop(watching);
    // A new operator, with the branch still refused, goes on with the commit that was in force.
    let watching = repository.watch();
    let until = Instant::now() + Duration::from_secs(30);
    while repository.events().matches("\"mended\"").count() < 2 {
        assert!(Instant::now() < until, "{}", repository.events());
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(watching);
    let events = repository.events();
    assert!(events.contains("\"broken\" by Ada"), "{events}");
    let in_force = events.lines().filter(|line| line.contains("in force: "));
    assert!(in_force.clone().count() >= 3, "{events}");
    assert!(in_force.clone().all(|line| !line.contains("\"broken\"")), "{events}");
}

/// The operator that runs has the lock: what is accepted beside it is carried out by it.
#[test]
fn a_rewind_is_accepted_beside_a_watch_that_runs() {
    let repository = Repository::new();
    let source = repository.source();
    let _watching = repository.watch();
    repository.await_event("in force: commit");
    repository.git(&["commit", "--quiet", "--amend", "-m", "rewritten"]);
    repository.await_event("another history");
    // Without the word nothing is accepted.
    let plain = repository.run(&["-f", &source]);
    assert_eq!(plain.status.code(), Some(1), "{}", stderr(&plain));
    let accepted = repository.run(&["--allow-rewind", "-f", &source]);
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
    assert_eq!(
        stdout(&accepted),
        "accepted for cluster main; the running --watch carries it out\n",
        "{}",
        stderr(&accepted)
    );
    let in_force = repository.await_event("in force: commit");
    let until = Instant::now() + Duration::from_secs(30);
    while !repository
        .events()
        .lines()
        .any(|line| line.contains("in force: ") && line.contains("\"rewritten\""))
    {
        assert!(Instant::now() < until, "{in_force}\n{}", repository.events());
        std::thread::sleep(Duration::from_millis(200));
    }
    // What goes on from there is the watch's own work: a run beside it has no effect.
    repository.commit("next", &repository.text());
    let beside = repository.run(&["-f", &source]);
    assert_eq!(beside.status.code(), Some(1));
    assert!(stderr(&beside).contains("a running `--watch` works on this"), "{}", stderr(&beside));
}

#[test]
fn a_commit_that_was_taken_back_is_not_tried_again() {
    let repository = Repository::new();
    let good = repository.text();
    let _watching = repository.watch();
    repository.await_event("in force: commit");
    // Not to be had for a reason that passes: a secret that is not there yet.
    let role = "      - { name: late, password: { secret: late-password } }\n";
    let late = format!("{good}  postgresql:\n    version: 15\n    roles:\n{role}");
    repository.commit("too early", &late);
    repository.await_event("refused: commit");
    repository.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let in_force = || repository.events().matches("in force: commit").count();
    let until = Instant::now() + Duration::from_secs(30);
    while in_force() < 2 {
        assert!(Instant::now() < until, "the first is in force again: {}", repository.events());
        std::thread::sleep(Duration::from_millis(200));
    }
    let secrets = repository.folder.path().join("secrets.yaml");
    let text = fs::read_to_string(&secrets).expect("read");
    fs::write(&secrets, format!("{text}late-password: 0123456789abcdef\n")).expect("written");
    // Twice what a commit takes that is put in force.
    std::thread::sleep(Duration::from_secs(5));
    let events = repository.events();
    let mut in_force = events.lines().filter(|line| line.contains("in force: "));
    assert!(in_force.all(|line| !line.contains("\"too early\"")), "{events}");
}

#[test]
fn a_signed_webhook_makes_the_operator_fetch_at_once() {
    use hmac::Mac as _;
    use std::io::{Read as _, Write as _};
    let repository = Repository::new();
    let good = repository.text();
    fs::write(repository.folder.path().join("hook"), "a-secret-of-the-git-host-4711")
        .expect("written");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let hook = ["--listen", &address, "--webhook-secret-file", "hook", "--git-interval", "3600"];
    let _watching = repository.watch_with(&hook);
    repository.await_event("\"the first\"");
    repository.commit("pushed", &good);
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"a-secret-of-the-git-host-4711")
        .expect("any length");
    mac.update(b"{}");
    let signature = format!("{:x}", mac.finalize().into_bytes());
    let post = |signature: &str| {
        let mut stream = std::net::TcpStream::connect(&address).expect("connected");
        let request = format!(
            "POST /reconcile HTTP/1.1\r\nhost: {address}\r\nx-hub-signature-256: sha256={signature}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer
    };
    let forged = post(&"0".repeat(64));
    assert!(!forged.starts_with("HTTP/1.1 2"), "{forged}");
    std::thread::sleep(Duration::from_secs(1));
    assert!(!repository.events().contains("\"pushed\""), "a forged word is no word");
    let began = Instant::now();
    let answer = post(&signature);
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    repository.await_event("\"pushed\"");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_program_for_secrets_is_not_taken_from_git() {
    let repository = Repository::new();
    let mark = repository.folder.path().join("ran");
    let exec = format!("  secrets: {{ exec: [touch, {}] }}\n  ssh:\n", mark.display());
    let text = repository.text().replace("  ssh:\n", &exec);
    assert!(text.contains("exec:"), "{text}");
    repository.commit("exec", &text);
    let output = repository.run(&["plan", "-f", &repository.source()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not taken from Git"), "{}", stderr(&output));
    assert!(!mark.exists());
}

#[test]
fn wrong_sources_are_usage_errors() {
    let here = Path::new("/tmp");
    let bad = reconcile(here, &["plan", "-f", "git+ssh://-oProxyCommand=id/r#main:c.yaml"]);
    assert_eq!(bad.status.code(), Some(2), "{}", stderr(&bad));
    let bad = reconcile(here, &["plan", "--allowed-signers", "x", "-f", "cluster.yaml"]);
    assert_eq!(bad.status.code(), Some(2), "{}", stderr(&bad));
}

#[test]
fn a_folder_is_read_in_order_and_secrets_in_it_are_not_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(root().join("examples/three-servers.yaml")).expect("read");
    let name = text.split("name: ").nth(1).expect("a name").split([' ', '\n']).next();
    let name = name.expect("a name");
    let write =
        |file: &str, text: &str| fs::write(folder.path().join(file), text).expect("written");
    write("b.yaml", &text.replacen(name, "second", 1));
    write("a.yaml", &text.replacen(name, "first", 1));
    write("old-secrets.yaml", "replication: canary-4711\n");
    let validate = || reconcile(folder.path(), &["validate", "-f", "."]);
    let said = stdout(&validate());
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}{}", stderr(&validate()));
    assert!(lines[0].contains("first") && lines[1].contains("second"), "{said}");
    write("c.yaml", &text.replacen(name, "first", 1));
    assert!(stderr(&validate()).contains("is in both"), "{}", stderr(&validate()));
    write("c.yaml", "replication: canary-4711\n");
    let refused = validate();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("has no `apiVersion:`"), "{}", stderr(&refused));
    assert!(!stderr(&refused).contains("canary"), "{}", stderr(&refused));
}

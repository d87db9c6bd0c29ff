//! The Git source against real repositories, with real signatures.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use reconcile_git::{BadLocation, Follower, GitError, Location, Mirror, Policy};

/// A repository with a folder for the mirror beside it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(place.repository()).expect("made");
        place.git(&["init", "--quiet", "--initial-branch=main"]);
        place
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(["-c", "gpg.format=ssh"])
            .args(arguments)
            .current_dir(self.repository())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null())
            .output()
            .expect("git runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.repository().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn commit(&self, subject: &str, more: &[&str]) -> String {
        self.git(&["add", "--all"]);
        self.git(&[&["commit", "--quiet", "--allow-empty", "-m", subject], more].concat());
        self.git(&["rev-parse", "HEAD"])
    }

    /// A key of its own and the line by which it is allowed.
    fn key(&self, name: &str) -> (String, String) {
        let path = self.folder.path().join(name);
        let file = path.to_str().expect("UTF-8").to_owned();
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &file])
            .stdin(Stdio::null())
            .status();
        assert!(made.expect("ssh-keygen runs").success());
        let public = fs::read_to_string(path.with_extension("pub")).expect("read");
        (file, format!("{name}@example.org {}\n", public.trim()))
    }

    fn signed(&self, subject: &str, key: &str) -> String {
        self.commit(subject, &[]);
        self.git(&[
            "-c",
            &format!("user.signingkey={key}"),
            "commit",
            "--quiet",
            "--amend",
            "--no-edit",
            "--allow-empty",
            "-S",
        ]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn mirror(&self, fragment: &str, policy: Policy) -> Mirror {
        let text = format!("git+file://{}#{fragment}", self.repository().display());
        let location = Location::parse(&text).expect("a location").expect("a good one");
        Mirror::new(location, policy, &self.folder.path().join("state"))
    }

    fn plain(&self) -> Mirror {
        self.mirror("main:cluster.yaml", Policy::default())
    }
}

fn text(mirror: &Mirror) -> String {
    mirror.newest().expect("newest").files.remove(0).1
}

fn refusal(mirror: &Mirror) -> String {
    match mirror.newest() {
        Err(error @ GitError::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_commit_is_read_with_author_subject_and_time() {
    let place = Place::new();
    place.write("prod/cluster.yaml", "one");
    let commit = place.commit("the first", &[]);
    let mirror = place.mirror("main:prod/cluster.yaml", Policy::default());
    let snapshot = mirror.newest().expect("read");
    assert_eq!(snapshot.files, [("prod/cluster.yaml".to_owned(), "one".to_owned())]);
    assert_eq!(snapshot.revision.commit, commit);
    assert_eq!(snapshot.revision.subject, "the first");
    assert_eq!(snapshot.revision.author, "Ada <ada@example.org>");
    assert!(snapshot.revision.time.starts_with("20"), "{}", snapshot.revision.time);
    let state = fs::metadata(place.folder.path().join("state")).expect("made");
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_change_is_seen_and_what_is_in_force_outlives_the_repository() {
    let place = Place::new();
    place.write("cluster.yaml", "one");
    place.commit("one", &[]);
    let mirror = place.plain();
    assert_eq!(mirror.in_force().expect("asked"), None);
    let first = mirror.newest().expect("read");
    mirror.accept(&first.revision).expect("accepted");
    place.write("cluster.yaml", "two");
    place.commit("two", &[]);
    assert_eq!(text(&mirror), "two");
    // Not accepted: the first one is still in force, also where the repository is gone.
    fs::rename(place.repository(), place.folder.path().join("gone")).expect("moved");
    let error = mirror.newest().expect_err("gone");
    assert!(matches!(error, GitError::Git { .. }), "{error}");
    assert_eq!(mirror.in_force().expect("asked"), Some(first));
}

#[test]
fn a_moved_branch_is_refused_unless_allowed() {
    let place = Place::new();
    place.write("cluster.yaml", "one");
    place.commit("one", &[]);
    place.write("cluster.yaml", "two");
    place.commit("two", &[]);
    let mirror = place.plain();
    let second = mirror.newest().expect("read");
    mirror.accept(&second.revision).expect("accepted");
    // Back by one.
    place.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    assert!(refusal(&mirror).contains("moved back or to another history"));
    // Another history.
    place.write("cluster.yaml", "other");
    let other = place.commit("other", &["--amend"]);
    assert!(refusal(&mirror).contains(&other[..12]));
    assert_eq!(mirror.in_force().expect("asked"), Some(second));
    let allowed = Policy { allow_rewind: true, ..Policy::default() };
    assert_eq!(text(&place.mirror("main:cluster.yaml", allowed)), "other");
}

#[test]
fn only_allowed_signers_are_taken() {
    let place = Place::new();
    let (known, line) = place.key("known");
    let (stranger, _) = place.key("stranger");
    let signers = place.folder.path().join("allowed_signers");
    fs::write(&signers, line).expect("written");
    let policy = Policy { allowed_signers: Some(signers.clone()), ..Policy::default() };
    let mirror = place.mirror("main:cluster.yaml", policy);
    place.write("cluster.yaml", "one");
    place.commit("unsigned", &[]);
    assert!(refusal(&mirror).contains("it is not signed"), "{}", refusal(&mirror));
    place.signed("by a stranger", &stranger);
    assert!(refusal(&mirror).contains("not among the allowed signers"), "{}", refusal(&mirror));
    place.write("cluster.yaml", "two");
    let good = place.signed("by one who may", &known);
    let snapshot = mirror.newest().expect("accepted");
    assert_eq!((snapshot.revision.commit.as_str(), snapshot.files[0].1.as_str()), (&*good, "two"));
    mirror.accept(&snapshot.revision).expect("accepted");

    // A signature of another commit: the object is made anew with one byte of its message changed.
    let object = place.git(&["cat-file", "commit", "HEAD"]).replace("one who may", "one who mad");
    let forged = place.folder.path().join("forged");
    fs::write(&forged, object + "\n").expect("written");
    let forged = forged.to_str().expect("UTF-8");
    let hash = place.git(&["hash-object", "-t", "commit", "-w", forged]);
    place.git(&["update-ref", "refs/heads/main", &hash]);
    assert!(refusal(&mirror).contains("its signature does not hold"), "{}", refusal(&mirror));
    place.git(&["update-ref", "refs/heads/main", &good]);

    // A signer who is struck off no longer counts, not even for what is in force.
    fs::write(&signers, place.key("other").1).expect("written");
    assert!(matches!(mirror.in_force(), Err(GitError::Refused { .. })));
    // No file is no permission.
    fs::remove_file(&signers).expect("removed");
    assert!(matches!(mirror.newest(), Err(GitError::Io { .. })));
}

#[test]
fn hostile_names_never_reach_git() {
    let bad = |text: &str| Location::parse(text).expect("git+").expect_err(text);
    assert_eq!(Location::parse("cluster.yaml"), None);
    assert!(matches!(bad("git+ext::sh -c id"), BadLocation::Scheme(_)));
    assert!(matches!(bad("git+http://host/r#main:c.yaml"), BadLocation::Scheme(_)));
    assert_eq!(bad("git+ssh://host/r"), BadLocation::NoPath);
    assert_eq!(bad("git+ssh://host/r#main"), BadLocation::NoPath);
    assert_eq!(bad("git+https://user:token@host/r#main:c.yaml"), BadLocation::Password);
    for (text, wanted) in [
        ("git+ssh://-oProxyCommand=id/r#main:c.yaml", "host"),
        ("git+ssh://git@-oProxyCommand=id/r#main:c.yaml", "host"),
        ("git+ssh:///r#main:c.yaml", "host"),
        ("git+file://host/r#main:c.yaml", "host"),
        ("git+ssh://host/a b#main:c.yaml", "repository"),
        ("git+ssh://host/#main:c.yaml", "repository"),
        ("git+ssh://host/r#--upload-pack=id:c.yaml", "branch"),
        ("git+ssh://host/r#a..b:c.yaml", "branch"),
        ("git+ssh://host/r#+refs/heads/*:c.yaml", "branch"),
        ("git+ssh://host/r#main@{1}:c.yaml", "branch"),
        ("git+ssh://host/r#:c.yaml", "branch"),
        ("git+ssh://host/r#main:", "path"),
        ("git+ssh://host/r#main:../../etc/shadow", "path"),
        ("git+ssh://host/r#main:/etc/shadow", "path"),
        ("git+ssh://host/r#main:a//b", "path"),
        ("git+ssh://host/r#main:a\u{7}b", "path"),
    ] {
        assert!(matches!(bad(text), BadLocation::Part { part, .. } if part == wanted), "{text}");
    }
    for good in [
        "git+ssh://git@example.org:2222/team/db.git#release/v1:prod/cluster.yaml",
        "git+ssh://[2001:db8::1]/~ada/db#main:clusters",
        "git+https://example.org/team/db.git#main:-odd-name.yaml",
    ] {
        assert_eq!(Location::parse(good).expect("git+").expect(good).to_string(), good);
    }
}

#[test]
fn paths_that_look_like_options_or_patterns_are_only_paths() {
    let place = Place::new();
    place.write("--help", "dash");
    place.write("*.yaml", "star");
    place.write("a.yaml", "a");
    place.commit("odd", &[]);
    assert_eq!(text(&place.mirror("main:--help", Policy::default())), "dash");
    assert_eq!(text(&place.mirror("main:*.yaml", Policy::default())), "star");
    assert!(refusal(&place.mirror("main::(glob)*", Policy::default())).contains("it has no"));
}

#[test]
fn links_submodules_and_missing_files_are_refused() {
    let place = Place::new();
    symlink("/etc/passwd", place.repository().join("cluster.yaml")).expect("linked");
    place.write("real/cluster.yaml", "real");
    symlink("real", place.repository().join("folder")).expect("linked");
    let commit = place.commit("links", &[]);
    assert!(refusal(&place.plain()).contains("neither a file nor a folder"));
    let through = place.mirror("main:folder/cluster.yaml", Policy::default());
    assert!(refusal(&through).contains("it has no"));
    assert!(refusal(&place.mirror("main:none.yaml", Policy::default())).contains("it has no"));
    place.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
    place.git(&["commit", "--quiet", "-m", "module"]);
    let module = place.mirror("main:module", Policy::default());
    assert!(refusal(&module).contains("neither a file nor a folder"));
}

#[test]
fn a_folder_is_its_yaml_files_in_order() {
    let place = Place::new();
    for (path, text) in
        [("b.yaml", "b"), ("a.yaml", "a"), ("README.md", "no"), ("deep/c.yaml", "c")]
    {
        place.write(&format!("clusters/{path}"), text);
    }
    place.commit("folder", &[]);
    let snapshot = place.mirror("main:clusters/", Policy::default()).newest().expect("read");
    let names: Vec<_> = snapshot.files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["clusters/a.yaml", "clusters/b.yaml"]);
}

#[test]
fn huge_files_binary_files_and_huge_repositories_are_refused() {
    let place = Place::new();
    place.write("cluster.yaml", vec![b'a'; (1 << 20) + 1]);
    place.commit("huge", &[]);
    assert!(refusal(&place.plain()).contains("larger than 1024 KiB"));
    place.write("cluster.yaml", [0xff, 0xfe, 0]);
    place.commit("binary", &[]);
    assert!(refusal(&place.plain()).contains("not UTF-8"));
    // What does not compress, so that it is large on the way as well.
    let mut noise = vec![0u8; 8 << 20];
    let mut random = fs::File::open("/dev/urandom").expect("opened");
    std::io::Read::read_exact(&mut random, &mut noise).expect("read");
    place.write("cluster.yaml", "one");
    place.write("noise", &noise);
    place.commit("noise", &[]);
    let small = Policy { mirror_bytes: 2 << 20, ..Policy::default() };
    let mirror = place.mirror("main:cluster.yaml", small);
    let error = mirror.newest().expect_err("too big");
    assert!(matches!(error, GitError::TooBig { .. }), "{error}");
    // And nothing of it stays.
    let left = Command::new("du").arg("-sk").arg(place.folder.path().join("state")).output();
    let left = String::from_utf8(left.expect("du runs").stdout).expect("UTF-8");
    let kib: u64 = left.split_whitespace().next().expect("a number").parse().expect("a number");
    assert!(kib < 2048, "{kib} KiB are left");
}

#[test]
fn a_repository_that_never_answers_is_given_up() {
    let place = Place::new();
    // A server that takes connections and says nothing: the kernel accepts for us.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = silent.local_addr().expect("an address").port();
    let text = format!("git+https://127.0.0.1:{port}/r#main:cluster.yaml");
    let location = Location::parse(&text).expect("a location").expect("a good one");
    let policy = Policy { fetch_time: Duration::from_secs(1), ..Policy::default() };
    let mirror = Mirror::new(location, policy, place.folder.path());
    let began = Instant::now();
    let error = mirror.newest().expect_err("silence");
    assert!(matches!(error, GitError::TooLong { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn nothing_of_the_repository_runs() {
    let place = Place::new();
    let mark = place.folder.path().join("ran");
    let script = format!("#!/bin/sh\ntouch {}\n", mark.display());
    place.write("cluster.yaml", "one\n");
    // A filter and a text conversion that the repository asks for, and hooks on both sides.
    place.write(".gitattributes", "* filter=evil diff=evil\n");
    place.commit("evil", &[]);
    let mirror = place.plain();
    mirror.newest().expect("made");
    let state = fs::read_dir(place.folder.path().join("state")).expect("state");
    let bare = state.map(|entry| entry.expect("an entry").path()).find(|path| path.is_dir());
    let hooks = bare.expect("the mirror").join("hooks");
    fs::create_dir_all(&hooks).expect("made");
    for hook in ["reference-transaction", "post-fetch", "post-checkout", "pre-auto-gc"] {
        fs::write(hooks.join(hook), &script).expect("written");
        fs::set_permissions(hooks.join(hook), fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    place.write("cluster.yaml", "two\n");
    place.commit("again", &[]);
    let snapshot = mirror.newest().expect("read");
    assert_eq!(snapshot.files[0].1, "two\n");
    mirror.accept(&snapshot.revision).expect("accepted");
    assert!(!mark.exists(), "something of the repository ran");
}

#[test]
fn terminal_codes_in_a_commit_are_not_passed_on() {
    let place = Place::new();
    place.write("cluster.yaml", "one");
    place.commit("red \u{1b}[31malert\u{7}", &[]);
    let revision = place.plain().newest().expect("read").revision;
    assert!(!revision.to_string().contains(char::is_control), "{revision:?}");
    assert!(revision.subject.contains("alert"), "{revision:?}");
}

fn next(follower: &Follower) -> Result<String, String> {
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        if let Some(news) = follower.news() {
            return news.map(|mut news| news.files.remove(0).1).map_err(|error| error.to_string());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no news in 20 s");
}

#[test]
fn a_follower_tells_each_change_once_and_at_once_when_it_is_woken() {
    let place = Place::new();
    place.write("cluster.yaml", "one");
    place.commit("one", &[]);
    let pause = || Duration::from_secs(3600);
    let (sender, looks) = std::sync::mpsc::channel();
    let looked = move || sender.send(()).expect("heard");
    let follower = Follower::start(place.plain(), pause, looked).expect("started");
    assert_eq!(next(&follower), Ok("one".to_owned()));
    place.write("cluster.yaml", "two");
    place.commit("two", &[]);
    assert!(follower.news().is_none(), "it is not time to look");
    let waker = follower.waker();
    waker.wake();
    assert_eq!(next(&follower), Ok("two".to_owned()));
    place.git(&["rm", "--quiet", "cluster.yaml"]);
    place.commit("gone", &[]);
    waker.wake();
    assert!(next(&follower).expect_err("refused").contains("it has no cluster.yaml"));
    waker.wake();
    // Each look so far was told: the first, and each that was asked for, news or not.
    for _ in 0..4 {
        looks.recv_timeout(Duration::from_secs(20)).expect("a look was told");
    }
    assert!(follower.news().is_none(), "said once");
    place.git(&["revert", "--no-edit", "HEAD"]);
    waker.wake();
    assert_eq!(next(&follower), Ok("two".to_owned()));
}

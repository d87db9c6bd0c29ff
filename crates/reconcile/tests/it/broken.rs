//! While the file is broken: who looks or steers goes on with what is in force, who would change the
//! cluster by the file does not, and an operator that starts only looks at what was in force.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{reconcile, root, stderr, stdout};

/// A file beside which the operator keeps its state.
struct Place(tempfile::TempDir);

impl Place {
    /// The file was taken once; none of its servers can be reached, which is seen at once.
    fn taken() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        place.write(&good());
        crate::key(place.path());
        let init = place.run(&["secrets", "init", "-f", "cluster.yaml"]);
        assert!(init.status.success(), "{}", stderr(&init));
        let run = place.run(&["-f", "cluster.yaml"]);
        assert_eq!(run.status.code(), Some(3), "{}", stderr(&run));
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, text: &str) {
        fs::write(self.path().join("cluster.yaml"), text).expect("written");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        reconcile(self.path(), arguments)
    }

    fn kept(&self) -> Vec<PathBuf> {
        let folder = self.path().join(".local/state/reconcile/_files");
        let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "json")).collect()
    }

    fn events(&self) -> String {
        stdout(&self.run(&["events", "-f", "cluster.yaml"]))
    }

    fn watch(&self) -> Watching {
        let said = fs::File::create(self.path().join("said")).expect("made");
        let child = Command::new(env!("CARGO_BIN_EXE_reconcile"))
            .args(["--watch", "-f", "cluster.yaml", "--listen", "127.0.0.1:0"])
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .stdin(Stdio::null())
            .stderr(said)
            .spawn()
            .expect("the binary runs");
        Watching(child)
    }

    /// What the operator shows under `/status`, once that is `wanted`.
    fn await_shown(&self, wanted: &str) -> String {
        let said = self.await_said("status and page on http://");
        let (_, url) = said.split_once("status and page on http://").expect("said");
        let address = url.split(['/', '\n']).next().expect("an address");
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let asked = format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n");
            stream.write_all(asked.as_bytes()).expect("asked");
            let mut shown = String::new();
            stream.read_to_string(&mut shown).expect("an answer");
            if shown.contains(wanted) {
                return shown;
            }
            assert!(Instant::now() < until, "no `{wanted}` in\n{shown}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn await_said(&self, wanted: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let said = fs::read_to_string(self.path().join("said")).expect("read");
            if said.contains(wanted) {
                return said;
            }
            assert!(Instant::now() < until, "no `{wanted}` in\n{said}");
            std::thread::sleep(Duration::from_millis(100));
        }
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

fn good() -> String {
    let text = fs::read_to_string(root().join("examples/three-servers.yaml")).expect("read");
    let jump = "  ssh:\n    jump: nobody@127.0.0.1:1\n    jumpHostKey: \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDGvNKQ+D8g6yuSP7W7unc6NODzwlNlCTQC3TaF5E2gu\"\n";
    text.replace("  ssh:\n", jump) + "  policy: { switchover: never }\n"
}

fn broken() -> String {
    good().replace("kind: PostgresCluster", "kind: PostgresClutter")
}

#[test]
fn who_looks_or_steers_goes_on_with_what_is_in_force() {
    let place = Place::taken();
    let [kept] = place.kept().try_into().expect("one file, one copy");
    assert_eq!(fs::metadata(&kept).expect("there").permissions().mode() & 0o777, 0o600);
    place.write(&broken());
    let note = "The file is not taken; in force is what was taken of it 20";
    let status = place.run(&["status", "--no-proof", "-f", "cluster.yaml"]);
    let text = stdout(&status);
    assert!(text.contains(note) && text.contains("PostgresClutter"), "{text}");
    assert!(text.contains("node1"), "the servers are shown: {text}");
    assert!(text.contains("Operator  unknown: 0 of 3 servers answer: "), "{text}");
    let json = stdout(&place.run(&["status", "--no-proof", "-o", "json", "-f", "cluster.yaml"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let refused = json["sourceRefused"].as_str().unwrap_or_default();
    assert!(refused.contains("PostgresClutter"), "{json}");
    assert_eq!(json["operator"]["state"], "unknown", "{json}");
    let steering: [&[&str]; 5] =
        [&["pause"], &["resume"], &["psql"], &["logs", "etcd"], &["switchover"]];
    for command in steering {
        let output = place.run(&[command, &["-f", "cluster.yaml"]].concat());
        let said = stderr(&output);
        assert!(said.contains(note) && said.contains("PostgresClutter"), "{command:?}: {said}");
        let went_on = ["node1", "servers", "policy.switchover is `never`"];
        assert!(went_on.iter().any(|word| said.contains(word)), "{command:?}: {said}");
    }
    assert!(stderr(&place.run(&["events", "-f", "cluster.yaml"])).contains(note));
    // Nothing is changed by a file that is broken, nor by the one before without a word.
    let changing: [&[&str]; 4] = [&["plan"], &[], &["validate"], &["adopt"]];
    for command in changing {
        let output = place.run(&[command, &["-f", "cluster.yaml"]].concat());
        assert_eq!(output.status.code(), Some(1), "{command:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{command:?}");
        assert!(!stderr(&output).contains(note), "{command:?}: {}", stderr(&output));
    }
    // One that is gone says no cluster: a person does. What was never taken has nothing in force.
    fs::remove_file(place.path().join("cluster.yaml")).expect("removed");
    let gone = place.run(&["status", "--no-proof", "-f", "cluster.yaml"]);
    assert_eq!(gone.status.code(), Some(1), "{}", stdout(&gone));
    let named = ["status", "--no-proof", "--cluster", "main", "-f", "cluster.yaml"];
    let text = stdout(&place.run(&named));
    assert!(text.contains(note) && text.contains("read cluster.yaml"), "{text}");
    fs::write(place.path().join("other.yaml"), broken()).expect("written");
    let other = place.run(&["status", "-f", "other.yaml"]);
    assert_eq!(other.status.code(), Some(1), "{}", stdout(&other));
}

#[test]
fn a_cluster_that_the_path_was_of_before_is_not_gone_on_with() {
    let place = Place::taken();
    let name = |name: &str| good().replacen("name: main", &format!("name: {name}"), 1);
    assert_ne!(name("second"), good(), "or nothing is tested");
    place.write(&name("second"));
    assert_eq!(place.run(&["-f", "cluster.yaml"]).status.code(), Some(3));
    place.write(&name("second").replace("kind: PostgresCluster", "kind: PostgresClutter"));
    let text = stdout(&place.run(&["status", "--no-proof", "-f", "cluster.yaml"]));
    assert!(text.starts_with("Cluster second\n"), "{text}");
    let first = place.run(&["status", "--no-proof", "--cluster", "main", "-f", "cluster.yaml"]);
    assert_eq!(first.status.code(), Some(1), "{}", stdout(&first));
    // One that cannot be read does not serve, and nothing of it is shown.
    let [kept] = place.kept().try_into().expect("one");
    fs::write(&kept, "torn, with hunter2hunter2").expect("written");
    let torn = stderr(&place.run(&["status", "--no-proof", "-f", "cluster.yaml"]));
    assert!(torn.contains("PostgresClutter") && torn.contains("is damaged"), "{torn}");
    assert!(!torn.contains("hunter2"), "{torn}");
}

#[test]
fn a_broken_file_of_another_cluster_does_not_steer_the_one_before() {
    let place = Place::taken();
    let note = "in force is what was taken of it";
    let went_on = |arguments: &[&str]| {
        let output = place.run(&[arguments, &["-f", "cluster.yaml"]].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code() == Some(1), !said.contains(note), "{said}");
        said.contains(note)
    };
    // It says that it is another's, whatever was asked for.
    place.write(&broken().replacen("name: main", "name: staging", 1));
    let steering: [&[&str]; 4] = [&["pause"], &["psql"], &["events"], &["switchover"]];
    for command in steering {
        assert!(!went_on(command), "{command:?}");
        assert!(!went_on(&[command, &["--cluster", "main"]].concat()), "{command:?}");
    }
    // It does not say whose it is: a person does.
    for text in ["", "{{ broken", &broken().replacen("name: main", "name: {{ name }}", 1)] {
        place.write(text);
        let output = place.run(&["events", "-f", "cluster.yaml"]);
        assert!(stderr(&output).contains("--cluster"), "{}", stderr(&output));
        assert!(!went_on(&["events"]), "{text}");
        assert!(went_on(&["events", "--cluster", "main"]), "{text}");
        assert!(!went_on(&["events", "--cluster", "staging"]), "{text}");
    }
    place.write(&broken());
    assert!(went_on(&["events"]));
}

#[test]
fn a_folder_that_is_gone_does_not_look_for_secrets_in_its_parent() {
    let place = Place::taken();
    let (folder, away) = (place.path().join("prod"), place.path().join("away"));
    fs::create_dir(&folder).expect("made");
    fs::write(folder.join("main.yaml"), good()).expect("written");
    fs::copy(place.path().join("secrets.yaml"), folder.join("secrets.yaml")).expect("copied");
    assert_eq!(place.run(&["-f", "prod"]).status.code(), Some(3));
    let asked = ["status", "--no-proof", "--cluster", "main", "-f", "prod"];
    fs::write(folder.join("main.yaml"), broken()).expect("written");
    let text = stdout(&place.run(&asked));
    assert!(text.contains("in force is what was taken of it"), "{text}");
    // The parent has a file of that name, too: it may be another cluster's.
    fs::rename(&folder, &away).expect("renamed");
    let gone = place.run(&asked);
    assert_eq!(gone.status.code(), Some(1), "{}", stdout(&gone));
    assert!(stderr(&gone).contains("prod is gone, where its secrets are"), "{}", stderr(&gone));
    fs::rename(&away, &folder).expect("renamed");
    let text = stdout(&place.run(&asked));
    assert!(text.contains("in force is what was taken of it"), "{text}");
}

#[test]
fn an_operator_that_starts_meanwhile_only_looks_at_what_was_in_force() {
    let place = Place::taken();
    place.write(&broken());
    let watching = place.watch();
    let said = place.await_said("the last good one stays in force");
    let looks = "nothing is changed until the file is good";
    assert!(said.contains("PostgresClutter") && said.contains(looks), "{said}");
    // It looks all the same, and asks nobody for the lease.
    let shown = place.await_shown("ByBrokenFile");
    assert!(shown.contains("node1"), "{shown}");
    assert!(shown.contains(&format!("\"waits\":\"{looks}")), "{shown}");
    let events = place.events();
    assert!(events.contains("the desired state was refused"), "{events}");
    // Mended, it is taken, and is in force for whoever comes next.
    let text = good().replace("apiVersion: ", "# mended\napiVersion: ");
    place.write(&text);
    let until = Instant::now() + Duration::from_secs(30);
    let [kept] = place.kept().try_into().expect("one");
    while !fs::read_to_string(&kept).expect("read").contains("# mended") {
        assert!(Instant::now() < until, "the mended file is not taken");
        std::thread::sleep(Duration::from_millis(100));
    }
    // From then on it may act: the lease is asked for.
    place.await_shown("\"waits\":\"0 of 3 servers answer");
    // Broken while it is watched, it says so as well, and who starts then has the mended one.
    place.write(&broken());
    let until = Instant::now() + Duration::from_secs(30);
    while place.events().matches("was refused").count() < 2 {
        assert!(Instant::now() < until, "{}", place.events());
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(watching);
    assert!(fs::read_to_string(&kept).expect("read").contains("# mended"));
}

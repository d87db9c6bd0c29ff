//! The lab: its servers, the specification for it, the binary under test, and what to look at
//! when something fails.

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use super::{Ran, canary::Secrets, run::Job, sql::Login};

/// The longest that a run of the binary may take on a machine that is busy.
const RUN: Duration = Duration::from_secs(420);
/// A command in a server.
const SHELL: Duration = Duration::from_secs(120);

/// What is looked at after a failure; a second one would end the run without a word.
const DIAGNOSIS: Duration = Duration::from_secs(30);

/// A lab of real servers.
pub(crate) struct Lab {
    root: PathBuf,
    bin: PathBuf,
    name: String,
    /// What `lab.json` says.
    pub(crate) info: reconcile_lab::Lab,
}

impl Lab {
    /// The lab that all tests but one share.
    pub(crate) fn shared() -> Self {
        Self::up(&Self::shared_name(), &[])
    }

    /// Its name. `cargo xtask test` names it after its checkout, for a lab belongs to one folder.
    pub(crate) fn shared_name() -> String {
        env::var("RECONCILE_LAB").unwrap_or_else(|_| "e2e".to_owned())
    }

    /// Has a lab run.
    pub(crate) fn up(name: &str, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is a member's folder");
        let bin = env::var_os("RECONCILE_BIN")
            .map_or_else(|| root.join("target/debug/reconcile"), PathBuf::from);
        assert!(bin.exists(), "no binary at {}: `cargo build -p reconcile`", bin.display());
        let command = lab_command(root, &bin, name, &[&["up"], arguments].concat());
        Job::start(command).wait(RUN).expect(0);
        Self { info: info(root, name), root: root.to_owned(), bin, name: name.to_owned() }
    }

    /// Runs `reconcile lab …` on this lab.
    #[track_caller]
    pub(crate) fn lab(&self, arguments: &[&str]) -> Ran {
        Job::start(lab_command(&self.root, &self.bin, &self.name, arguments)).wait(RUN).expect(0)
    }

    /// Every server back to bare.
    #[track_caller]
    pub(crate) fn reset(&mut self) {
        let ran = self.lab(&["reset"]);
        self.info = info(&self.root, &self.name);
        println!("reset: {:.1} s", ran.took.as_secs_f64());
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a script on this machine with the outer engine's client.
    #[track_caller]
    pub(crate) fn engine(script: &str) -> String {
        let mut command = Command::new("bash");
        command.args(["-c", script]).env("DOCKER_HOST", "unix:///var/run/docker.sock");
        Job::start(command).wait(SHELL).expect(0).stdout
    }

    /// The lab's folder; specifications and what belongs to them go there.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join(".lab").join(&self.name)
    }

    /// When the binary under test was built.
    pub(crate) fn binary_changed(&self) -> Option<std::time::SystemTime> {
        fs::metadata(&self.bin).and_then(|file| file.modified()).ok()
    }

    /// Names of the servers.
    pub(crate) fn nodes(&self) -> Vec<&str> {
        self.info.servers.iter().map(|server| server.name.as_str()).collect()
    }

    /// Address of a server.
    #[track_caller]
    pub(crate) fn address(&self, node: &str) -> Ipv4Addr {
        self.info.server(node).unwrap_or_else(|error| panic!("{error}")).address
    }

    /// `examples/lab.yaml` with this lab's addresses and folder, and quick updates.
    pub(crate) fn example(&self) -> String {
        let text = fs::read_to_string(self.root.join("examples/lab.yaml"))
            .expect("the example of the lab is committed");
        let (_, rest) = text.split_once("name: node1, address: ").expect("it names node1");
        let (prefix, _) = rest.split_once("11 ").expect("node1 is at .11");
        let [a, b, c, _] = self.info.gateway.octets();
        let there = |line: &str| {
            let server = line.trim_start().starts_with("- { name: node");
            !server || self.nodes().iter().any(|node| line.contains(&format!("name: {node},")))
        };
        let text = text.replace(prefix, &format!("{a}.{b}.{c}.")).replace("../.lab/lab/", "");
        let lines = text.lines().filter(|line| there(line)).map(|line| format!("{line}\n"));
        // By default an update lets each of three tasks drain for 28 s, watches it for 20 s and
        // rests for 10 s.
        let quick = "  swarm:\n    deploy:\n      stopGracePeriod: 5s\n      update: { delay: 1s, monitor: 5s }\n";
        lines.chain([quick.to_owned()]).collect()
    }

    /// Writes a specification into the lab's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, text).expect("the lab's folder is writable");
        path
    }

    /// The specification as the example has it.
    pub(crate) fn spec(&self) -> PathBuf {
        self.write("cluster.yaml", &self.example())
    }

    /// The same with synchronous replication: what was acknowledged outlives the primary.
    pub(crate) fn synchronous(&self) -> PathBuf {
        let text = self.example();
        let with = text.replace("  patroni:\n", "  patroni:\n    synchronous: { mode: \"on\" }\n");
        assert_ne!(with, text, "the example has a section for Patroni");
        self.write("synchronous.yaml", &with)
    }

    /// Runs the binary on a specification.
    #[track_caller]
    pub(crate) fn reconcile(&self, spec: &Path, arguments: &[&str]) -> Ran {
        self.start(spec, arguments).wait(RUN)
    }

    /// Starts the binary on a specification.
    #[track_caller]
    pub(crate) fn start(&self, spec: &Path, arguments: &[&str]) -> Job {
        let mut command = Command::new(&self.bin);
        command.current_dir(&self.root).args(arguments).arg("-f").arg(spec);
        // Journal and lock of this lab's cluster, apart from any other of that name.
        command.env("RECONCILE_STATE_DIR", self.dir().join("state"));
        Job::start(command)
    }

    /// The binary on a specification, to be started by somebody else.
    pub(crate) fn command(&self, spec: &Path) -> Command {
        let mut command = Command::new(&self.bin);
        command.current_dir(&self.root).env("RECONCILE_FILE", spec);
        command.env("RECONCILE_STATE_DIR", self.dir().join("state"));
        command
    }

    /// The workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> &Path {
        &self.bin
    }

    /// The plan as JSON.
    #[track_caller]
    pub(crate) fn plan(&self, spec: &Path) -> Value {
        json(&self.reconcile(spec, &["plan", "-o", "json"]).expect(0))
    }

    /// Has the secrets of a specification exist, and reads them.
    #[track_caller]
    pub(crate) fn secrets(&self, spec: &Path) -> Secrets {
        self.reconcile(spec, &["secrets", "init"]).expect(0);
        Secrets::read(&self.dir().join("secrets.yaml"))
    }

    /// Has the example's cluster serve, by whatever way is needed, and gives its specification.
    pub(crate) fn converged(&mut self) -> PathBuf {
        let spec = self.spec();
        self.secrets(&spec);
        let ran = self.reconcile(&spec, &[]);
        if ran.code != Some(0) {
            println!("the servers are in no state to go on from, so they are reset:\n{ran}");
            self.reset();
            self.reconcile(&spec, &[]).expect(0);
        }
        spec
    }

    /// Runs a script as root on a server; fails with all that it said unless it ends with 0.
    #[track_caller]
    pub(crate) fn sh(&self, node: &str, script: &str) -> String {
        self.try_sh(node, script).expect(0).stdout
    }

    /// Runs a script as root on a server.
    #[track_caller]
    pub(crate) fn try_sh(&self, node: &str, script: &str) -> Ran {
        self.start_sh(node, script).wait(SHELL)
    }

    /// Starts a script as root on a server.
    #[track_caller]
    pub(crate) fn start_sh(&self, node: &str, script: &str) -> Job {
        let server = self.info.server(node).unwrap_or_else(|error| panic!("{error}"));
        let mut command = docker();
        command.args(["exec", &server.container, "bash", "-c", script]);
        Job::start(command)
    }

    /// A way into the database as the application.
    pub(crate) fn login(&self, node: &str, port: u16, secrets: &Secrets) -> Login {
        Login {
            address: self.address(node),
            port,
            user: "app".to_owned(),
            password: secrets.value("app-password").to_owned(),
            database: "auth".to_owned(),
        }
    }

    /// Patroni's members by name with role and state, as the first server that answers sees them.
    pub(crate) fn members(&self) -> Result<Vec<(String, String, String)>, String> {
        let node = self.nodes()[0];
        let url = format!("http://{}:8008/cluster", self.address(node));
        let ran = self.try_sh(node, &format!("curl -sS -m 3 {url}"));
        let cluster: Value =
            serde_json::from_str(&ran.stdout).map_err(|_| format!("no cluster in\n{ran}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let members = cluster["members"].as_array().ok_or("no members")?;
        Ok(members
            .iter()
            .map(|member| (text(&member["name"]), text(&member["role"]), text(&member["state"])))
            .collect())
    }

    /// The server whose database is the primary.
    pub(crate) fn primary(&self) -> String {
        super::until("a primary", super::PATIENCE, || {
            let members = self.members()?;
            let leader = members.iter().find(|(_, role, _)| role == "leader");
            leader.map(|(name, ..)| name.clone()).ok_or(format!("{members:?}"))
        })
    }

    /// Waits until `status` says that the cluster is ready and nothing is left to do.
    #[track_caller]
    pub(crate) fn await_ready(&self, spec: &Path) -> Value {
        super::until("the cluster to be ready", super::PATIENCE, || {
            let ran = self.reconcile(spec, &["status", "-o", "json"]);
            let status: Value =
                serde_json::from_str(&ran.stdout).map_err(|_| format!("no status in\n{ran}"))?;
            let ready = condition(&status, "Ready") == "True";
            let quiet = condition(&status, "Reconciling") == "False";
            if ready && quiet { Ok(status) } else { Err(ran.to_string()) }
        })
    }

    /// Prints what a person would look at first.
    #[expect(clippy::print_stderr, reason = "after the panic, so that a cut output shows that one")]
    fn diagnose(&self) {
        const LOOK: &str = "systemctl --no-pager --no-legend --failed
            systemctl show -p Id,ActiveState,SubState,UnitFileState,NRestarts etcd patroni docker | paste -sd' '
            patronictl -c /etc/patroni/patroni.yml list 2>&1 | head -n 12
            timeout 5 docker service ls 2>&1
            timeout 5 docker ps -a --format '{{.Names}} {{.Status}}' 2>&1 | cut -c1-120
            journalctl --no-pager -n 25 -u etcd -u patroni -u docker -o short-precise 2>&1 | cut -c1-240
            tail -n 5 /var/log/postgresql/*.log /var/lib/postgresql/*/main/log/*.log 2>/dev/null";
        const TASKS: &str = "for s in $(timeout 5 docker service ls -q); do
            timeout 5 docker service ps --no-trunc --format '{{.Name}} {{.Node}} {{.CurrentState}} {{.Error}}' $s
            done | head -n 40";
        for node in self.nodes() {
            eprintln!("=== {node}\n{}", self.start_sh(node, LOOK).wait_at_most(DIAGNOSIS).stdout);
        }
        let tasks = self.start_sh(self.nodes()[0], TASKS).wait_at_most(DIAGNOSIS);
        eprintln!("=== tasks\n{}", tasks.stdout);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.diagnose();
        }
    }
}

/// A lab of one test, taken away on every way out.
pub(crate) struct Once(pub(crate) Lab);

impl Drop for Once {
    fn drop(&mut self) {
        self.0.lab(&["down"]);
    }
}

/// A condition's status.
pub(crate) fn condition(status: &Value, kind: &str) -> String {
    let all = status["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = all.iter().find(|condition| condition["type"] == kind);
    found.and_then(|found| found["status"].as_str()).unwrap_or("absent").to_owned()
}

/// Standard output as JSON.
#[track_caller]
pub(crate) fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("no JSON: {error}\n{ran}"))
}

fn lab_command(root: &Path, bin: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(bin);
    command.current_dir(root).args(["lab", "--name", name]).args(arguments);
    command
}

fn info(root: &Path, name: &str) -> reconcile_lab::Lab {
    let dir = root.join(".lab");
    let options = reconcile_lab::LabOptions { name: name.to_owned(), dir, ..Default::default() };
    options.load().unwrap_or_else(|error| panic!("lab {name}: {error}"))
}

/// The client of the engine that the lab's servers run in.
fn docker() -> Command {
    let mut command = Command::new("/usr/bin/docker");
    command.env("DOCKER_HOST", "unix:///var/run/docker.sock").env_remove("DOCKER_CONTEXT");
    command
}

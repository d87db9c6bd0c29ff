//! The operator as a service of the Swarm (`stacks/operator.yml`), as its page says: an image from
//! Debian's packages, secrets of the Swarm, the file and its encrypted secrets from a Git host. It
//! keeps the cluster; and when its node dies it goes on from another manager.
//!
//! `RECONCILE_OPERATOR_KILLS`: how often its node is killed, 1.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{GitHost, Lab, PATIENCE, Signer, figure, image, seconds, setting, until},
    t54_git::{awaits, committed, with_value},
};

const FILE: &str = "/etc/patroni/patroni.yml";
/// The Swarm misses a node after 15 s or so; the lease lasts 15 s; then it is cloned, read, looked at.
const MOVES: Duration = Duration::from_secs(180);

/// The operator's service, taken away with the test.
struct Service<'a> {
    lab: &'a Lab,
    manager: String,
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        const REMOVE: &str = "docker stack rm reconcile
            for kind in secret config; do docker $kind ls -q --filter name=reconcile- | xargs -r docker $kind rm; done
            until [ -z \"$(docker ps -q --filter name=reconcile_operator)\" ]; do sleep 0.5; done; true";
        drop(self.lab.try_sh(&self.manager, REMOVE));
    }
}

impl Service<'_> {
    /// The node that runs its task, as a manager that lives sees it, and the task's state.
    fn task(&self, ask: &str) -> Result<(String, String), String> {
        let script = "docker service ps reconcile_operator --filter desired-state=running --format '{{.Node}} {{.CurrentState}}'";
        let ran = self.lab.try_sh(ask, script);
        let line = ran.stdout.lines().next().ok_or(format!("no task: {ran}"))?;
        let (node, state) = line.split_once(' ').ok_or(line)?;
        Ok((node.to_owned(), state.to_owned()))
    }

    /// What its container on this node tells of itself.
    fn status(&self, node: &str) -> Result<Value, String> {
        let script = "c=$(docker ps -q --filter name=reconcile_operator) && docker exec $c sh -c \
            'curl -fsSk -H \"Authorization: Bearer $(cat /run/secrets/listen-token)\" https://127.0.0.1:7432/status'";
        let ran = self.lab.try_sh(node, script);
        serde_json::from_str(&ran.stdout).map_err(|_| ran.to_string())
    }

    fn log(&self, node: &str) -> String {
        self.lab
            .try_sh(node, "docker service logs --raw reconcile_operator 2>&1 | tail -n 60")
            .stdout
    }
}

/// Takes the specification to the Git host, encrypted secrets beside it.
fn publish(lab: &Lab, host: &GitHost) -> String {
    let dir = lab.dir().display().to_string();
    let text = committed(lab)
        .replace(&format!("{dir}/secrets.yaml"), "secrets.age")
        .replace(&format!("{dir}/id_ed25519"), "/run/secrets/ssh-key");
    // Pinned in the file, so that no further file is needed.
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.contains("knownHosts:")) {
        let server = lab.info.servers.iter().find(|s| line.contains(&format!("name: {},", s.name)));
        lines.push(match server {
            Some(server) => {
                let key = server.host_key.as_deref().expect("a running server has a key");
                line.replace(" }", &format!(", hostKey: \"{}\" }}", key.trim()))
            }
            None => line.to_owned(),
        });
    }
    let text = lines.join("\n") + "\n";
    let key = format!("{dir}/age-identity");
    let made = host.sh("rm -f /k; age-keygen -o /k 2>/dev/null; cat /k");
    fs::write(&key, &made).expect("written");
    let clear =
        fs::read_to_string(lab.dir().join("secrets.yaml")).expect("`secrets init` wrote it");
    let sealed = host.sh(&format!("printf %s '{clear}' | age -a -r $(age-keygen -y /k)"));
    assert!(sealed.starts_with("-----BEGIN AGE"), "{sealed}");
    host.repository.commit("secrets", Signer::Ada, "secrets.age", sealed);
    host.repository.commit("as it is", Signer::Ada, "cluster.yaml", &text);
    host.repository.push(&[]);
    text
}

/// Builds the image and pushes it to the lab's registry.
fn push_image(lab: &Lab) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member's folder");
    let context = lab.dir().join("operator-image");
    fs::create_dir_all(&context).expect("made");
    fs::copy(lab.binary(), context.join("reconcile")).expect("copied");
    fs::copy(root.join("stacks/operator.Dockerfile"), context.join("Dockerfile")).expect("copied");
    let built = image(&context, "operator");
    // A server's engine knows the lab's registry; that of this machine need not.
    let reference = format!("{}:5000/reconcile:test", lab.info.gateway);
    let first = lab.nodes()[0];
    let server = lab.info.server(first).unwrap_or_else(|error| panic!("{error}"));
    let archive = context.join("image.tar").display().to_string();
    Lab::engine(&format!(
        "docker save {built} -o {archive} && docker cp {archive} {}:/var/tmp/operator.tar && rm {archive}",
        server.container
    ));
    lab.sh(
        first,
        &format!(
            "docker load -qi /var/tmp/operator.tar >/dev/null && rm /var/tmp/operator.tar
             docker tag {built} {reference} && docker push -q {reference} >/dev/null"
        ),
    );
    reference
}

/// Makes the Swarm's secrets and configs, and deploys the stack.
fn deploy<'a>(lab: &'a Lab, host: &GitHost, reference: &str) -> Service<'a> {
    let manager = lab.nodes()[0].to_owned();
    let service = Service { lab, manager: manager.clone() };
    drop(lab.try_sh(&manager, "docker stack rm reconcile >/dev/null 2>&1"));
    let container =
        lab.info.server(&manager).unwrap_or_else(|error| panic!("{error}")).container.clone();
    let folder = lab.dir().join("operator-secrets");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(folder.join("configs")).expect("made");
    let copy = |from: &Path, to: &str| {
        fs::copy(from, folder.join(to)).expect("copied");
    };
    copy(&lab.dir().join("id_ed25519"), "ssh-key");
    copy(&lab.dir().join("age-identity"), "age-identity");
    copy(&host.file("ada"), "git-ssh-key");
    copy(&host.file("known_hosts"), "configs/git-known-hosts");
    copy(&host.repository.signers(), "configs/allowed-signers");
    fs::write(folder.join("webhook-secret"), "a-webhook-secret-of-the-tests").expect("written");
    fs::write(folder.join("listen-token"), "a-token-for-the-status-page").expect("written");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member's folder");
    copy(&root.join("stacks/operator.yml"), "operator.yml");
    Lab::engine(&format!("docker cp {}/. {container}:/var/tmp/operator-stack", folder.display()));
    lab.sh(
        &manager,
        &format!(
            "cd /var/tmp/operator-stack
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=operator -keyout listen-key -out listen-cert 2>/dev/null
             for s in ssh-key age-identity git-ssh-key webhook-secret listen-token listen-cert listen-key; do
               docker secret rm reconcile-$s >/dev/null 2>&1; docker secret create reconcile-$s $s >/dev/null || exit 1
             done
             for c in git-known-hosts allowed-signers; do
               docker config rm reconcile-$c >/dev/null 2>&1; docker config create reconcile-$c configs/$c >/dev/null || exit 1
             done
             IMAGE={reference} SOURCE='{}' docker stack deploy -c operator.yml reconcile
             rm -r /var/tmp/operator-stack",
            host.ssh()
        ),
    );
    service
}

/// Waits until it says that all is well, and gives its node.
fn await_well(service: &Service<'_>, ask: &str, patience: Duration) -> String {
    until("the operator's service to be well", patience, || {
        let (node, state) = service.task(ask)?;
        if !state.starts_with("Running") {
            return Err(format!("{node}: {state}\n{}", service.log(ask)));
        }
        let status = service.status(&node)?;
        let in_force = status["source"]["state"] == "inForce";
        let passes = status["passes"]["number"].as_u64().unwrap_or_default();
        let proven = status["proof"]["holds"] == true;
        if in_force && proven && passes > 0 { Ok(node) } else { Err(status.to_string()) }
    })
}

fn heals(service: &Service<'_>, node: &str) {
    service.lab.sh(node, &format!("chmod 644 {FILE}"));
    until("the drift to be healed", PATIENCE, || {
        let mode = service.lab.sh(node, &format!("stat -c %a {FILE}"));
        (mode.trim() == "600").then_some(()).ok_or(service.log(node))
    });
}

#[test]
fn it_runs_in_the_swarm_that_it_keeps() {
    let mut lab = Lab::shared();
    lab.converged();
    let host = GitHost::start(&lab);
    let text = publish(&lab, &host);
    let reference = push_image(&lab);
    let service = deploy(&lab, &host, &reference);
    let first = lab.nodes()[0].to_owned();
    let mut node = await_well(&service, &first, PATIENCE);
    println!("it runs on {node}");
    let mounts = lab.sh(&node, "docker inspect --format '{{range .Mounts}}{{.Destination}} {{end}}' $(docker ps -q --filter name=reconcile_operator)");
    assert!(!mounts.contains("docker.sock"), "{mounts}");
    for other in lab.nodes() {
        // Whatever a task left there would be taken for what is in force by the next one.
        let kept = lab.sh(other, "docker volume ls -q --filter name=reconcile");
        assert_eq!(kept, "", "a state outlives its task on {other}");
    }
    until("the health check to hold", PATIENCE, || {
        let state =
            lab.sh(&node, "docker ps --filter name=reconcile_operator --format '{{.Status}}'");
        state.contains("(healthy)").then_some(()).ok_or(state)
    });
    heals(&service, &first);

    println!("a push is taken from the Git host, over SSH, by its timer");
    host.repository.commit("changed", Signer::Ada, "cluster.yaml", with_value(&text, 1501));
    host.repository.push(&[]);
    awaits(&lab, &first, 1501).wait(PATIENCE).expect(0);

    for _ in 0..setting("RECONCILE_OPERATOR_KILLS", 1) {
        let other = lab.nodes().into_iter().find(|name| *name != node).expect("another").to_owned();
        println!("power cut of {node}, which runs it");
        lab.lab(&["stop", &node]);
        let began = Instant::now();
        let now = until("it to run elsewhere", MOVES, || {
            let (now, state) = service.task(&other)?;
            if now != node && state.starts_with("Running") {
                Ok(now)
            } else {
                Err(format!("{now} {state}"))
            }
        });
        // Service as a whole is not proven while a server is off; that it keeps the others is.
        heals(&service, &other);
        figure(
            "power cut of the operator's node → another manager's operator heals a drift",
            "≤ 180 s",
            &seconds(began.elapsed()),
        );
        println!("it runs on {now}");
        lab.lab(&["start", &node]);
        // By its own word: it follows another file than the lab's.
        await_well(&service, &other, MOVES);
        node = now;
    }
}

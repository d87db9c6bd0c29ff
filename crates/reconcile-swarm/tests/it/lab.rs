//! Against real engines: `RECONCILE_LAB=swarmdev cargo test -p reconcile-swarm -- --ignored lab`
//! with a lab of that name with two fresh servers up.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use reconcile_core::{
    action::{SwarmAction, SwarmFile},
    model::{
        Content, FileMount, HostName, NetworkAttachment, NetworkSpec, Observation, PublishedPort,
        ServiceSpec,
    },
    ports::Retry,
    probe::SwarmRequest,
};
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use reconcile_swarm::{CLUSTER, SwarmClient};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::fake::blank;

/// Reaches the engine inside a lab server through the outer engine.
struct ExecDialer(String);

impl Dialer for ExecDialer {
    fn dial(&self, host: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>> {
        let container = format!("{}-{host}", self.0);
        let host = host.to_owned();
        async move {
            let fail = |error: io::Error| DialError { host, target, cause: error.to_string() };
            let mut child = Command::new("docker")
                .args(["exec", "-i", &container, "docker", "system", "dial-stdio"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(fail)?;
            let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            Ok(Box::new(Exec { _child: child, stdin, stdout }) as BoxStream)
        }
        .boxed()
    }
}

struct Exec {
    _child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl AsyncRead for Exec {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Exec {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

struct Lab {
    name: String,
    client: SwarmClient,
    registry: String,
}

impl Lab {
    async fn apply(&self, host: &str, what: &str, action: SwarmAction) {
        let start = Instant::now();
        let done = self.client.apply(&HostName::new(host), &action, Duration::from_secs(90)).await;
        println!("{what}: {done:?} in {:?}", start.elapsed());
        done.unwrap();
    }

    async fn refused(
        &self,
        host: &str,
        what: &str,
        action: SwarmAction,
        seconds: u64,
    ) -> (String, Retry) {
        let start = Instant::now();
        let limit = Duration::from_secs(seconds);
        let error = self.client.apply(&HostName::new(host), &action, limit).await.unwrap_err();
        println!("{what}: {error} ({:?}) in {:?}", error.retry, start.elapsed());
        (error.cause, error.retry)
    }

    fn address(&self, host: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let container = format!("{}-{host}", self.name);
        let out = std::process::Command::new("docker")
            .args(["inspect", "-f", format, &container])
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([(CLUSTER.to_owned(), "demo".to_owned())])
}

fn file(name: &str, content: Content) -> SwarmFile {
    SwarmFile { name: name.to_owned(), content, labels: labels() }
}

const CONFIG: &str = "global\n  log stdout format raw local0\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\nfrontend f\n  bind :8080\n  http-request return status 200\n";

#[tokio::test]
#[ignore = "needs a lab of two fresh servers, named by RECONCILE_LAB"]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn a_real_swarm_from_nothing_to_a_rolled_back_update() {
    let name = std::env::var("RECONCILE_LAB").unwrap();
    let registry = std::env::var("RECONCILE_LAB_REGISTRY").unwrap();
    let lab = Lab { client: SwarmClient::new(Arc::new(ExecDialer(name.clone()))), name, registry };
    let (one, two) = (lab.address("node1"), lab.address("node2"));

    let init = SwarmAction::Init { advertise: one.clone(), labels: labels() };
    lab.apply("node1", "init", init.clone()).await;
    lab.apply("node1", "init again", init).await;
    let foreign = SwarmAction::Init {
        advertise: one.clone(),
        labels: BTreeMap::from([(CLUSTER.to_owned(), "other".to_owned())]),
    };
    assert_eq!(lab.refused("node1", "foreign init", foreign, 10).await.1, Retry::AfterChange);
    let mut more = labels();
    more.insert("com.docker.stack.namespace".to_owned(), "db-utils".to_owned());
    lab.apply("node1", "label", SwarmAction::Label { labels: more }).await;

    let join = SwarmAction::Join {
        advertise: two.clone(),
        manager: false,
        via: "node1".into(),
        remote: vec![format!("{one}:2377")],
    };
    lab.apply("node2", "join", join.clone()).await;
    lab.apply("node2", "join again", join).await;

    let network = NetworkSpec {
        name: "saasodoo-network".to_owned(),
        driver: "overlay".to_owned(),
        attachable: true,
        encrypted: false,
        subnet: None,
        labels: labels(),
    };
    lab.apply("node1", "network", SwarmAction::CreateNetwork(network.clone())).await;
    lab.apply("node1", "network again", SwarmAction::CreateNetwork(network)).await;
    let config = file("db_haproxy.cfg-1", Content::open(CONFIG));
    lab.apply("node1", "config", SwarmAction::CreateConfig(config.clone())).await;
    lab.apply("node1", "config again", SwarmAction::CreateConfig(config)).await;
    let other = file("db_haproxy.cfg-1", Content::open("other"));
    lab.refused("node1", "config with other content", SwarmAction::CreateConfig(other), 10).await;
    let broken = file("db_haproxy.cfg-2", Content::open("nonsense\n"));
    lab.apply("node1", "broken config", SwarmAction::CreateConfig(broken)).await;
    let secret = file("db_secret-1", Content::secret("canary"));
    lab.apply("node1", "secret", SwarmAction::CreateSecret(secret.clone())).await;
    lab.apply("node1", "secret again", SwarmAction::CreateSecret(secret)).await;

    let mount = |target: &str, source: &str| FileMount {
        target: target.to_owned(),
        source: source.to_owned(),
        uid: 10001,
        gid: 10001,
        mode: 0o444,
    };
    let mut spec = ServiceSpec {
        image: format!("{}/haproxy:2.6-1", lab.registry),
        command: ["haproxy", "-W", "-db", "-f", "/etc/haproxy.cfg"].map(str::to_owned).into(),
        user: "10001:10001".to_owned(),
        networks: vec![NetworkAttachment {
            network: "saasodoo-network".to_owned(),
            aliases: vec!["haproxy".to_owned()],
        }],
        ports: vec![PublishedPort { published: 18080, target: 8080 }],
        dnsrr: true,
        configs: vec![mount("/etc/haproxy.cfg", "db_haproxy.cfg-1")],
        secrets: vec![mount("userlist", "db_secret-1")],
        stop_signal: "SIGUSR1".to_owned(),
        labels: labels(),
        ..blank("db_haproxy")
    };
    let create = SwarmAction::CreateService { spec: spec.clone(), tasks: 2 };
    let request = SwarmRequest {
        services: BTreeSet::from(["db_haproxy".to_owned(), "db_host".to_owned()]),
        images: BTreeSet::from([spec.image.clone(), format!("{}/haproxy:none", lab.registry)]),
    };
    let via = HostName::new("node1");
    let facts = lab.client.observe(&via, &request).await.unwrap();
    println!("before: {facts:#?}");
    let mut events = lab.client.events(&via).await.unwrap();
    lab.apply("node1", "create", create.clone()).await;
    lab.apply("node1", "create again", create).await;
    println!("first event: {:?}", events.next().await);
    let host = ServiceSpec {
        networks: vec![NetworkAttachment { network: "host".to_owned(), aliases: vec![] }],
        ports: vec![],
        dnsrr: false,
        ..ServiceSpec { name: "db_host".to_owned(), ..spec.clone() }
    };
    lab.apply("node1", "host network", SwarmAction::CreateService { spec: host.clone(), tasks: 2 })
        .await;

    let start = Instant::now();
    let facts = lab.client.observe(&via, &request).await.unwrap();
    println!("observed in {:?}", start.elapsed());
    let start = Instant::now();
    lab.client.observe(&via, &request).await.unwrap();
    println!("observed again in {:?}", start.elapsed());
    let fact = &facts.services["db_haproxy"];
    println!("after: {:#?} {:#?}", facts.services, facts.images);
    spec.digest.clone_from(&fact.spec.digest);
    assert!(spec.digest.is_some());
    assert_eq!(fact.spec, spec);
    assert_eq!(facts.services["db_host"].spec, ServiceSpec { digest: spec.digest.clone(), ..host });
    assert_eq!(facts.images[&spec.image], Observation::Known(spec.digest.clone().unwrap()));
    assert_eq!(fact.tasks.iter().filter(|task| task.state == "running").count(), 2);

    // A label alone restarts nothing, a new image replaces every task.
    let version = fact.version;
    spec.labels.insert("note".to_owned(), "1".to_owned());
    let update = SwarmAction::UpdateService { spec: spec.clone(), version, tasks: 2 };
    lab.apply("node1", "update of a label", update.clone()).await;
    lab.apply("node1", "update of a label again", update).await;
    let version = lab.client.observe(&via, &request).await.unwrap().services["db_haproxy"].version;
    spec.image = format!("{}/haproxy:2.6-2", lab.registry);
    spec.digest = None;
    let stale = SwarmAction::UpdateService { spec: spec.clone(), version: version - 1, tasks: 2 };
    assert_eq!(lab.refused("node1", "stale update", stale, 10).await.1, Retry::Soon);
    let update = SwarmAction::UpdateService { spec: spec.clone(), version, tasks: 2 };
    lab.apply("node1", "update of the image", update).await;

    let version = lab.client.observe(&via, &request).await.unwrap().services["db_haproxy"].version;
    let bad = ServiceSpec {
        configs: vec![mount("/etc/haproxy.cfg", "db_haproxy.cfg-2")],
        ..spec.clone()
    };
    let update = SwarmAction::UpdateService { spec: bad, version, tasks: 2 };
    let (cause, retry) = lab.refused("node1", "update to a broken config", update, 90).await;
    assert!(cause.contains("rolled the update back"), "{cause}");
    assert_eq!(retry, Retry::AfterChange);
    lab.apply(
        "node1",
        "await",
        SwarmAction::AwaitService { name: "db_haproxy".to_owned(), tasks: 2 },
    )
    .await;

    // What a rollback left behind does not count against the next update.
    let version = lab.client.observe(&via, &request).await.unwrap().services["db_haproxy"].version;
    spec.labels.insert("note".to_owned(), "2".to_owned());
    let update = SwarmAction::UpdateService { spec: spec.clone(), version, tasks: 2 };
    lab.apply("node1", "update after a rollback", update).await;

    let missing = ServiceSpec {
        image: format!("{}/haproxy:none", lab.registry),
        digest: None,
        ..ServiceSpec { name: "db_none".to_owned(), ..spec.clone() }
    };
    let create = SwarmAction::CreateService { spec: missing, tasks: 2 };
    assert_eq!(lab.refused("node1", "missing image", create, 20).await.1, Retry::AfterChange);
    let loops = ServiceSpec {
        command: ["sh", "-c", "sleep 0.3; exit 3"].map(str::to_owned).into(),
        ports: vec![],
        ..ServiceSpec { name: "db_loops".to_owned(), ..spec.clone() }
    };
    let create = SwarmAction::CreateService { spec: loops, tasks: 2 };
    let (cause, retry) = lab.refused("node1", "a crash loop", create, 15).await;
    assert_eq!(retry, Retry::Later);
    assert!(cause.contains("non-zero exit (3)"), "{cause}");
    let clash = ServiceSpec { name: "db_clash".to_owned(), ..spec.clone() };
    let create = SwarmAction::CreateService { spec: clash, tasks: 2 };
    let (cause, _) = lab.refused("node1", "port in use", create, 8).await;
    assert!(cause.contains("host-mode port already in use"), "{cause}");

    let used = SwarmAction::RemoveConfig { name: "db_haproxy.cfg-1".to_owned() };
    assert_eq!(lab.refused("node1", "remove used config", used, 10).await.1, Retry::Later);
    // A config that only the previous specification names goes, and a rollback with it.
    let unused = SwarmAction::RemoveConfig { name: "db_haproxy.cfg-2".to_owned() };
    lab.apply("node1", "remove config of the previous specification", unused.clone()).await;
    lab.apply("node1", "remove it again", unused).await;
    let node_id = facts.nodes.iter().find(|(_, node)| !node.manager).unwrap().0.clone();
    lab.apply("node1", "promote", SwarmAction::SetRole { node_id: node_id.clone(), manager: true })
        .await;
    lab.apply("node1", "demote", SwarmAction::SetRole { node_id, manager: false }).await;
}

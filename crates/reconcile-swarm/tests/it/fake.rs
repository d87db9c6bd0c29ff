//! A fake engine: scripted answers over HTTP on in-memory streams.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use reconcile_core::model::{ServiceMode, ServiceSpec, UpdateRule};
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use reconcile_swarm::SwarmClient;
use serde_json::{Value, json};

/// What the engine was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path with version, without the query.
    pub(crate) line: String,
    pub(crate) query: String,
    pub(crate) body: String,
}

#[derive(Default)]
struct Script {
    /// Answers by `METHOD /path` without the version; the last one stays.
    answers: BTreeMap<String, VecDeque<(u16, String)>>,
    asked: Vec<Asked>,
    dials: usize,
    down: Option<String>,
}

/// The fake; clones share one state.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Script>>);

impl Fake {
    /// A manager of an empty Swarm of cluster `demo` on the oldest API.
    pub(crate) fn manager() -> Self {
        let fake = Self::default();
        fake.on("GET /version", 200, json!({"ApiVersion": "1.41", "MinAPIVersion": "1.12"}));
        fake.on(
            "GET /swarm",
            200,
            json!({
                "ID": "swarm-1", "Version": {"Index": 7},
                "Spec": {"Name": "default", "Labels": {"reconcile.io/cluster": "demo"}, "Future": {"x": 1}},
                "JoinTokens": {"Worker": "SWMTKN-worker-canary", "Manager": "SWMTKN-manager-canary"},
            }),
        );
        fake.on(
            "GET /nodes",
            200,
            json!([node("n1", "node1", "ready"), node("n2", "node2", "ready"),]),
        );
        for list in ["networks", "configs", "secrets", "services", "tasks"] {
            fake.on(&format!("GET /{list}"), 200, json!([]));
        }
        fake
    }

    /// Adds an answer; of several for one request each is given once, the last for ever.
    pub(crate) fn on(&self, request: &str, status: u16, body: Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut script = self.0.lock().unwrap();
        script.answers.entry(request.to_owned()).or_default().push_back((status, body));
    }

    /// Answers with text as it is.
    pub(crate) fn raw(&self, request: &str, body: &str) {
        let mut script = self.0.lock().unwrap();
        script.answers.entry(request.to_owned()).or_default().push_back((200, body.to_owned()));
    }

    /// Replaces all answers for a request.
    pub(crate) fn now(&self, request: &str, status: u16, body: Value) {
        self.0.lock().unwrap().answers.remove(request);
        self.on(request, status, body);
    }

    pub(crate) fn go_down(&self, cause: &str) {
        self.0.lock().unwrap().down = Some(cause.to_owned());
    }

    pub(crate) fn dials(&self) -> usize {
        self.0.lock().unwrap().dials
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().asked.clone()
    }

    /// The bodies sent for a request.
    pub(crate) fn bodies(&self, request: &str) -> Vec<Value> {
        let (method, path) = request.split_once(' ').unwrap();
        let line = format!("{method} /v1.41{path}");
        let asked = self.asked();
        asked
            .iter()
            .filter(|asked| asked.line == line)
            .map(|asked| serde_json::from_str(&asked.body).unwrap())
            .collect()
    }

    pub(crate) fn client(&self) -> SwarmClient {
        SwarmClient::new(Arc::new(self.clone()))
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = head.uri.path();
        let plain = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
        let plain = if path == "/version" { path } else { plain.unwrap_or(path) };
        let key = format!("{} {plain}", head.method);
        let mut script = self.0.lock().unwrap();
        script.asked.push(Asked {
            line: format!("{} {path}", head.method),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let (status, body) = match script.answers.get_mut(&key) {
            Some(answers) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some(answers) => answers[0].clone(),
            None => (404, json!({"message": format!("no answer for {key}")}).to_string()),
        };
        Ok(Response::builder().status(status).body(Full::new(body.into())).unwrap())
    }
}

impl Dialer for Fake {
    fn dial(&self, host: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>> {
        let mut script = self.0.lock().unwrap();
        script.dials += 1;
        if let Some(cause) = script.down.clone() {
            let host = host.to_owned();
            return async move { Err(DialError { host, target, cause }) }.boxed();
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let fake = self.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| fake.clone().answer(request));
            let server = hyper::server::conn::http1::Builder::new();
            // A client that hangs up is no failure.
            drop(server.serve_connection(TokioIo::new(theirs), service).await);
        });
        async move { Ok(Box::new(ours) as BoxStream) }.boxed()
    }
}

/// A manager node.
pub(crate) fn node(id: &str, hostname: &str, state: &str) -> Value {
    json!({
        "ID": id, "Version": {"Index": 3},
        "Spec": {"Role": "manager", "Availability": "active", "Labels": {"keep": "me"}},
        "Description": {"Hostname": hostname},
        "Status": {"State": state, "Addr": "192.0.2.1"},
        "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "192.0.2.1:2377"},
    })
}

/// A task of the service `svc-1`.
pub(crate) fn task(
    id: &str,
    node: &str,
    created: &str,
    state: &str,
    desired: &str,
    err: &str,
    spec: &Value,
) -> Value {
    json!({
        "ID": id, "ServiceID": "svc-1", "NodeID": node, "CreatedAt": created, "Spec": spec,
        "DesiredState": desired, "Status": {"State": state, "Message": "started", "Err": err},
    })
}

/// A global service with nothing of its own.
pub(crate) fn blank(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        image: "registry.example/haproxy:2.6".to_owned(),
        digest: None,
        command: vec![],
        args: vec![],
        env: vec![],
        user: String::new(),
        mode: ServiceMode::Global,
        constraints: vec![],
        networks: vec![],
        ports: vec![],
        dnsrr: false,
        configs: vec![],
        secrets: vec![],
        stop_signal: String::new(),
        stop_grace_ms: 5_000,
        restart_delay_ms: 1_000,
        update: UpdateRule {
            parallelism: 1,
            delay_ms: 0,
            monitor_ms: 3_000,
            failure_action: "rollback".to_owned(),
            order: "stop-first".to_owned(),
        },
        init: false,
        labels: BTreeMap::from([("reconcile.io/cluster".to_owned(), "demo".to_owned())]),
        container_labels: BTreeMap::new(),
    }
}

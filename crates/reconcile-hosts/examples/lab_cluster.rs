//! Scratch: brings up etcd, Patroni and PostgreSQL on a lab through the actions.
#![expect(clippy::all, clippy::pedantic, clippy::print_stdout, clippy::unwrap_used, reason = "scratch")]

use std::{path::PathBuf, time::{Duration, Instant}};

use reconcile_core::{
    action::{DesiredFile, HostAction, PatroniAction, PatroniGoal, UnitVerb},
    model::{Claim, ClaimKind, Content, HostName, SecretText},
};
use reconcile_hosts::{HostTarget, Ssh};

async fn go(ssh: &Ssh, host: &HostName, action: HostAction) {
    let start = Instant::now();
    let result = ssh.apply(host, &action, Duration::from_secs(120)).await;
    match result {
        Ok(()) => println!("{host} ok {:?} {:.60?}", start.elapsed(), action),
        Err(e) => println!("{host} ERR {:?} {e:#?}", start.elapsed()),
    }
}
fn claim(kind: ClaimKind, name: &str) -> Claim { Claim { kind, name: name.into() } }
fn file(path: &str, text: String, mode: u32, owner: &str, secret: bool) -> HostAction {
    HostAction::WriteFile {
        file: DesiredFile { path: path.into(), content: if secret { Content::secret(text) } else { Content::open(text) }, mode, owner: owner.into(), group: owner.into() },
        before: (path == "/etc/default/etcd").then(|| "6c1f419ec2130bf1115873a9468089d6d1cafa2fd83f139acc437351a21f7678".to_owned()), claim: true, notify: None, cluster: "demo".into(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let lab = PathBuf::from(std::env::args().nth(1).unwrap());
    let state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(lab.join("lab.json")).unwrap()).unwrap();
    let nodes: Vec<(HostName, String)> = state["servers"].as_array().unwrap().iter().map(|s| (HostName::new(s["name"].as_str().unwrap()), s["address"].as_str().unwrap().to_owned())).collect();
    let ssh = Ssh::new(nodes.iter().map(|(n, a)| HostTarget {
        name: n.clone(), address: a.clone(), port: 22, user: "reconcile".into(), identity_file: Some(lab.join("id_ed25519")), agent: false, jump: None, host_key: None, known_hosts: Some(lab.join("known_hosts")), sudo: true,
    }));
    let initial = nodes.iter().map(|(n, a)| format!("{n}=http://{a}:2380")).collect::<Vec<_>>().join(",");
    let etcd_hosts = nodes.iter().map(|(_, a)| format!("{a}:2379")).collect::<Vec<_>>().join(",");
    let work = nodes.iter().enumerate().map(|(i, (n, a))| { let (ssh, initial, etcd_hosts) = (&ssh, &initial, &etcd_hosts); async move {
        go(ssh, n, HostAction::InstallPackages { packages: vec![("postgresql-common".into(), None)], cluster: "demo".into(), claims: vec![claim(ClaimKind::Package, "postgresql-common")], silence: vec![], start: vec![] }).await;
        go(ssh, n, HostAction::InstallPackages {
            packages: ["etcd-server", "etcd-client", "patroni", "postgresql-15", "python3-etcd", "curl"].map(|p| (p.to_owned(), None)).to_vec(),
            cluster: "demo".into(),
            claims: ["etcd-server", "patroni", "postgresql-15"].map(|p| claim(ClaimKind::Package, p)).to_vec(),
            silence: ["etcd.service", "patroni.service", "postgresql.service"].map(str::to_owned).to_vec(),
            start: vec!["docker.service".into()],
        }).await;
        go(ssh, n, file("/etc/default/etcd", format!("ETCD_NAME={n}\nETCD_DATA_DIR=/var/lib/etcd/demo\nETCD_LISTEN_PEER_URLS=http://{a}:2380\nETCD_LISTEN_CLIENT_URLS=http://{a}:2379\nETCD_ADVERTISE_CLIENT_URLS=http://{a}:2379\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://{a}:2380\nETCD_INITIAL_CLUSTER={initial}\nETCD_INITIAL_CLUSTER_TOKEN=demo\n"), 0o644, "root", false)).await;
        go(ssh, n, file("/etc/systemd/system/etcd.service", "[Unit]\nDescription=etcd\nAfter=network-online.target\n[Service]\nUser=etcd\nType=notify\nEnvironmentFile=/etc/default/etcd\nEnvironmentFile=-/run/reconcile/etcd-bootstrap.env\nExecStart=/usr/bin/etcd\nRestart=on-failure\nLimitNOFILE=65536\n[Install]\nWantedBy=multi-user.target\n".into(), 0o644, "root", false)).await;
        go(ssh, n, HostAction::EnsureDirectory { path: "/var/lib/etcd/demo".into(), mode: 0o700, owner: "etcd".into(), group: "etcd".into() }).await;
        ssh.run(n, "x", "systemctl stop etcd patroni; rm -rf /var/lib/etcd/demo /var/lib/postgresql/15/demo; sed -i '/data-dir/d' /var/lib/reconcile/manifest; install -d -o etcd -g etcd -m 700 /var/lib/etcd/demo", Duration::from_secs(60)).await.unwrap();
        go(ssh, n, HostAction::StartEtcd { data_dir: "/var/lib/etcd/demo".into(), initial_cluster_state: "new".into(), claims: vec![claim(ClaimKind::DataDir, "/var/lib/etcd/demo")] }).await;
        go(ssh, n, HostAction::AwaitEtcd { endpoint: format!("http://{a}:2379"), claims: vec![claim(ClaimKind::EtcdFormed, "demo")] }).await;
        go(ssh, n, file("/etc/patroni/patroni.yml", format!("scope: demo\nname: {n}\nrestapi:\n  listen: {a}:8008\n  connect_address: {a}:8008\n  authentication: {{username: ops, password: opssecret}}\netcd3:\n  hosts: {etcd_hosts}\nbootstrap:\n  dcs: {{ttl: 20, loop_wait: 5, retry_timeout: 5}}\n  initdb: [{{encoding: UTF8}}, data-checksums]\n  pg_hba:\n  - local all all peer\n  - host replication replicator 0.0.0.0/0 scram-sha-256\n  - host all all 0.0.0.0/0 scram-sha-256\npostgresql:\n  listen: {a}:5432\n  connect_address: {a}:5432\n  data_dir: /var/lib/postgresql/15/demo\n  bin_dir: /usr/lib/postgresql/15/bin\n  authentication:\n    superuser: {{username: postgres, password: supersecret}}\n    replication: {{username: replicator, password: replsecret}}\n  parameters: {{unix_socket_directories: /var/run/postgresql}}\n"), 0o640, "postgres", true)).await;
        go(ssh, n, file("/etc/systemd/system/patroni.service", "[Unit]\nDescription=patroni\n[Service]\nUser=postgres\nExecStart=/usr/bin/patroni /etc/patroni/patroni.yml\nExecReload=/bin/kill -s HUP $MAINPID\nKillMode=process\nRestart=no\n[Install]\nWantedBy=multi-user.target\n".into(), 0o644, "root", false)).await;
        if i > 0 { tokio::time::sleep(Duration::from_secs(10)).await; }
        go(ssh, n, HostAction::StartPatroni { endpoint: format!("http://{a}:8008"), data_dir: "/var/lib/postgresql/15/demo".into(), claims: vec![claim(ClaimKind::DataDir, "/var/lib/postgresql/15/demo")], until: if i == 0 { PatroniGoal::Primary } else { PatroniGoal::Replica } }).await;
    }});
    futures::future::join_all(work).await;
    let (n, a) = &nodes[0];
    let sql = |text: &str, db: &str| HostAction::Sql { socket_dir: "/var/run/postgresql".into(), port: 5432, database: db.into(), sql: Content::secret(text) };
    go(&ssh, n, sql("create role app login password 'SCRAM-SHA-256$4096:QUFBQUFBQUFBQUFBQUFBQQ==$kOmA8GdHCaJ8iVhIbHmRpFhHwVKPmGKQxLz1UJnBcPE=:4rVwwVj4DX4cqI7TX0DDh5AGFzrHmiFcWFi8zcTg9yo=';\ncreate database app owner app;\ncreate schema reconcile;\ncreate table reconcile.probe (node text primary key, token text, at timestamptz);\nalter system set work_mem = '8MB';", "postgres")).await;
    go(&ssh, n, sql("create extension pgcrypto; create schema pgbouncer; create function pgbouncer.user_lookup(u text) returns text language sql as 'select u';", "app")).await;
    go(&ssh, n, sql("select 1; create role app password 'averysecretword'", "postgres")).await;
    go(&ssh, n, sql("create role app2 passwort 'averysecretword'", "postgres")).await;
    go(&ssh, n, sql("select 1", "it's not there")).await;
    go(&ssh, &nodes[1].0, sql("create role x", "postgres")).await;
    for (cred, action) in [(Some("opssecret"), PatroniAction::PatchConfig { patch: "{\"postgresql\":{\"parameters\":{\"max_connections\":111}}}".into() }), (Some("wrong"), PatroniAction::RestartMember), (None, PatroniAction::RestartMember), (Some("opssecret"), PatroniAction::RestartMember)] {
        let secret = cred.map(SecretText::new);
        let start = Instant::now();
        let r = ssh.perform_patroni(n, &format!("http://{a}:8008"), secret.as_ref().map(|s| ("ops", s)), &action, Duration::from_secs(30)).await;
        println!("{action:?} {:?} {r:?}", start.elapsed());
    }
    go(&ssh, n, HostAction::Unit { unit: "nosuch.service".into(), verb: UnitVerb::Start, enable: true }).await;
    go(&ssh, n, HostAction::Unit { unit: "docker.service".into(), verb: UnitVerb::Start, enable: true }).await;
    go(&ssh, n, HostAction::Unit { unit: "cron.service".into(), verb: UnitVerb::Stop, enable: false }).await;
    go(&ssh, n, HostAction::InstallPackages { packages: vec![("nosuchpackage".into(), None), ("curl".into(), Some("1.2.3".into()))], cluster: "demo".into(), claims: vec![], silence: vec![], start: vec![] }).await;
    go(&ssh, n, HostAction::Claim { cluster: "other".into(), claims: vec![] }).await;
    go(&ssh, n, file("/etc/hosts", "x".into(), 0o644, "root", false)).await;
    go(&ssh, n, file("/etc/newfile", "x".into(), 0o644, "nobodyhere", false)).await;
    go(&ssh, n, HostAction::RemoveFile { path: "/etc/hosts".into(), digest: "0".into() }).await;
    go(&ssh, n, HostAction::StartEtcd { data_dir: "/var/lib/etcd/demo".into(), initial_cluster_state: "new".into(), claims: vec![] }).await;
    println!("{:?}", ssh.run(n, "test", "id; sleep 5", Duration::from_secs(1)).await);
    ssh.close().await;
}

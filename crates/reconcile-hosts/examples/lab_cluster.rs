//! Scratch: trials on a lab.
#![expect(clippy::pedantic, clippy::print_stdout, clippy::unwrap_used, reason = "scratch")]

use std::{path::PathBuf, time::{Duration, Instant}};

use reconcile_core::{
    action::{DesiredFile, HostAction, UnitVerb},
    model::{Claim, ClaimKind, Content, HostName},
};
use reconcile_dial::{Dialer, Target};
use reconcile_hosts::{HostTarget, Ssh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn go(ssh: &Ssh, host: &HostName, action: HostAction, seconds: u64) {
    let start = Instant::now();
    match ssh.apply(host, &action, Duration::from_secs(seconds)).await {
        Ok(()) => println!("ok {:?} {:.70?}", start.elapsed(), action),
        Err(e) => println!("ERR {:?} {}\n   {:?}\n{}", start.elapsed(), e, e.retry, e.stderr),
    }
}
fn install(names: &[&str], silence: &[&str]) -> HostAction {
    HostAction::InstallPackages { packages: names.iter().map(|n| (n.to_string(), None)).collect(), cluster: "demo".into(), claims: names.iter().map(|n| Claim { kind: ClaimKind::Package, name: n.to_string() }).collect(), silence: silence.iter().map(|s| s.to_string()).collect(), start: vec![] }
}
async fn sh(ssh: &Ssh, host: &HostName, script: &str) {
    let o = ssh.run(host, "sh", &format!("{script}\n"), Duration::from_secs(60)).await.unwrap();
    println!("$ {script}\n{}{}", String::from_utf8_lossy(&o.stdout), o.stderr);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let lab = PathBuf::from(std::env::args().nth(1).unwrap());
    let state: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(lab.join("lab.json")).unwrap()).unwrap();
    let nodes: Vec<(HostName, String)> = state["servers"].as_array().unwrap().iter().map(|s| (HostName::new(s["name"].as_str().unwrap()), s["address"].as_str().unwrap().to_owned())).collect();
    let ssh = Ssh::new(nodes.iter().map(|(n, a)| HostTarget {
        name: n.clone(), address: a.clone(), port: 22, user: "reconcile".into(), identity_file: Some(lab.join("id_ed25519")), agent: false, jump: None, host_key: None, known_hosts: Some(lab.join("known_hosts")), sudo: true,
    }));
    let (n, a) = &nodes[0];
    for target in [Target::DockerApi, Target::DockerApi, Target::DockerApi, Target::Tcp { host: a.clone(), port: 8008 }, Target::Tcp { host: a.clone(), port: 8008 }] {
        let start = Instant::now();
        let mut s = ssh.dial(n.as_str(), target.clone()).await.unwrap();
        let dialled = start.elapsed();
        let path = if target == Target::DockerApi { "/_ping" } else { "/health" };
        s.write_all(format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut b = Vec::new();
        let r = s.read_to_end(&mut b).await;
        println!("{target}: dial {dialled:?}, answer {:?} {r:?} {:.40?}", start.elapsed(), String::from_utf8_lossy(&b));
    }
    for target in [Target::Unix("/run/dbus/system_bus_socket".into()), Target::Unix("/nonexistent".into()), Target::Unix("/var/run/docker.sock".into()), Target::Tcp { host: a.clone(), port: 9 }] {
        println!("{target}: {:?}", ssh.dial(n.as_str(), target.clone()).await.map(|_| "open"));
    }
    sh(&ssh, n, "systemctl disable --now haproxy pgbouncer; apt-get -qq -y purge haproxy pgbouncer >/dev/null 2>&1; sed -i '/haproxy\\|pgbouncer/d' /var/lib/reconcile/manifest; ls /usr/sbin/policy-rc.d").await;
    println!("--- a short deadline");
    go(&ssh, n, install(&["haproxy", "pgbouncer"], &["haproxy.service", "pgbouncer.service"]), 5).await;
    sh(&ssh, n, "sleep 1; ls /usr/sbin/policy-rc.d*; dpkg --audit; dpkg -l haproxy pgbouncer | tail -2; pgrep -a apt; pgrep -a dpkg").await;
    println!("--- again");
    go(&ssh, n, install(&["haproxy", "pgbouncer"], &["haproxy.service", "pgbouncer.service"]), 120).await;
    sh(&ssh, n, "ls /usr/sbin/policy-rc.d*; systemctl is-enabled haproxy pgbouncer; systemctl is-active haproxy pgbouncer; tail -3 /var/lib/reconcile/manifest").await;
    println!("--- interrupted dpkg, stranger's policy");
    sh(&ssh, n, "apt-get -qq -y purge haproxy >/dev/null 2>&1; sed -i /haproxy/d /var/lib/reconcile/manifest; printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; dpkg-query -s libc6 > /var/lib/dpkg/updates/0001; ls /var/lib/dpkg/updates").await;
    go(&ssh, n, install(&["haproxy"], &["haproxy.service"]), 120).await;
    sh(&ssh, n, "cat /usr/sbin/policy-rc.d; rm /usr/sbin/policy-rc.d; systemctl is-enabled haproxy; systemctl is-active haproxy; ls /var/lib/dpkg/updates").await;
    println!("--- a live service of somebody else stays");
    sh(&ssh, n, "systemctl enable -q --now pgbouncer; sed -i /pgbouncer/d /var/lib/reconcile/manifest; systemctl is-active pgbouncer").await;
    go(&ssh, n, install(&["pgbouncer"], &["pgbouncer.service"]), 60).await;
    sh(&ssh, n, "systemctl is-enabled pgbouncer; systemctl is-active pgbouncer; systemctl disable --now -q pgbouncer").await;
    println!("--- units");
    let unit = |name: &str, exec: &str| HostAction::WriteFile { file: DesiredFile { path: format!("/etc/systemd/system/{name}"), content: Content::open(format!("[Service]\nExecStart={exec}\nRestart=always\nRestartSec=0.2\n[Install]\nWantedBy=multi-user.target\n")), mode: 0o644, owner: "root".into(), group: "root".into() }, before: None, claim: true, notify: None, cluster: "demo".into() };
    sh(&ssh, n, "rm -f /etc/systemd/system/trial*.service").await;
    go(&ssh, n, unit("trial1.service", "/bin/false"), 30).await;
    go(&ssh, n, unit("trial2.service", "/bin/sleep 1000"), 30).await;
    for (u, v, e) in [("trial1.service", UnitVerb::Start, true), ("trial2.service", UnitVerb::Start, true), ("trial2.service", UnitVerb::Start, true), ("trial2.service", UnitVerb::Restart, true), ("trial2.service", UnitVerb::Reload, true), ("trial2.service", UnitVerb::Keep, false), ("trial2.service", UnitVerb::Stop, false), ("trial2.service", UnitVerb::Stop, false), ("trial1.service", UnitVerb::Stop, false), ("gone.service", UnitVerb::Stop, false)] {
        println!("{u} {v:?} {e}");
        go(&ssh, n, HostAction::Unit { unit: u.into(), verb: v, enable: e }, 20).await;
    }
    sh(&ssh, n, "systemctl is-enabled trial1 trial2; ls /run/reconcile* /tmp/reconcile* 2>&1").await;
    println!("{:?}", ssh.run(n, "test", "id; sleep 5\n", Duration::from_secs(1)).await);
    ssh.close().await;
}

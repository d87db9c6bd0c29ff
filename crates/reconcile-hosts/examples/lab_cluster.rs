//! Scratch: ways to log in.
#![expect(clippy::pedantic, clippy::print_stdout, clippy::unwrap_used, reason = "scratch")]
use reconcile_core::model::HostName;
use reconcile_hosts::{HostTarget, JumpTarget, Ssh};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let lab = PathBuf::from(std::env::args().nth(1).unwrap());
    let state: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(lab.join("lab.json")).unwrap()).unwrap();
    let nodes: Vec<(String, String)> = state["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            (s["name"].as_str().unwrap().to_owned(), s["address"].as_str().unwrap().to_owned())
        })
        .collect();
    let base = |i: usize| HostTarget {
        name: HostName::new(nodes[i].0.clone()),
        address: nodes[i].1.clone(),
        port: 22,
        user: "reconcile".into(),
        identity_file: Some(lab.join("id_ed25519")),
        agent: false,
        jump: None,
        host_key: None,
        known_hosts: Some(lab.join("known_hosts")),
        sudo: true,
    };
    let file = |f: &str| Some(PathBuf::from(format!("/tmp/kh/{f}")));
    let cases = vec![
        ("default", base(0)),
        ("rsa", HostTarget { identity_file: file("rsa"), ..base(0) }),
        ("ecdsa", HostTarget { identity_file: file("ecdsa"), ..base(0) }),
        ("encrypted", HostTarget { identity_file: file("locked"), ..base(0) }),
        ("encrypted+agent", HostTarget { identity_file: file("locked"), agent: true, ..base(0) }),
        ("agent", HostTarget { identity_file: None, agent: true, ..base(0) }),
        ("unknown key + agent", HostTarget { identity_file: file("other"), agent: true, ..base(0) }),
        ("unknown key", HostTarget { identity_file: file("other"), ..base(0) }),
        ("missing key", HostTarget { identity_file: file("nope"), ..base(0) }),
        ("no key", HostTarget { identity_file: None, ..base(0) }),
        ("public key", HostTarget { identity_file: file("rsa.pub"), ..base(0) }),
        ("wrong user", HostTarget { user: "nobody2".into(), ..base(0) }),
        ("root, no sudo needed", HostTarget { user: "root".into(), ..base(0) }),
        ("no sudo", HostTarget { sudo: false, ..base(0) }),
        ("jump", HostTarget { jump: Some(JumpTarget { host: nodes[0].1.clone(), port: 22, user: "reconcile".into(), host_key: None }), ..base(1) }),
        ("jump to nothing", HostTarget { jump: Some(JumpTarget { host: nodes[0].1.clone(), port: 22, user: "reconcile".into(), host_key: None }), port: 23, known_hosts: None, host_key: Some("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5nSFHjqn2gI2zFMKHbWcM7NqAQpxCiww9OqFfXXuc+".into()), ..base(1) }),
        ("wrong pin", HostTarget { host_key: Some("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC5nSFHjqn2gI2zFMKHbWcM7NqAQpxCiww9OqFfXXuc+".into()), ..base(1) }),
        ("rsa pin", HostTarget { host_key: Some(std::fs::read_to_string("/tmp/kh/node1_rsa").unwrap()), ..base(0) }),
        ("unroutable name", HostTarget { address: "no.such.host.invalid".into(), host_key: Some(std::fs::read_to_string("/tmp/kh/node1_rsa").unwrap()), ..base(0) }),
        ("http port", HostTarget { port: 8008, host_key: Some(std::fs::read_to_string("/tmp/kh/node1_rsa").unwrap()), ..base(0) }),
    ];
    for (what, target) in cases {
        let name = target.name.clone();
        let ssh = Ssh::new([target]);
        let start = Instant::now();
        match ssh.run(&name, "try", "id -un; hostname\n", Duration::from_secs(40)).await {
            Ok(o) => println!(
                "{what}: {:?} {:?} {:?}",
                start.elapsed(),
                o.status,
                String::from_utf8_lossy(&o.stdout)
            ),
            Err(e) => println!("{what}: {:?} {:?} {}", start.elapsed(), e.retry, e.cause),
        }
        if what == "no sudo" {
            println!("{:?}", ssh.probe(&name, &Default::default()).await.map(|_| ()));
        }
    }
}

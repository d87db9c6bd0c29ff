//! Prints the facts of one lab server as JSON, and how long warm probes take.
//!
//! `cargo run -p reconcile-hosts --example probe -- .lab/lab node1 [TIMES]`
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::{
    collections::BTreeSet,
    error::Error,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reconcile_core::{
    model::HostName,
    probe::{ProbeFile, ProbeRequest, SqlProbe},
};
use reconcile_hosts::{HostTarget, Ssh};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let lab = PathBuf::from(args.next().unwrap_or_else(|| ".lab/lab".to_owned()));
    let node = HostName::new(args.next().unwrap_or_else(|| "node1".to_owned()));
    let times: u32 = args.next().map_or(Ok(0), |times| times.parse())?;

    let targets = targets(&lab)?;
    let address = targets.iter().find(|target| target.name == node).ok_or("no such node")?;
    let request = request(&address.address);
    let ssh = Ssh::new(targets.clone());
    if let Some(path) = std::env::var_os("RAW") {
        // The server's answer as it came, for a fixture.
        let script = reconcile_hosts::probe::probe_script(&request);
        let start = Instant::now();
        let output = ssh.run(&node, "probe", &script, Duration::from_secs(30)).await?;
        eprintln!("{:?}, status {}: {}", start.elapsed(), output.status, output.stderr);
        std::fs::write(path, output.stdout)?;
        return Ok(());
    }
    let cold = Instant::now();
    let facts = ssh.probe(&node, &request).await?;
    let cold = cold.elapsed();
    println!("{}", serde_json::to_string_pretty(&facts)?);
    let mut warm = Vec::new();
    for _ in 0..times {
        let start = Instant::now();
        ssh.probe(&node, &request).await?;
        warm.push(start.elapsed());
    }
    warm.sort();
    if let (Some(best), Some(middle), Some(worst)) =
        (warm.first(), warm.get(warm.len() / 2), warm.last())
    {
        eprintln!("cold {cold:?}; warm: best {best:?}, median {middle:?}, worst {worst:?}");
    }
    eprintln!("round trips: {:?}", ssh.round_trips().get(&node));
    ssh.close().await;
    Ok(())
}

/// The servers of a lab by its files.
fn targets(lab: &Path) -> Result<Vec<HostTarget>, Box<dyn Error>> {
    let text = std::fs::read_to_string(lab.join("lab.json"))?;
    let state: serde_json::Value = serde_json::from_str(&text)?;
    let servers = state["servers"].as_array().ok_or("lab.json names no servers")?;
    let text = |server: &serde_json::Value, key: &str| {
        server[key].as_str().map(str::to_owned).ok_or(format!("a server has no {key}"))
    };
    let mut targets = Vec::new();
    for server in servers {
        targets.push(HostTarget {
            name: HostName::new(text(server, "name")?),
            address: text(server, "address")?,
            port: 22,
            user: "reconcile".to_owned(),
            identity_file: Some(lab.join("id_ed25519")),
            agent: false,
            jump: None,
            host_key: Some(text(server, "host_key")?),
            known_hosts: None,
            sudo: true,
        });
    }
    Ok(targets)
}

/// What a whole pass asks, more or less.
fn request(address: &str) -> ProbeRequest {
    let strings = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let file = |path: &str| ProbeFile {
        path: path.to_owned(),
        expect: "0".repeat(64),
        secret: path.contains("patroni"),
        keep: None,
    };
    let paths = [
        "/etc/default/etcd",
        "/etc/systemd/system/etcd.service",
        "/etc/systemd/system/patroni.service",
        "/etc/patroni/patroni.yml",
        "/etc/postgresql-common/createcluster.conf",
        "/etc/docker/daemon.json",
        "/etc/hosts",
        "/etc/mtab",
    ];
    ProbeRequest {
        pause: "/var/lib/reconcile/pause.main".to_owned(),
        packages: strings(&[
            "etcd-server",
            "etcd-client",
            "patroni",
            "postgresql-15",
            "python3-etcd",
            "curl",
            "docker.io",
            "jq",
        ]),
        files: paths.map(file).to_vec(),
        units: strings(&[
            "etcd.service",
            "patroni.service",
            "docker.service",
            "postgresql.service",
            "postgresql@15-main.service",
            "haproxy.service",
            "pgbouncer.service",
            "ssh.service",
        ]),
        data_dirs: strings(&[
            "/var/lib/etcd/demo",
            "/var/lib/postgresql/15/demo",
            "/mnt",
            "/etc/hosts",
        ]),
        disks: strings(&["/var/lib/etcd", "/var/lib/postgresql/15/main", "/var/lib/docker"]),
        docker: true,
        pooler_of: None,
        etcd: Some(format!("http://{address}:2379")),
        patroni: Some(format!("http://{address}:8008")),
        sql: Some(SqlProbe {
            port: 5432,
            socket_dir: "/var/run/postgresql".to_owned(),
            databases: BTreeSet::from(["postgres".to_owned(), "app".to_owned()]),
            settings: BTreeSet::from(["max_connections".to_owned()]),
        }),
        postgres_bin_dir: Some("/usr/lib/postgresql/15/bin".to_owned()),
    }
}

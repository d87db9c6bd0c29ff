//! The Debian package on a real server: its unit becomes active and converges, comes back after
//! SIGKILL and after a hang, and a purge leaves nothing that runs.

use std::{path::PathBuf, process::Command, time::Duration};

use crate::harness::{Job, Lab, PATIENCE, ProcessWatch, seconds, until};

/// Packing is quick, compiling xtask for it is not.
const PACK: Duration = Duration::from_secs(300);
/// The unit waits for 5 s before it starts again, and for the lease of the one before for 15 s.
const AGAIN: Duration = Duration::from_secs(60);
const LISTEN: &str = "http://127.0.0.1:7432";
const CREDENTIALS: &str = "/run/credentials/reconcile.service/credentials_";

/// A package of the binary under test: the one that was built with it, or a new one.
fn packed(lab: &Lab) -> PathBuf {
    if let Some(package) = std::env::var_os("RECONCILE_PACKAGE") {
        return PathBuf::from(package);
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(lab.root()).args(["run", "--quiet", "--package", "xtask", "--", "package"]);
    command.arg("--binary").arg(lab.binary());
    let ran = Job::start(command).wait(PACK).expect(0);
    println!("package: {}", seconds(ran.took));
    PathBuf::from(ran.stdout.lines().last().expect("its path"))
}

/// A property of the unit.
fn shown(lab: &Lab, node: &str, property: &str) -> String {
    let script = format!("systemctl show --value -p {property} reconcile.service");
    lab.sh(node, &script).trim().to_owned()
}

/// Waits until the endpoint is there, and gives the process.
fn serving(lab: &Lab, node: &str, other_than: &str) -> String {
    let told = || lab.sh(node, "journalctl -u reconcile -n 30 --no-pager");
    until("the unit to serve", AGAIN, || {
        let pid = shown(lab, node, "MainPID");
        let answers = lab.try_sh(node, &format!("curl -fsS -m 2 {LISTEN}/healthz"));
        let new = pid != other_than && pid != "0" && shown(lab, node, "ActiveState") == "active";
        if new && answers.code == Some(0) { Ok(pid) } else { Err(format!("{answers}\n{}", told())) }
    })
}

fn install(lab: &Lab, node: &str, spec: &str) {
    let server = lab.info.server(node).expect("it is a server");
    let package = packed(lab);
    let copy = |from: &str, to: &str| {
        Lab::engine(&format!("docker cp '{from}' {}:{to}", server.container));
    };
    copy(&package.display().to_string(), "/root/reconcile.deb");
    lab.sh(node, "dpkg -i /root/reconcile.deb 2>&1; rm /root/reconcile.deb");
    // Nothing runs before somebody says what for.
    assert_eq!(shown(lab, node, "ActiveState"), "inactive");
    assert_eq!(shown(lab, node, "UnitFileState"), "disabled");
    for (name, to) in [("id_ed25519", "ssh-key"), ("secrets.yaml", "secrets.yaml")] {
        let to = format!("/etc/reconcile/credentials/{to}");
        copy(&lab.dir().join(name).display().to_string(), &to);
        lab.sh(node, &format!("chown root: {to} && chmod 600 {to}"));
    }
    copy(&lab.dir().join("known_hosts").display().to_string(), "/etc/reconcile/known_hosts");
    let path = lab.write("packaged.yaml", spec);
    copy(&path.display().to_string(), "/etc/reconcile/cluster.yaml");
    lab.sh(node, "chown root: /etc/reconcile/*; chmod 644 /etc/reconcile/known_hosts /etc/reconcile/cluster.yaml");
}

#[test]
fn the_package_runs_itself_on_a_server() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let node = lab.nodes()[2].to_owned();
    let other = lab.nodes()[0].to_owned();
    let text = lab
        .example()
        .replace("file: secrets.yaml", &format!("file: {CREDENTIALS}secrets.yaml"))
        .replace("identityFile: id_ed25519", &format!("identityFile: {CREDENTIALS}ssh-key"))
        .replace("knownHosts: known_hosts", "knownHosts: /etc/reconcile/known_hosts");
    assert!(text.matches(CREDENTIALS).count() == 2, "{text}");
    install(&lab, &node, &text);
    for file in ["/usr/share/man/man1/reconcile.1.gz", "/usr/share/man/man1/reconcile-psql.1.gz"] {
        lab.sh(&node, &format!("zcat {file} | grep -q '^\\.SH'"));
    }
    lab.sh(&node, "bash -n /usr/share/bash-completion/completions/reconcile");
    let watch = ProcessWatch::start(&secrets);

    // As systemd has it wherever it is not in a container: else no unit gets its credentials.
    lab.sh(&node, "mount --make-rshared /");
    lab.sh(&node, "systemctl start reconcile");
    let first = serving(&lab, &node, "0");
    assert_eq!(shown(&lab, &node, "WatchdogUSec"), "1min");
    let weak = lab.sh(&node, "systemd-analyze security --no-pager reconcile.service | tail -n 1");
    println!("{}", weak.trim());
    lab.sh(&other, "chmod 644 /etc/patroni/patroni.yml");
    until("drift on another server to be healed", PATIENCE, || {
        let mode = lab.sh(&other, "stat -c %a /etc/patroni/patroni.yml");
        if mode.trim() == "600" { Ok(()) } else { Err(mode) }
    });
    until("it to tell systemd so", PATIENCE, || {
        let text = shown(&lab, &node, "StatusText");
        if text == "as desired and serving" { Ok(()) } else { Err(text) }
    });
    let metrics = lab.sh(&node, &format!("curl -fsS {LISTEN}/metrics"));
    assert!(metrics.contains("\nreconcile_lease_held 1.0"), "{metrics}");
    secrets.absent_from("the metrics", &metrics);

    lab.sh(&node, &format!("kill -KILL {first}"));
    let second = serving(&lab, &node, &first);
    assert_eq!(shown(&lab, &node, "NRestarts"), "1");

    // A process that hangs: the watchdog, made quick, ends it.
    let quick = "[Service]\nWatchdogSec=4";
    lab.sh(&node, &format!("mkdir -p /run/systemd/system/reconcile.service.d && printf '{quick}\\n' >/run/systemd/system/reconcile.service.d/quick.conf && systemctl daemon-reload && systemctl restart reconcile"));
    let third = serving(&lab, &node, &second);
    // It lives for longer than that while it is told to.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(shown(&lab, &node, "MainPID"), third);
    lab.sh(&node, &format!("kill -STOP {third}"));
    serving(&lab, &node, &third);
    let journal = lab.sh(&node, "journalctl -u reconcile --no-pager");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    secrets.absent_from("the unit's journal", &journal);
    watch.finish();

    // What ran is gone, what was ours is gone, what was put there stays.
    lab.sh(&node, "dpkg --purge reconcile 2>&1; rm -r /run/systemd/system/reconcile.service.d; systemctl daemon-reload");
    let left = lab.sh(&node, "pgrep -ax reconcile; ls -d /var/lib/*/reconcile-operator /var/lib/reconcile-operator /usr/bin/reconcile /lib/systemd/system/reconcile.service 2>/dev/null; systemctl list-units --all --plain --no-legend 'reconcile*'; true");
    assert_eq!(left, "");
    lab.sh(&node, "test -s /etc/reconcile/cluster.yaml && rm -r /etc/reconcile && test -s /var/lib/reconcile/manifest");
    // Its lease runs out.
    until("this operator to be the one", PATIENCE, || {
        let ran = lab.reconcile(&spec, &[]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran.to_string()) }
    });
}

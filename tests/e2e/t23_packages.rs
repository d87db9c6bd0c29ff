//! Newer packages under writes: etcd, Patroni and PostgreSQL are packed anew with a higher version into
//! a source of each server's own, and pinned. Debian's own maintainer scripts and dpkg are real here.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{Lab, Load, figure, get_body, seconds};

/// Longest wait of a client: as in `t17_rolling`, and once more for a synchronous replica's restart.
const WAIT: Duration = Duration::from_secs(3 + 3);
const PACKAGES: [&str; 5] =
    ["etcd-server", "etcd-client", "patroni", "postgresql-15", "postgresql-client-15"];
const UNITS: [&str; 2] = ["etcd", "patroni"];

/// Packs an installed package as it lies there, with a higher version, and lists it for apt.
const REPACK: &str = r#"set -eu
R=/srv/reconcile-repo
mkdir -p $R; chmod 755 $R
for p in "$@"; do
  old=$(dpkg-query -W -f '${Version}' "$p"); new=$old+reconcile1
  d=$(mktemp -d); chmod 755 "$d"; mkdir "$d/DEBIAN"
  dpkg-query -L "$p" | while read -r f; do
    [ "$f" != /. ] || continue
    # /lib is a link by now, and still a folder in packages.
    if [ -d "$f" ]; then mkdir -p "$d$f"
    elif [ -e "$f" ] || [ -L "$f" ]; then mkdir -p "$d${f%/*}"; cp -a "$f" "$d$f"; fi
  done
  dpkg-query -s "$p" | awk -v new="$new" '/^Status:/ { next }
    /^Conffiles:/ { skip = 1; next } skip && /^ / { next } { skip = 0 }
    /^Version:/ { print "Version: " new; next } { print }' >"$d/DEBIAN/control"
  for s in preinst prerm postinst postrm conffiles triggers; do
    for i in "/var/lib/dpkg/info/$p.$s" "/var/lib/dpkg/info/$p:amd64.$s"; do
      [ ! -e "$i" ] || cp -a "$i" "$d/DEBIAN/$s"
    done
  done
  dpkg-deb -Zgzip -z1 -b "$d" "$R/$p.deb" >/dev/null; rm -rf "$d"
  { dpkg-deb -f "$R/$p.deb"; printf 'Filename: ./%s.deb\nSize: %s\nSHA256: %s\n\n' "$p" \
    "$(stat -c %s "$R/$p.deb")" "$(sha256sum <"$R/$p.deb" | cut -d' ' -f1)"; } >>$R/Packages.new
  printf '%s %s\n' "$p" "$new"
done
mv $R/Packages.new $R/Packages
echo 'deb [trusted=yes] file:/srv/reconcile-repo ./' >/etc/apt/sources.list.d/reconcile-test.list
apt-get -q update -o Dir::Etc::sourcelist=sources.list.d/reconcile-test.list -o Dir::Etc::sourceparts=- \
  -o APT::Get::List-Cleanup=0 >/dev/null
"#;

/// How often a unit was started, and the process that runs it.
fn starts(lab: &Lab, node: &str) -> Vec<usize> {
    let count = |unit: &&str| {
        let said = lab.sh(
            node,
            &format!("journalctl --no-pager -q -o cat -u {unit} _PID=1 | grep -c '^Started' || :"),
        );
        said.trim().parse().expect("a number")
    };
    UNITS.iter().map(count).collect()
}

/// Watches etcd until it is told to stop: the fewest members that were healthy at once.
fn quorum(lab: &Lab, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    let members: Vec<_> = lab.nodes().iter().map(|node| lab.address(node)).collect();
    std::thread::spawn(move || {
        let mut fewest = members.len();
        while !stop.load(Ordering::Relaxed) {
            let healthy = members.iter().filter(|address| {
                get_body(SocketAddr::from((**address, 2379)), "/health")
                    .is_ok_and(|body| body.contains("true"))
            });
            fewest = fewest.min(healthy.count());
            std::thread::sleep(Duration::from_millis(200));
        }
        fewest
    })
}

/// Versions, as the first server has them to offer.
fn offered(lab: &Lab) -> Vec<String> {
    let mut versions = Vec::new();
    for node in lab.nodes() {
        let told = lab.sh(node, &format!("set -- {}\n{REPACK}", PACKAGES.join(" ")));
        versions = told
            .lines()
            .filter_map(|line| line.split_once(' ').map(|(_, version)| version.to_owned()))
            .collect();
    }
    assert_eq!(versions.len(), PACKAGES.len());
    versions
}

fn pinned(lab: &Lab, name: &str, [etcd, patroni, postgresql]: [&str; 3]) -> PathBuf {
    let text = lab.example();
    let with = text
        .replace(
            "  patroni:\n",
            &format!("  etcd: {{ version: {etcd} }}\n  patroni:\n    version: {patroni}\n"),
        )
        .replace(
            "    version: 15\n",
            &format!("    version: 15\n    packageVersion: {postgresql}\n"),
        );
    assert_eq!(with.lines().count(), text.lines().count() + 3, "{with}");
    lab.write(name, &with)
}

#[test]
fn newer_packages_are_rolled_out_under_writes() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    lab.await_ready(&spec);
    let versions = offered(&lab);
    let (etcd, patroni, postgresql) =
        (versions[0].as_str(), versions[2].as_str(), versions[3].as_str());

    // A version that nobody has: apt's word, and nothing is half done.
    let before: Vec<_> = lab.nodes().iter().map(|node| starts(&lab, node)).collect();
    let unknown = format!("{patroni}+nowhere1");
    let nowhere = pinned(&lab, "nowhere.yaml", [etcd, &unknown, postgresql]);
    let ran = lab.reconcile(&nowhere, &["--plain"]);
    assert_ne!(ran.code, Some(0), "{ran}");
    let ran = ran.says(&format!("no package source of this server has: patroni={unknown}"));
    let after: Vec<_> = lab.nodes().iter().map(|node| starts(&lab, node)).collect();
    assert_eq!(before, after, "{ran}");
    for node in lab.nodes() {
        assert_eq!(lab.sh(node, "ls /run/reconcile /usr/sbin/policy-rc.d 2>/dev/null | grep -e outdated -e policy || :"), "");
    }

    let wanted = pinned(&lab, "upgrade.yaml", [etcd, patroni, postgresql]);
    let leader = lab.primary();
    let logins: Vec<_> =
        lab.nodes().into_iter().map(|node| lab.login(node, 15432, &secrets)).collect();
    let load = Load::start(&logins);
    let stop = Arc::new(AtomicBool::new(false));
    let watch = quorum(&lab, Arc::clone(&stop));
    let began = Instant::now();
    let rolled = lab.reconcile(&wanted, &["--plain"]);
    let took = seconds(began.elapsed());
    stop.store(true, Ordering::Relaxed);
    let fewest = watch.join().expect("it only looks");
    let rolled = rolled.expect(0).says("and serves");
    println!("{}", rolled.stderr);
    let seen = load.end();
    println!("{took}; {seen}; at least {fewest} members of etcd");
    figure(
        "newer etcd, Patroni and PostgreSQL on three servers under 50 writes/s",
        "0 acknowledged writes lost",
        &format!(
            "{took}; {} writes, {} failed, longest wait {}; never fewer than {fewest} of 3 members of etcd",
            seen.done(),
            seen.failed(),
            seconds(seen.longest_wait())
        ),
    );
    assert_eq!(seen.failed(), 0, "{seen}\n{rolled}");
    assert!(seen.longest_wait() <= WAIT, "{seen}\n{rolled}");
    assert!(fewest >= 2, "{fewest} members of etcd were healthy\n{rolled}");

    // Replicas before the primary, which hands over once; each unit is started anew once.
    let done: Vec<&str> = rolled
        .stderr
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ok "))
        .map(|line| line.trim_start().split_once(" (").map_or(line, |(step, _)| step))
        .collect();
    let upgrades: Vec<&&str> = done.iter().filter(|step| step.contains("/upgrade")).collect();
    assert_eq!(upgrades.len(), 3, "{done:#?}");
    assert!(upgrades[2].contains(&leader), "{done:#?}");
    assert_eq!(rolled.stderr.matches("writers waited in the poolers").count(), 1, "{rolled}");
    assert_ne!(lab.primary(), leader);
    for (node, before) in lab.nodes().into_iter().zip(before) {
        let once: Vec<usize> = before.iter().map(|count| count + 1).collect();
        assert_eq!(starts(&lab, node), once, "on {node}\n{rolled}");
        let query = format!("dpkg-query -W -f '${{Version}}\\n' {}", PACKAGES.join(" "));
        let installed = lab.sh(node, &query);
        assert_eq!(installed.lines().collect::<Vec<_>>(), versions, "{node}");
        let pids = "for p in $(pgrep -x postgres) $(pgrep -x etcd); do readlink /proc/$p/exe; done | grep deleted || :";
        assert_eq!(lab.sh(node, pids), "", "what runs on {node} is what is installed");
    }
    lab.reconcile(&wanted, &["--plain"]).expect(0).says("0 steps done");

    // Back is for a person to decide.
    let older =
        pinned(&lab, "older.yaml", [etcd, patroni.trim_end_matches("+reconcile1"), postgresql]);
    lab.reconcile(&older, &["--plain"]).expect(3).says("data may not go back");
    for node in lab.nodes() {
        lab.sh(node, "rm -rf /srv/reconcile-repo /etc/apt/sources.list.d/reconcile-test.list");
    }
    lab.reconcile(&spec, &["--plain"]).expect(0).says("0 steps done");
}

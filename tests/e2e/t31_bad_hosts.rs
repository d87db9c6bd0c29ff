//! Servers that cannot be reached, trusted or installed on: a clear word on that server, and all
//! the rest proceeds.

use crate::harness::{Held, Lab, seconds};

#[test]
fn bad_servers_are_held_and_the_others_proceed() {
    let mut lab = Lab::shared();
    lab.reset();
    let spec = lab.spec();
    lab.secrets(&spec);
    untrusted_and_refused(&lab);
    no_sudo_and_off(&lab);
    full_disk(&lab);
    missing_package_and_image(&lab);
}

/// The text of the example, with something more said of a server.
fn with(lab: &Lab, text: &str, node: &str, more: &str) -> String {
    let address = lab.address(node);
    let line = format!("address: {address} }}");
    assert!(text.contains(&line), "no `{line}` in\n{text}");
    text.replace(&line, &format!("address: {address}, {more} }}"))
}

fn untrusted_and_refused(lab: &Lab) {
    let [one, two, three] = lab.nodes()[..] else { panic!("the lab has three servers") };
    let server = lab.info.server(three).expect("it is in the lab");
    let others_key = server.host_key.clone().expect("it has booted");
    let keys = tempfile::tempdir().expect("a temporary folder");
    let key = keys.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "ssh-keygen makes a key");
    let text = with(lab, &lab.example(), one, &format!("hostKey: \"{others_key}\""));
    let login = format!("ssh: {{ identityFile: {} }}", key.display());
    let spec = lab.write("bad.yaml", &with(lab, &text, two, &login));
    let plan = lab.plan(&spec);
    let held = Held::of(&plan);
    held.says(&format!("host/{one}"), "host key");
    held.says(&format!("host/{two}"), "refuse");
    held.steps(&[&format!("{three}/packages"), &format!("{three}:/etc/default/etcd")]);
    // No cluster is founded while a server that may hold data is unknown.
    held.says(&format!("{three}/etcd.service"), "may hold the cluster's data");
    held.says("swarm", one);
}

fn no_sudo_and_off(lab: &Lab) {
    let [one, two, three] = lab.nodes()[..] else { panic!("the lab has three servers") };
    lab.sh(two, "mv /etc/sudoers.d/reconcile /root/sudoers");
    lab.lab(&["stop", three]);
    let ran = lab.reconcile(&lab.spec(), &["plan", "-o", "json"]).expect(0);
    println!("plan with a server off: {}", seconds(ran.took));
    let plan = crate::harness::json(&ran);
    let held = Held::of(&plan);
    held.says(&format!("host/{two}"), "sudo");
    held.says(&format!("host/{three}"), &lab.address(three).to_string());
    held.steps(&[&format!("{one}/packages"), &format!("{one}:/etc/default/etcd")]);
    lab.sh(two, "mv /root/sudoers /etc/sudoers.d/reconcile");
    lab.lab(&["start", three]);
}

/// A small disk over `/usr`: what is there stays readable, and nothing more fits.
fn full_disk(lab: &Lab) {
    let [one, two, _] = lab.nodes()[..] else { panic!("the lab has three servers") };
    lab.sh(
        one,
        "mkdir -p /run/small && mount -t tmpfs -o size=64m tmpfs /run/small &&
        mkdir /run/small/upper /run/small/work &&
        mount -t overlay -o lowerdir=/usr,upperdir=/run/small/upper,workdir=/run/small/work overlay /usr",
    );
    let plan = lab.plan(&lab.spec());
    let held = Held::of(&plan);
    held.says(&format!("{one}/packages"), "MB free, 1024 MB are needed");
    held.steps(&[&format!("{two}/packages")]);
    lab.sh(one, "umount -l /usr && umount -l /run/small");
    assert!(Held::of(&lab.plan(&lab.spec())).is_empty(), "nothing is held any more");
}

/// A package and an image that nobody has: the servers' Swarm comes up around them.
fn missing_package_and_image(lab: &Lab) {
    let text =
        lab.example().replace("version: 15", "version: 16").replace(":1.18-1", ":1.18-nowhere");
    let spec = lab.write("bad.yaml", &text);
    let ran = lab.reconcile(&spec, &[]).expect(1);
    println!("around a missing package and image: {}", seconds(ran.took));
    for node in lab.nodes() {
        let told = format!("FAIL  create {node}/packages");
        assert!(ran.stderr.contains(&told), "no `{told}`\n{ran}");
    }
    assert!(ran.stderr.contains("postgresql-16"), "the package is not named\n{ran}");
    assert!(ran.stderr.contains("pgbouncer:1.18-nowhere"), "the image is not named\n{ran}");
    for line in [
        "ok    create swarm/service/db-utils_router".to_owned(),
        "ok    create swarm/service/db-utils_haproxy".to_owned(),
    ]
    .into_iter()
    .chain(lab.nodes()[1..].iter().map(|node| format!("ok    join swarm/node/{node}")))
    {
        assert!(ran.stderr.contains(&line), "`{line}` did not proceed\n{ran}");
    }
    let services = lab.sh(lab.nodes()[0], "docker service ls --format '{{.Name}} {{.Replicas}}'");
    assert!(services.contains("db-utils_router 3/3"), "{services}");
    assert!(services.contains("db-utils_haproxy 3/3"), "{services}");
    // apt found nothing, so it left nothing: neither a package nor its guard.
    for node in lab.nodes() {
        let left =
            lab.sh(node, "ls /usr/sbin/policy-rc.d* 2>/dev/null; dpkg -l | grep -c patroni; true");
        assert_eq!(left.trim(), "0", "left on {node}");
    }
}

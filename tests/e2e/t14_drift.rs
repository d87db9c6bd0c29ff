//! Drift and a changed specification: the plan names each, the run mends each, the next does
//! nothing.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Lab, seconds};

#[test]
fn drift_is_healed_by_the_next_run() {
    let mut lab = Lab::shared();
    lab.converged();
    let primary = lab.primary();
    let nodes = lab.nodes();
    let replica =
        nodes.iter().copied().find(|node| *node != primary).expect("there are three servers");
    let digest = |node: &str| lab.sh(node, "sha256sum < /etc/patroni/patroni.yml");
    let before = digest(replica);

    // By somebody at a terminal, whom the server keeps a record of.
    let config = lab.dir().join("ssh_config");
    let edited = Command::new("ssh")
        .args(["-F", &config.display().to_string(), "-tt", replica])
        .arg("sudo sh -c 'echo \\# by hand >> /etc/patroni/patroni.yml; chmod 644 /etc/patroni/patroni.yml'")
        .output()
        .expect("ssh is there");
    assert!(edited.status.success(), "{edited:?}");
    lab.sh(replica, "systemctl disable --now etcd");
    lab.sh(nodes[0], "docker service rm db-utils_pgbouncer-read");
    let psql = "cd /; setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtqc";
    lab.sh(
        &primary,
        &format!("{psql} \"alter system set work_mem = '99MB'\"; {psql} 'select pg_reload_conf()'"),
    );
    // A replica's takes effect when it leads.
    lab.sh(replica, &format!("{psql} \"alter system set maintenance_work_mem = '77MB'\""));
    let changed = lab
        .example()
        .replace(
            "    databases:\n",
            "      - { name: reports, memberOf: [app] }\n    databases:\n      - { name: reporting, owner: reports }\n",
        )
        .replace("  haproxy:\n", "  haproxy:\n    maxLag: 8MiB\n")
        .replace("{ name: reports, memberOf", "{ name: reports, password: { secret: reports-password }, memberOf");
    let changed = lab.write("changed.yaml", &changed);
    lab.secrets(&changed);

    let plan = lab.plan(&changed);
    let steps = plan["steps"].as_array().expect("a plan has steps");
    for wanted in [
        format!("{replica}:/etc/patroni/patroni.yml"),
        format!("{replica}/etcd.service"),
        "swarm/service/db-utils_pgbouncer-read".to_owned(),
        "swarm/service/db-utils_router".to_owned(),
        "role/reports".to_owned(),
        "database/reporting".to_owned(),
        format!("{primary}/alter-system/work_mem"),
        format!("{replica}/alter-system/maintenance_work_mem"),
    ] {
        let object = |step: &Value| step["object"].as_str().unwrap_or_default().to_owned();
        assert!(
            steps.iter().any(|step| object(step).starts_with(&wanted)),
            "no step for {wanted}\n{plan:#}"
        );
    }
    let reason = steps
        .iter()
        .find(|step| step["object"].as_str().is_some_and(|object| object.ends_with("/patroni.yml")))
        .map(|step| step["reason"].to_string());
    let who = format!("while reconcile ({}) was logged in", lab.info.gateway);
    assert!(
        reason
            .as_ref()
            .is_some_and(|reason| reason.contains("last changed") && reason.contains(&who)),
        "{reason:?} does not say: {who}"
    );
    let disruptive = steps.iter().filter(|step| step["impact"] == "restart").count();
    assert!(disruptive <= 1, "{disruptive} disruptive steps in one plan\n{plan:#}");

    let ran = lab.reconcile(&changed, &[]).expect(0).says("and serves");
    println!("drift healed and specification followed: {}", seconds(ran.took));
    println!("  slowest: {}", ran.slowest());
    lab.reconcile(&changed, &[]).expect(0).says("0 steps done");
    lab.reconcile(&changed, &["plan", "--exit-code"]).expect(0);

    assert_ne!(lab.sh(&primary, &format!("{psql} 'show work_mem'")).trim(), "99MB");
    assert_eq!(digest(replica), before, "the file is as it was");
    assert_eq!(lab.sh(replica, "stat -c %a /etc/patroni/patroni.yml").trim(), "600");
    let unit = lab.sh(replica, "systemctl is-active etcd; systemctl is-enabled etcd");
    assert_eq!(unit, "active\nenabled\n");
    let secrets = lab.secrets(&changed);
    let mut login = lab.login(nodes[0], 15432, &secrets);
    "reports".clone_into(&mut login.user);
    "reporting".clone_into(&mut login.database);
    secrets.value("reports-password").clone_into(&mut login.password);
    assert_eq!(login.ask("select current_user::text").as_deref(), Ok("reports"));
}

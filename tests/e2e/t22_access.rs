//! A change of who gets into PostgreSQL, under load: what locks the applications out is tried on one
//! replica, taken back there, and never reaches the primary; what does not goes to all.

use std::time::Instant;

use crate::harness::{Lab, Load, PATIENCE, Ran, figure, seconds, until};

const RULES: &str = "/var/lib/postgresql/15/main/pg_hba.conf";
const NOTE: &str = "/var/lib/reconcile/access";
const PSQL: &str = "cd /; setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtqc";

/// What stands in the server's rules, and when it came there.
fn rules(lab: &Lab, node: &str) -> (String, String) {
    (lab.sh(node, &format!("stat -c %y {RULES}")), lab.sh(node, &format!("cat {RULES}")))
}

fn with(lab: &Lab, rule: &str) -> std::path::PathBuf {
    let text = lab.example();
    let changed =
        text.replace("    version: 15\n", &format!("    version: 15\n    hba: [{rule}]\n"));
    assert_ne!(changed, text, "the example names PostgreSQL's version");
    lab.write("access.yaml", &changed)
}

/// A run that ends with holds, and each server's file is one of them.
fn held(lab: &Lab, ran: &Ran, why: &str) {
    assert_eq!(ran.code, Some(3), "{ran}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for node in lab.nodes() {
        let file = format!("{node}:/etc/patroni/patroni.yml: needs a person: ");
        let line = said.lines().find(|line| line.contains(&file));
        assert!(line.is_some_and(|line| line.contains(why)), "{node}: {why}\n{ran}");
    }
}

#[test]
fn rules_are_proven_on_a_replica_and_taken_back_where_they_lock_out() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let primary = lab.primary();
    let nodes: Vec<String> = lab.nodes().into_iter().map(str::to_owned).collect();
    let before: Vec<_> = nodes.iter().map(|node| rules(&lab, node).1).collect();
    let untouched = rules(&lab, &primary);
    // A membership that the file does not know of: only the server can tell that the rule is about the
    // application.
    let sql = |statement: &str| lab.sh(&primary, &format!("{PSQL} \"{statement}\""));
    sql("drop role if exists kept_out");
    sql("create role kept_out; grant kept_out to app");
    let logins: Vec<_> = nodes.iter().map(|node| lab.login(node, 15432, &secrets)).collect();
    let load = Load::start(&logins);

    // The rules alone tell: nothing is tried.
    let sweeping =
        with(&lab, "{ type: host, database: all, user: all, address: all, method: reject }");
    let ran = lab.reconcile(&sweeping, &["--plain"]);
    held(&lab, &ran, "would lock out app to database auth from ");
    for node in &nodes {
        lab.sh(node, &format!("test ! -e {NOTE} || ! grep -q trying {NOTE}"));
    }

    let lockout =
        with(&lab, "{ type: host, database: all, user: +kept_out, address: all, method: reject }");
    let began = Instant::now();
    let refused = lab.reconcile(&lockout, &["--plain"]);
    let took = began.elapsed();
    held(&lab, &refused, "pg_hba.conf rejects connection");
    refused.says("the access rules were taken back: app to database auth");
    let tried: Vec<&String> = nodes
        .iter()
        .filter(|node| {
            lab.sh(node, &format!("cat {NOTE} 2>/dev/null || :")).starts_with("refused ")
        })
        .collect();
    assert!(tried.len() == 1 && *tried[0] != primary, "tried on {tried:?}");
    assert_eq!(rules(&lab, &primary), untouched, "the primary's rules were not even written");
    let now: Vec<_> = nodes.iter().map(|node| rules(&lab, node).1).collect();
    assert_eq!(now, before, "each server has its old rules");
    lab.sh(tried[0], "! ls -A /etc/patroni | grep -q before");
    // It is not tried again.
    let again = lab.reconcile(&lockout, &["--plain"]);
    held(&lab, &again, "pg_hba.conf rejects connection");
    assert!(!again.stderr.contains("update "), "{again}");

    // What PostgreSQL would not start with is found, too.
    let broken =
        with(&lab, "{ type: host, database: all, user: all, address: 10.99.0.0/16, method: ldap }");
    let ran = lab.reconcile(&broken, &["--plain"]);
    held(&lab, &ran, "PostgreSQL does not take `host all all 10.99.0.0/16 ldap`");

    let good = with(&lab, "{ type: host, database: auth, user: app, address: 10.99.0.0/16 }");
    let began = Instant::now();
    let ran = lab.reconcile(&good, &["--plain"]).expect(0).says("and serves");
    let proven = began.elapsed();
    // Patroni notices a file when its round is over.
    for node in &nodes {
        until("the rules to be in force", PATIENCE, || {
            let now = rules(&lab, node).1;
            if now.contains("10.99.0.0/16") { Ok(()) } else { Err(format!("{node}\n{ran}\n{now}")) }
        });
    }
    lab.reconcile(&good, &["--plain"]).expect(0).says("0 steps done");

    // A replica that lost its power half-way, with rules that nobody has proven in force.
    let config = "/etc/patroni/patroni.yml";
    let cut = format!(
        "cd /etc/patroni && cp patroni.yml .patroni.yml.before && echo 'trying another' >{NOTE} &&
         sed -i 's/^  pg_hba:$/&\\n    - \"host all app 0.0.0.0\\/0 reject\"/' {config} && systemctl reload patroni"
    );
    lab.sh(tried[0], &cut);
    lab.sh(tried[0], &format!("grep -q reject {config}"));
    let cut = lab.plan(&good);
    let why = cut["steps"][0]["reason"].as_str().unwrap_or_default();
    assert_eq!(why, "a trial of access rules was cut off here", "{cut:#}");
    lab.reconcile(&good, &["--plain"]).expect(0);
    lab.sh(tried[0], &format!("! grep -q reject {config} && grep -q ^proven {NOTE}"));
    lab.reconcile(&good, &["--plain"]).expect(0).says("0 steps done");

    lab.reconcile(&spec, &["--plain"]).expect(0).says("and serves");
    until("the old rules to be in force", PATIENCE, || {
        let back: Vec<_> = nodes.iter().map(|node| rules(&lab, node).1).collect();
        if back == before { Ok(()) } else { Err(format!("{back:#?}")) }
    });
    lab.reconcile(&spec, &["--plain"]).expect(0).says("0 steps done");
    let seen = load.end();
    sql("drop role kept_out");
    figure(
        "access rules that lock the applications out, under 50 writes/s",
        "tried on one replica, taken back, 0 failed",
        &format!(
            "taken back in {}, good rules on all servers in {}; {} failed of {}",
            seconds(took),
            seconds(proven),
            seen.failed(),
            seen.done()
        ),
    );
    assert_eq!(seen.failed(), 0, "{seen}");
}

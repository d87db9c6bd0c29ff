//! Specifications and secrets for tests and benches.
//!
//! Meant for tests alone: it panics where a test's own specification is wrong.

use reconcile_core::{
    desired::{Desired, Secrets, desired},
    model::SecretText,
};
use reconcile_spec::{ClusterSpec, secrets::required_secrets, valid::SwarmRole};

/// The part of a specification that follows the hosts.
pub const DATABASE: &str = "  postgresql:
    parameters: { work_mem: 16MB }
    roles:
      - { name: app, password: { secret: app } }
      - { name: report, password: { secret: report }, memberOf: [readers], connectionLimit: 5 }
      - { name: readers, login: false }
    databases:
      - { name: app, owner: app, extensions: [pg_stat_statements, pgcrypto], schemas: [billing] }
      - { name: archive, owner: app, encoding: UTF8 }
";

/// YAML of a cluster with so many full members and so many plain Swarm workers.
pub fn yaml(members: usize, workers: usize) -> String {
    let mut text = String::from(
        "apiVersion: reconcile/v1alpha1
kind: PostgresCluster
metadata: { name: main }
spec:
  ssh: { user: root, knownHosts: known_hosts }
  hosts:
",
    );
    for number in 1..=members + workers {
        let address = format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, 1 + number % 250);
        text.push_str(&format!("    - {{ name: node{number}, address: {address}"));
        if number > members {
            text.push_str(", components: []");
        }
        text.push_str(" }\n");
    }
    text.push_str(DATABASE);
    text
}

/// The specification of [`yaml`], changed by `change`.
///
/// # Panics
/// If the YAML is not valid.
pub fn spec(members: usize, workers: usize, change: impl FnOnce(&mut ClusterSpec)) -> ClusterSpec {
    load(&yaml(members, workers), change)
}

/// The specification of [`yaml`] from which these servers are to leave.
///
/// # Panics
/// If the YAML is not valid.
pub fn spec_without(members: usize, workers: usize, leaving: &[&str]) -> ClusterSpec {
    let leaves = |line: &str| leaving.iter().any(|name| line.contains(&format!("name: {name},")));
    let text = yaml(members, workers);
    let lines = text.lines().map(|line| {
        if leaves(line) { line.replace(" }", ", leaving: true }\n") } else { format!("{line}\n") }
    });
    load(&lines.collect::<String>(), |_| {})
}

#[expect(clippy::panic, reason = "only tests call it")]
fn load(text: &str, change: impl FnOnce(&mut ClusterSpec)) -> ClusterSpec {
    let loaded = match reconcile_spec::load("test.yaml", text) {
        Ok(loaded) => loaded,
        Err(faults) => panic!("the test's specification is wrong:\n{faults}"),
    };
    let Some(valid) = loaded.clusters.into_iter().next() else { panic!("no cluster") };
    let mut spec = valid.into_inner();
    change(&mut spec);
    spec
}

/// No server takes part in a Swarm.
pub fn no_docker(spec: &mut ClusterSpec) {
    for host in &mut spec.hosts {
        host.swarm = SwarmRole::None;
    }
}

/// A value for each secret that the specification needs; each holds the word `canary`.
pub fn secrets(spec: &ClusterSpec) -> Secrets {
    required_secrets(spec)
        .into_iter()
        .map(|need| {
            let value = SecretText::new(format!("canary-{}-7Qx", need.name));
            (need.name.to_string(), value)
        })
        .collect()
}

/// The desired state of a specification with the secrets of [`secrets`].
///
/// # Panics
/// If a secret is missing, which cannot be.
#[expect(clippy::panic, reason = "only tests call it")]
pub fn desire(spec: &ClusterSpec) -> Desired {
    match desired(spec, &secrets(spec)) {
        Ok(desired) => desired,
        Err(missing) => panic!("secrets are missing: {missing:?}"),
    }
}

//! What clients and Docker's own commands see of a converged cluster.

use crate::harness::{Lab, Login, PATIENCE, Secrets, until};

#[test]
fn applications_write_and_read_through_every_node() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let tell = |login: &Login, statement: &str| {
        login.ask(statement).unwrap_or_else(|error| panic!("{error}"))
    };
    let first = lab.login(lab.nodes()[0], 15432, &secrets);
    tell(&first, "create table if not exists e2e_notes (node text primary key, word text)");
    for (number, node) in lab.nodes().into_iter().enumerate() {
        let word = format!("{number}-{}", std::process::id());
        let write = lab.login(node, 15432, &secrets);
        tell(
            &write,
            &format!(
                "insert into e2e_notes values ('{node}', '{word}') \
                 on conflict (node) do update set word = excluded.word"
            ),
        );
        assert_eq!(tell(&write, "select pg_is_in_recovery()::text"), "false", "writes on {node}");
        let read = lab.login(node, 5433, &secrets);
        assert_eq!(tell(&read, "select pg_is_in_recovery()::text"), "true", "reads on {node}");
        until(&format!("the row to be read through {node}"), PATIENCE, || {
            let seen = read.ask(&format!("select word from e2e_notes where node = '{node}'"))?;
            if seen == word { Ok(()) } else { Err(seen) }
        });
    }
    tell(&first, "drop table e2e_notes");
    assert_eq!(tell(&first, "select digest('x', 'md5') is not null"), "t", "pgcrypto is there");
    overlay(&lab, &secrets);
    docker_views(&lab);
    // None of this is anything for the operator to do.
    lab.reconcile(&spec, &["plan", "--exit-code"]).expect(0);
}

/// A container on the overlay reaches `haproxy`, on every node.
fn overlay(lab: &Lab, secrets: &Secrets) {
    for node in lab.nodes() {
        for (port, replica) in [(5432, "f"), (5433, "t")] {
            // The password goes in on standard input, so that not even this test shows it.
            let script = format!(
                "docker run --rm -i --network saasodoo-network {}/client:1 sh -c '
                    read -r PGPASSWORD; export PGPASSWORD
                    psql -XAtq -h haproxy -p {port} -U app -d auth -c \"select pg_is_in_recovery()\"
                ' <<'END'\n{}\nEND",
                lab.info.registry,
                secrets.value("app-password")
            );
            let told = lab.sh(node, &script);
            assert_eq!(told.trim(), replica, "haproxy:{port} from a container on {node}");
        }
    }
}

/// The commands that people of a Swarm know show a stack like any other.
fn docker_views(lab: &Lab) {
    let node = lab.nodes()[0];
    let stacks = lab.sh(node, "docker stack ls --format '{{.Name}} {{.Services}}'");
    assert_eq!(stacks.trim(), "db-utils 4");
    let services =
        lab.sh(node, "docker stack services db-utils --format '{{.Name}} {{.Replicas}}'");
    let all = format!("{0}/{0}", lab.nodes().len());
    for service in ["haproxy", "pgbouncer", "pgbouncer-read", "router"] {
        let line = format!("db-utils_{service} {all}");
        assert!(services.lines().any(|shown| shown.trim() == line), "no `{line}` in\n{services}");
    }
    let tasks = "docker service ps db-utils_haproxy --filter desired-state=running \
                 --format '{{.Node}} {{.CurrentState}}'";
    let tasks = lab.sh(node, tasks);
    for node in lab.nodes() {
        let runs = tasks.lines().any(|line| line.starts_with(&format!("{node} Running")));
        assert!(runs, "no task of the front runs on {node}:\n{tasks}");
    }
}

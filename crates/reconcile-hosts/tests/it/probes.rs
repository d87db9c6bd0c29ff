//! Probes: the script's text, and its parser on answers that lab servers gave (Debian 12, etcd
//! 3.4.23, Patroni 3.0.2, PostgreSQL 15.18, Docker 20.10.24), whole and broken.

use std::{collections::BTreeSet, fmt::Write as _};

use reconcile_core::{
    model::{ClaimKind, FileKind, HostFacts, LocalSwarmState, Observation, PatroniRole},
    probe::{ProbeFile, ProbeRequest, SqlProbe},
};
use reconcile_hosts::probe::{Marks, RoundTrip, marking_script, parse_probe, probe_script};

const PRIMARY: &[u8] = include_bytes!("../fixtures/primary.txt");
const REPLICA: &[u8] = include_bytes!("../fixtures/replica.txt");
const NO_QUORUM: &[u8] = include_bytes!("../fixtures/noquorum.txt");
const NO_CURL: &[u8] = include_bytes!("../fixtures/nocurl.txt");
const BARE: &[u8] = include_bytes!("../fixtures/bare.txt");

const CLOCK: RoundTrip = RoundTrip { sent: 1_795_000_000_000, received: 1_795_000_000_100 };

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
        pooler_of: Some("demo".to_owned()),
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

pub(crate) fn whole_script() -> String {
    probe_script(&request("198.51.100.11"))
}

/// What a shell that stays open is given.
pub(crate) fn marking() -> String {
    let known = Marks {
        sockets: "00000000:0016 0 23\n".to_owned(),
        files: "/var/lib/docker/swarm 7 2026-11-22 10:00:00.000000000 +0000\n".to_owned(),
    };
    marking_script(&request("198.51.100.11"), &known)
}

fn facts(answer: &[u8], address: &str) -> HostFacts {
    parse_probe(&request(address), answer, CLOCK).unwrap()
}

#[test]
fn a_primary_tells_everything() {
    let facts = facts(PRIMARY, "198.51.100.11");
    assert_eq!((facts.os.id.as_str(), facts.os.version.as_str()), ("debian", "12"));
    assert_eq!((facts.os.architecture.as_str(), facts.os.hostname.as_str()), ("amd64", "node1"));
    assert_eq!(facts.packages["etcd-server"].version, "3.4.23-4+b4");
    assert!(facts.packages["patroni"].complete);
    assert!(!facts.packages.contains_key("jq") && !facts.packages.contains_key("dpkg"));

    let file = &facts.files["/etc/default/etcd"];
    assert_eq!((file.kind, file.mode, file.owner.as_str()), (FileKind::File, 0o644, "root"));
    assert!(file.text.as_ref().unwrap().starts_with("ETCD_NAME=node1\n"));
    let secret = &facts.files["/etc/patroni/patroni.yml"];
    assert_eq!((secret.digest.len(), secret.mode, &secret.text), (64, 0o640, &None));
    assert_eq!(facts.files["/etc/mtab"].kind, FileKind::Link);

    let etcd = &facts.units["etcd.service"];
    assert_eq!((etcd.active.as_str(), etcd.enabled.as_str()), ("active", "enabled"));
    assert!(etcd.main_pid > 0 && etcd.started_at > 1_795_000_000);
    assert_eq!(facts.units["postgresql.service"].enabled, "disabled");
    assert!(!facts.units.contains_key("haproxy.service"));

    let listener = facts.listeners.iter().find(|listener| listener.port == 5432).unwrap();
    assert_eq!(
        (listener.process.as_str(), listener.unit.as_str()),
        ("postgres", "patroni.service")
    );
    assert!(facts.listeners.iter().any(|listener| listener.port == 22 && listener.address == "::"));
    assert!(facts.listeners.is_sorted());

    assert!(facts.data_dirs["/var/lib/etcd/demo"].populated);
    assert!(!facts.data_dirs["/mnt"].populated);
    // A file in the way of a directory is not an empty directory.
    assert!(facts.data_dirs["/etc/hosts"].populated);
    let data = &facts.data_dirs["/var/lib/postgresql/15/demo"];
    assert_eq!(data.system_identifier.as_deref(), Some("7710850588455246053"));
    assert!(facts.disks["/var/lib/postgresql/15/main"].free_bytes > 1_000_000_000);

    let docker = facts.docker.present().unwrap();
    assert_eq!(
        (docker.version.as_str(), docker.swarm.state),
        ("20.10.24+dfsg1", LocalSwarmState::Inactive)
    );
    assert_eq!(facts.manifest.cluster.as_deref(), Some("demo"));
    assert!(facts.manifest.claims(ClaimKind::EtcdFormed, "demo"));
}

#[test]
fn a_primary_tells_of_etcd_patroni_and_sql() {
    let facts = facts(PRIMARY, "198.51.100.11");
    let etcd = facts.etcd.present().unwrap();
    assert!(etcd.healthy && etcd.version == "3.4.23" && etcd.db_size_bytes > 0);
    let names: Vec<&str> = etcd.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    assert!(etcd.members.iter().any(|member| member.id == etcd.leader_id));

    let patroni = facts.patroni.present().unwrap();
    assert_eq!((patroni.role, patroni.state.as_str()), (PatroniRole::Primary, "running"));
    assert_eq!((patroni.version.as_str(), patroni.scope.as_str()), ("3.0.2", "demo"));
    assert_eq!(patroni.replication.len(), 2);
    assert!(patroni.replication.iter().all(|standby| standby.state == "streaming"));
    let config = patroni.config.as_ref().unwrap();
    assert!(config.starts_with(r#"{"loop_wait":5,"postgresql":"#), "{config}");
    assert_eq!(patroni.system_identifier, "7710850588455246053");

    let sql = facts.sql.present().unwrap();
    let app = &sql.roles["app"];
    assert!(app.login && !app.superuser && app.connection_limit == -1);
    assert_eq!(app.password_digest.as_ref().unwrap().len(), 64);
    assert!(!sql.roles.keys().any(|name| name.starts_with("pg_")));
    let database = &sql.databases["app"];
    assert_eq!((database.owner.as_str(), database.encoding.as_str()), ("app", "UTF8"));
    assert!(database.extensions.as_ref().unwrap().contains_key("pgcrypto"));
    assert!(database.schemas.as_ref().unwrap().contains("pgbouncer"));
    assert_eq!(database.pooler_lookup.as_ref().unwrap().len(), 64);
    assert!(sql.databases["template0"].extensions.is_none());
    assert_eq!(sql.altered["work_mem"], "8MB");
    assert!(sql.probe_table);
    // Verifiers of passwords stay on the server.
    assert!(!PRIMARY.windows(6).any(|window| window == b"SCRAM-"));
}

#[test]
fn a_replica_streams_by_its_receivers_word() {
    let facts = facts(REPLICA, "198.51.100.12");
    let patroni = facts.patroni.present().unwrap();
    assert_eq!(patroni.role, PatroniRole::Replica);
    assert!(patroni.streaming);
    assert_eq!(patroni.lag_bytes, Some(0));
    assert!(facts.sql.is_absent());

    // Without PostgreSQL's own word the cluster's list has to do.
    let answer = edit(REPLICA, |name, body| match name {
        "sql" | "sql.rc" | "sql.err" => None,
        _ => Some(body.to_vec()),
    });
    assert!(self::facts(&answer, "198.51.100.12").patroni.present().unwrap().streaming);
}

#[test]
fn without_a_quorum_the_member_list_is_not_believed() {
    let facts = facts(NO_QUORUM, "198.51.100.11");
    let etcd = facts.etcd.present().unwrap();
    assert!(!etcd.healthy);
    assert!(etcd.members.is_empty());
}

#[test]
fn without_curl_what_listens_is_unknown_and_docker_is_asked_by_its_client() {
    let facts = facts(NO_CURL, "198.51.100.13");
    assert!(facts.docker.present().is_some());
    assert!(facts.patroni.reason().unwrap().contains("Patroni at http://198.51.100.13:8008"));
    assert!(facts.etcd.reason().is_some());
    assert!(facts.sql.is_absent());
}

#[test]
fn a_bare_server_has_nothing_and_that_is_known() {
    let facts = facts(BARE, "203.0.113.11");
    assert!(facts.docker.is_absent() && facts.etcd.is_absent());
    assert!(facts.patroni.is_absent() && facts.sql.is_absent());
    assert!(facts.manifest.cluster.is_none() && facts.manifest.claims.is_empty());
    let dirs: Vec<&str> = facts.data_dirs.keys().map(String::as_str).collect();
    assert_eq!(dirs, ["/etc/hosts", "/mnt"]);
    assert!(facts.disks.contains_key("/var/lib/docker"));
}

#[test]
fn the_clock_is_compared_at_the_middle() {
    let answer = edit(BARE, |name, body| match name {
        "begin" => Some(b"1795000005000\n".to_vec()),
        "end" => Some(b"1795000005100\n".to_vec()),
        _ => Some(body.to_vec()),
    });
    assert_eq!(facts(&answer, "203.0.113.11").clock_offset_ms, 5_000);
}

#[test]
fn what_a_login_shell_prints_first_is_passed_over() {
    let mut answer = b"Welcome!\n".to_vec();
    answer.extend_from_slice(BARE);
    facts(&answer, "203.0.113.11");
    let why = parse_probe(&request("x"), b"This account is not available.\n", CLOCK).unwrap_err();
    assert!(why.contains("This account is not available."), "{why}");
}

#[test]
fn an_answer_cut_off_anywhere_is_an_error() {
    let request = request("198.51.100.11");
    for length in (0..PRIMARY.len()).step_by(7) {
        assert!(parse_probe(&request, &PRIMARY[..length], CLOCK).is_err(), "{length}");
    }
}

/// A section alone: gone, cut in half, or garbage. Nothing panics; nothing broken reads as absent.
#[test]
fn a_broken_section_is_never_an_absence() {
    let request = request("198.51.100.11");
    let whole = facts(PRIMARY, "198.51.100.11");
    let mut names = Vec::new();
    edit(PRIMARY, |name, body| {
        names.push(name.to_owned());
        Some(body.to_vec())
    });
    let must =
        ["begin", "end", "boot", "hostname", "packages", "stat", "units", "listeners", "dirs"];
    for broken in &names {
        for how in 0..3 {
            let answer = edit(PRIMARY, |name, body| match how {
                _ if name != broken => Some(body.to_vec()),
                0 => None,
                1 => Some(body[..body.len() / 2].to_vec()),
                _ => Some(b"\xff\xfe\0garbage\t{]\n\n\t\n".to_vec()),
            });
            let Ok(facts) = parse_probe(&request, &answer, CLOCK) else { continue };
            assert!(how != 0 || !must.contains(&broken.as_str()), "{broken} is needed");
            let told = format!("{broken}, way {how}");
            // A Patroni that does not say who it is is no Patroni, and so on.
            for (unknown, absent) in [
                (facts.etcd.reason().is_some(), facts.etcd.is_absent()),
                (facts.patroni.reason().is_some(), facts.patroni.is_absent()),
            ] {
                assert!(!absent || unknown || broken == "listeners", "{told}");
            }
            if broken.starts_with("etcd") {
                assert_eq!(facts.patroni, whole.patroni, "{told}");
                assert_eq!(facts.sql, whole.sql, "{told}");
            }
            if broken.starts_with("sql") && how != 0 {
                assert!(!facts.sql.is_absent(), "{told}");
                assert_eq!(facts.patroni, whole.patroni, "{told}");
            }
            if broken == "docker" {
                assert!(facts.docker.reason().is_some(), "{told}");
                assert_eq!(facts.etcd, whole.etcd, "{told}");
            }
        }
    }
}

#[test]
fn tools_that_fail_fail_the_probe() {
    let request = request("198.51.100.11");
    for (section, text, said) in [
        ("stat.err", "stat: cannot statx '/etc/x': Permission denied\n", "Permission denied"),
        ("entries.err", "find: '/srv/pg': Input/output error\n", "Input/output error"),
        ("ss.rc", "127\n", "iproute2"),
        ("packages", "", "dpkg-query"),
        ("units.rc", "1\n", "systemctl"),
        ("sums", "", "cannot be read"),
    ] {
        let answer = edit(PRIMARY, |name, body| {
            Some(if name == section { text.as_bytes().to_vec() } else { body.to_vec() })
        });
        let why = parse_probe(&request, &answer, CLOCK).unwrap_err();
        assert!(why.contains(said), "{section}: {why}");
    }
}

#[test]
fn postgresql_that_answers_in_part_is_unknown() {
    for (section, text) in [
        ("sql.err", "psql:<stdin>:9: ERROR:  canceling statement due to statement timeout\n"),
        ("sql.rc", "124\n"),
        ("sql", "{\"kind\": \"server\", \"standby\": false}\n"),
        ("sql", ""),
    ] {
        let answer = edit(PRIMARY, |name, body| {
            Some(if name == section { text.as_bytes().to_vec() } else { body.to_vec() })
        });
        let facts = facts(&answer, "198.51.100.11");
        assert!(matches!(facts.sql, Observation::Unknown { .. }), "{section}: {:?}", facts.sql);
    }
}

#[test]
fn docker_that_is_installed_but_silent_is_unknown() {
    for (section, how) in [("docker.have", None), ("http", Some("000\tdocker\trefused\n"))] {
        let answer = edit(PRIMARY, |name, body| {
            if name == section {
                how.map(|text| text.as_bytes().to_vec())
            } else {
                Some(body.to_vec())
            }
        });
        let facts = facts(&answer, "198.51.100.11");
        assert!(facts.docker.reason().is_some(), "{section}: {:?}", facts.docker);
    }
}

#[test]
fn docker_that_is_stopped_is_told_in_words() {
    let refused =
        "000\tdocker\tFailed to connect to docker port 80 after 0 ms: Couldn't connect to server\n";
    let answer = edit(PRIMARY, |name, body| {
        Some(if name == "http" { refused.as_bytes().to_vec() } else { body.to_vec() })
    });
    let facts = facts(&answer, "198.51.100.11");
    let told = facts.docker.reason().expect("it may be in a Swarm");
    assert_eq!(told, "Docker does not run there: nobody answers at its socket");
}

#[test]
fn the_last_word_in_the_manifest_counts_and_half_a_line_does_not() {
    let text = "cluster shop\nclaim file /etc/a\nclaim file /etc/b 12ab\nrelease file /etc/a\n\
                claim nonsense x\n\nclaim swarm swarm\nclaim data-dir /var/lib/pg";
    let answer = edit(BARE, |_, body| Some(body.to_vec()));
    let answer = add(&add(&answer, "manifest", text), "manifest.rc", "0\n");
    let manifest = facts(&answer, "203.0.113.11").manifest;
    assert_eq!(manifest.cluster.as_deref(), Some("shop"));
    let names: Vec<&str> = manifest.claims.iter().map(|claim| claim.name.as_str()).collect();
    assert_eq!(names, ["/etc/b", "swarm"]);
}

#[test]
fn the_script_is_a_shells_and_holds_only_what_was_asked() {
    let text = probe_script(&request("198.51.100.11"));
    assert_eq!(text, probe_script(&request("198.51.100.11")));
    super::actions::check_syntax("probe", &text);
    super::actions::check_syntax("probe with marks", &marking());
    let empty = probe_script(&ProbeRequest::default());
    super::actions::check_syntax("empty probe", &empty);
    for word in ["curl", "psql", "systemctl", "sha256sum", "find"] {
        assert!(text.contains(word) && !empty.contains(word), "{word}");
    }
}

#[test]
fn what_differs_is_told_with_when_it_was_changed_and_who_was_there() {
    let answer = add(
        &edit(PRIMARY, |_, body| Some(body.to_vec())),
        "changed.0",
        "1795000000\nalice 192.0.2.7\nroot\nalice 192.0.2.7\n",
    );
    let file = &facts(&answer, "198.51.100.11").files["/etc/default/etcd"];
    let changed = file.changed.as_ref().unwrap();
    assert_eq!(
        changed.to_string(),
        "last changed 2026-11-18 11:06Z, while these were logged in: alice (192.0.2.7), root"
    );
    let silent = facts(&edit(PRIMARY, |_, body| Some(body.to_vec())), "198.51.100.11");
    assert_eq!(silent.files["/etc/default/etcd"].changed, None);
}

#[test]
fn names_from_outside_stay_words() {
    let nasty = "/etc/a b'$(touch /tmp/x)`id`\"";
    let mut request = request("198.51.100.11");
    request.files[0].path = nasty.to_owned();
    request.units.insert("we ird'.service".to_owned());
    request.data_dirs.insert(nasty.to_owned());
    request.disks.insert(nasty.to_owned());
    super::actions::check_syntax("nasty probe", &probe_script(&request));
}

/// The answer with its sections changed (None removes one).
fn edit(answer: &[u8], mut change: impl FnMut(&str, &[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let text = |needle: &[u8]| answer.windows(needle.len()).position(|w| w == needle).unwrap();
    let (begin, data) = (text(b"@@probe 1\n") + 10, text(b"@@data\n"));
    let table = std::str::from_utf8(&answer[begin..data]).unwrap();
    let mut bytes = &answer[data + 7..];
    let mut sections = Vec::new();
    for row in table.lines() {
        let (size, name) = row.trim().split_once(' ').unwrap();
        if name != "total" {
            let (body, rest) = bytes.split_at(size.parse().unwrap());
            bytes = rest;
            if let Some(body) = change(name, body) {
                sections.push((name.to_owned(), body));
            }
        }
    }
    frame(&sections)
}

/// The answer with one more section.
fn add(answer: &[u8], name: &str, body: &str) -> Vec<u8> {
    let mut sections = Vec::new();
    edit(answer, |name, body| {
        sections.push((name.to_owned(), body.to_vec()));
        None
    });
    sections.push((name.to_owned(), body.as_bytes().to_vec()));
    frame(&sections)
}

fn frame(sections: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut table = String::from("@@probe 1\n");
    for (name, body) in sections {
        writeln!(table, "{:5} {name}", body.len()).unwrap();
    }
    table.push_str("@@data\n");
    let mut answer = table.into_bytes();
    for (_, body) in sections {
        answer.extend_from_slice(body);
    }
    answer.extend_from_slice(b"@@end\n");
    answer
}

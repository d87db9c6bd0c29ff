//! What people do in a terminal: psql on the primary, logs as they are written, the status as it
//! changes. Nothing of it shows a secret or stays behind on a server.

use std::{io::Write as _, path::Path, process::Command, time::Duration};

use crate::harness::{Job, Lab, PATIENCE, ProcessWatch, Ran, Secrets, seconds, until};

const SOON: Duration = Duration::from_secs(30);
/// What runs on a server for somebody who is gone.
const LEFT: &str =
    "ps -eo args | grep -E '[r]econcile-follow|[j]ournalctl|[d]ocker service logs|[p]sql' || true";

fn psql(lab: &Lab, spec: &Path, arguments: &[&str]) -> Ran {
    lab.reconcile(spec, &[&["psql"], arguments].concat())
}

/// `reconcile` with arguments; `-f` stands before what may be for psql.
fn command(lab: &Lab, spec: &Path, arguments: &[&str]) -> Command {
    let mut command = lab.command(spec);
    command.args(arguments);
    command
}

/// An entry of etcd's journal, as `logger` takes it.
fn entry(text: &str) -> String {
    format!("MESSAGE={text}\\nSYSLOG_IDENTIFIER=etcd\\nOBJECT_SYSTEMD_UNIT=etcd.service\\n")
}

fn nothing_left(lab: &Lab) {
    for node in lab.nodes() {
        until(&format!("nothing of ours to run on {node}"), SOON, || {
            let left = lab.sh(node, LEFT);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

/// Statements, errors and exit codes as psql has them; signals reach the statement.
fn in_scripts(lab: &Lab, spec: &Path) {
    let run = |arguments: &[&str]| {
        Job::start(command(lab, spec, &[&["psql", "--"], arguments].concat())).wait(PATIENCE)
    };
    let ran = run(&["-Atc", "select current_user, pg_is_in_recovery(), 'it''s $HOME'"]).expect(0);
    assert_eq!(ran.stdout, "postgres|f|it's $HOME\n");
    println!("psql -c 'select …': {}", seconds(ran.took));
    let ran = run(&["-c", "select nonsense"]).expect(1);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("\"nonsense\" does not exist"), "{ran}");

    let (job, mut typed) = Job::talk(command(lab, spec, &["psql", "--", "-At"]));
    typed.write_all(b"\\set ON_ERROR_STOP on\nselect 40 + 2;\n").expect("it reads");
    until("the answer", SOON, || (job.said() == "42\n").then_some(()).ok_or(job.said()));
    typed.write_all(b"select nonsense;\n").expect("it reads");
    drop(typed);
    job.wait(SOON).expect(3);

    let sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
    let asleep = |count: &str| {
        until(&format!("{count} statements to sleep"), SOON, || {
            let ran = run(&["-Atc", sleeping]).expect(0);
            if ran.stdout.trim() == count { Ok(()) } else { Err(ran.to_string()) }
        });
    };
    for (signal, code) in [("INT", 1), ("TERM", 143)] {
        let job = Job::start(command(lab, spec, &["psql", "--", "-c", "select pg_sleep(600)"]));
        asleep("1");
        job.signal(signal);
        job.wait(SOON).expect(code);
        asleep("0");
    }
}

/// In a terminal that `script` makes: prompt, Ctrl-C, and the exit code of what was typed.
fn in_a_terminal(lab: &Lab, spec: &Path) {
    let line = format!("{} psql -- -d auth", lab.binary().display());
    let mut command = lab.command(spec);
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
    for (name, value) in command.get_envs() {
        script.env(name, value.expect("it is set"));
    }
    command = script;
    let (job, mut typed) = Job::talk(command);
    let mut says = |typing: &[u8], answer: &str| {
        typed.write_all(typing).expect("it reads");
        typed.flush().expect("it reads");
        until(answer, SOON, || job.said().contains(answer).then_some(()).ok_or(job.said()));
    };
    says(b"", "auth=# ");
    says("select 'ü' as umlaut;\r".as_bytes(), " ü");
    says(b"select 40 + 2 as answer, inet_server_addr() is null as local;\r", "     42 | t");
    says(b"\\pset pager off\r", "Pager usage is off.");
    says(b"select pg_sleep(600);\r", "pg_sleep(600);");
    says(b"\x03", "canceling statement due to user request");
    typed.write_all(b"\\q\r").expect("it reads");
    job.wait(SOON).expect(0);
}

/// New lines of all servers within moments; a stream that is cut is taken up, and of a line none is
/// lost and none comes twice. In the order of time, but for a line that a server was late to tell.
fn logs_are_followed(lab: &Lab, spec: &Path) {
    let mark = |node: &str, name: &str| {
        let entry = entry(&format!("mark {name}"));
        lab.sh(node, &format!("printf '{entry}' | logger --journald"));
    };
    let marks = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split("mark ").nth(1).map(str::to_owned)).collect()
    };
    let job = lab.start(spec, &["logs", "etcd", "--follow", "--lines", "1"]);
    let shows = |job: &Job, what: &str| {
        until(what, SOON, || {
            job.said().contains(what).then_some(()).ok_or(job.said() + &job.told())
        });
    };
    for node in lab.nodes() {
        shows(&job, &format!(" {node}: "));
    }
    // A server that is starved writes its journal when it can: one round of three has to be in order.
    let mut wanted = Vec::new();
    let in_order = (0..3).any(|round| {
        let names: Vec<_> = (0..9).map(|number| format!("{round}.{number};")).collect();
        for (number, name) in names.iter().enumerate() {
            mark(lab.nodes()[number % 3], name);
        }
        wanted.extend(names.clone());
        until("all marks", SOON, || {
            let said = job.said();
            let there = wanted.iter().all(|name| said.contains(name));
            if there { Ok(()) } else { Err(said + &job.told()) }
        });
        marks(&job.said()).ends_with(&names)
    });
    assert!(in_order, "{}", job.said());
    // Cut, it is taken up; what was written meanwhile is not lost, and nothing comes twice.
    lab.sh(lab.nodes()[0], "pkill -f '^reconcile-follow$'");
    for (node, name) in [(lab.nodes()[0], "cut;"), (lab.nodes()[1], "after;")] {
        mark(node, name);
        shows(&job, name);
        wanted.push(name.to_owned());
    }
    job.signal("INT");
    let ran = job.wait(SOON).expect(0);
    let mut seen = marks(&ran.stdout);
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted, "{ran}");
    nothing_left(lab);

    // A service: a task that is killed says so, on whatever node.
    let job = lab.start(spec, &["logs", "haproxy", "--follow", "--lines", "1"]);
    until("a line of each task", SOON, || {
        let said = job.said();
        let all = lab.nodes().iter().all(|node| said.contains(&format!(" {node} haproxy.")));
        if all { Ok(()) } else { Err(said + &job.told()) }
    });
    let before = job.said().len();
    lab.sh(lab.nodes()[1], "docker kill --signal USR1 $(docker ps -q -f name=db-utils_haproxy)");
    until("what the task says", SOON, || {
        let new = job.said()[before..].to_owned();
        let there = new.contains(&format!(" {} haproxy.", lab.nodes()[1]));
        if there { Ok(()) } else { Err(new + &job.told()) }
    });
    drop(job.kill());
    nothing_left(lab);
}

fn status_is_watched(lab: &Lab, spec: &Path) {
    let job = lab.start(spec, &["status", "--watch", "--interval", "1"]);
    until("two blocks", SOON, || {
        let blocks = job.said().matches("Cluster main\n").count();
        if blocks >= 2 { Ok(()) } else { Err(job.said()) }
    });
    lab.sh(lab.nodes()[2], "systemctl stop etcd");
    until("it to show", SOON, || {
        let said = job.said();
        let mut lines = said.lines().filter(|line| line.starts_with("EtcdHealthy"));
        if lines.any(|line| line.contains(" False ")) { Ok(()) } else { Err(said.clone()) }
    });
    lab.sh(lab.nodes()[2], "systemctl start etcd");
    job.signal("INT");
    let ran = job.wait(SOON).expect(0);
    assert!(ran.stderr.is_empty() && !ran.stdout.contains('\x1b'), "{ran}");
    // A closed pipe ends it.
    let line = format!("{} status --watch --no-proof --interval 1 -o json", lab.binary().display());
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", &format!("{line} | head -n 2 | wc -l")]);
    for (name, value) in lab.command(spec).get_envs() {
        shell.env(name, value.expect("it is set"));
    }
    assert_eq!(Job::start(shell).wait(SOON).expect(0).stdout, "2\n");
}

/// A slip in the file keeps nobody from looking and steering; what would change the cluster by it is
/// refused.
fn with_a_broken_file(lab: &Lab, spec: &Path) {
    lab.reconcile(spec, &[]).expect(0);
    let good = std::fs::read_to_string(spec).expect("read");
    std::fs::write(spec, good.replacen("PostgresCluster", "PostgresClutter", 1)).expect("written");
    let note = "The file is not taken; in force is what was taken of it";
    let status = lab.reconcile(spec, &["status"]);
    let select = ["psql", "--", "-Atc", "select 40 + 2"];
    let answer = Job::start(command(lab, spec, &select)).wait(PATIENCE);
    let pause = lab.reconcile(spec, &["pause", "--for", "5m"]);
    let resume = lab.reconcile(spec, &["resume"]);
    let logs = lab.reconcile(spec, &["logs", "etcd", "--lines", "1"]);
    let plan = lab.reconcile(spec, &["plan"]);
    std::fs::write(spec, good).expect("written");
    let status = status.expect(3).says(note).says("Operator  ");
    assert!(status.stdout.contains("all ") && status.stdout.contains("hold"), "{status}");
    assert_eq!(answer.expect(0).says(note).stdout, "42\n");
    pause.expect(0).says(note).says("main is paused until");
    resume.expect(0).says(note).says("main goes on");
    logs.expect(0).says(note);
    let plan = plan.expect(1).says("PostgresClutter");
    assert!(!plan.stderr.contains(note), "{plan}");
}

/// With the primary's server silent, it says so instead of going elsewhere.
fn without_a_primary(lab: &Lab, spec: &Path) {
    for node in lab.nodes() {
        lab.sh(node, "systemctl kill --kill-who=main --signal=STOP patroni");
    }
    let ran = psql(lab, spec, &[]);
    for node in lab.nodes() {
        lab.sh(node, "systemctl kill --kill-who=main --signal=CONT patroni");
    }
    ran.expect(1).says("Error: no primary is known: ");
}

#[test]
fn people_see_and_steer_from_a_terminal() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets: Secrets = lab.secrets(&spec);
    let watch = ProcessWatch::start(&secrets);
    in_scripts(&lab, &spec);
    in_a_terminal(&lab, &spec);
    with_a_broken_file(&lab, &spec);
    logs_are_followed(&lab, &spec);
    status_is_watched(&lab, &spec);
    without_a_primary(&lab, &spec);
    watch.finish();
    lab.await_ready(&spec);
    // A log that holds a secret, as no component writes one: it is cut out as it is followed.
    let value = secrets.value("app-password").to_owned();
    let node = lab.nodes()[0];
    let text = entry(&format!("canary {value}"));
    let job = lab.start(&spec, &["logs", "etcd", node, "--follow", "--lines", "5"]);
    until("the log", SOON, || (!job.said().is_empty()).then_some(()).ok_or(job.told()));
    lab.sh(node, &format!("printf '{text}' | logger --journald"));
    until("the line", SOON, || job.said().contains("canary").then_some(()).ok_or(job.said()));
    let ran = job.terminate(SOON).expect(0);
    assert!(ran.stdout.contains("canary <secret:app-password>"), "{}", ran.stdout.len());
    secrets.absent_from("logs --follow", &(ran.stdout + &ran.stderr));
    // Later tests look for values in the journals.
    lab.sh(node, "journalctl --rotate -q; journalctl --vacuum-time=1s -q");
}

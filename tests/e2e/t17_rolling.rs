//! Parameters that need a restart, raised and lowered under writes on long connections: each member
//! runs with the new value, no write fails and none is lost. Patroni's own bookkeeping is real here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio_postgres::{Config, NoTls};

use crate::harness::{Lab, Login, PATIENCE, figure, get_body, seconds, until};

/// Between two writes of one client.
const PACE: Duration = Duration::from_millis(50);
/// Longest wait of a client that issue 3 allows, and what a busy machine adds.
const WAIT: Duration = Duration::from_secs(3 + 3);

/// What a client saw.
struct Seen {
    acknowledged: u64,
    failed: Vec<String>,
    longest: Duration,
}

/// One long connection that writes rows until it is told to stop.
fn writer(login: Login, client: usize, stop: Arc<AtomicBool>) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        runtime.block_on(async {
            let (session, connection) = Config::new()
                .host(login.address.to_string())
                .port(login.port)
                .user(&login.user)
                .password(&login.password)
                .dbname(&login.database)
                .connect(NoTls)
                .await
                .expect("the application can log in");
            drop(tokio::spawn(connection));
            let mut seen = Seen { acknowledged: 0, failed: Vec::new(), longest: Duration::ZERO };
            while !stop.load(Ordering::Relaxed) && seen.failed.len() < 5 {
                let number = seen.acknowledged;
                let insert = format!("insert into rolling values ({client}, {number})");
                let started = Instant::now();
                match session.batch_execute(&insert).await {
                    Ok(()) => seen.acknowledged += 1,
                    Err(error) => seen.failed.push(error.to_string()),
                }
                seen.longest = seen.longest.max(started.elapsed());
                tokio::time::sleep(PACE).await;
            }
            seen
        })
    })
}

#[test]
fn parameters_that_need_a_restart_are_rolled_out_under_writes() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let secrets = lab.secrets(&spec);
    let owner = lab.login(lab.nodes()[0], 15432, &secrets);
    for statement in
        ["drop table if exists rolling", "create table rolling (client int, number int)"]
    {
        owner.ask(statement).expect("the application owns its database");
    }
    let rollouts = [
        ("raised", "max_connections: 300", "300", 1),
        ("lowered", "max_connections: 150", "150", 1),
        ("one raised, one lowered", "max_connections: 120, max_worker_processes: 16", "120", 1),
        (
            "shared_buffers, archive_mode",
            "max_connections: 120, shared_buffers: 160MB, archive_mode: on, archive_command: /bin/true",
            "120",
            1,
        ),
    ];
    let mut total = 0;
    for (what, parameters, connections, transactions) in rollouts {
        let text = lab.example().replace(
            "    version: 15\n",
            &format!("    version: 15\n    parameters: {{ {parameters} }}\n"),
        );
        let changed = lab.write("rolling.yaml", &text);
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = lab
            .nodes()
            .iter()
            .enumerate()
            .map(|(client, node)| {
                writer(lab.login(node, 15432, &secrets), client, Arc::clone(&stop))
            })
            .collect();
        let rolled = lab.reconcile(&changed, &["--plain"]);
        stop.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = writers.into_iter().map(|w| w.join().expect("it ended")).collect();
        let rolled = rolled.expect(0).says("and serves");
        let longest = seen.iter().map(|seen| seen.longest).max().unwrap_or_default();
        let written: u64 = seen.iter().map(|seen| seen.acknowledged).sum();
        let failed: Vec<String> = seen.into_iter().flat_map(|seen| seen.failed).collect();
        figure(
            &format!("rolling change under load: {what}"),
            "0 failed, 0 acknowledged lost",
            &format!(
                "{} in all, {} failed of {written}, longest wait {}",
                seconds(rolled.took),
                failed.len(),
                seconds(longest)
            ),
        );
        assert_eq!(failed, Vec::<String>::new(), "{what}\n{rolled}");
        assert!(longest <= WAIT, "{what}: a client waited for {}", seconds(longest));
        assert_eq!(
            rolled.stderr.matches("writers waited in the poolers").count(),
            transactions,
            "{what}\n{rolled}"
        );
        total += written;
        let rows = owner.ask("select count(*)::text from rolling").expect("it can be read");
        assert_eq!(rows, total.to_string(), "{what}: acknowledged rows and no others");
        for node in lab.nodes() {
            let running = lab.sh(
                node,
                "cd /; setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtqc 'show max_connections'",
            );
            assert_eq!(running.trim(), connections, "{what}: on {node}");
        }
        lab.reconcile(&changed, &["--plain"]).expect(0).says("0 steps done");
    }
    archived_wal_is_told(&lab);
    // A name that PostgreSQL does not have is refused before anything is looked at.
    let text = lab
        .example()
        .replace("    version: 15\n", "    version: 15\n    parameters: { shared_bufers: 1GB }\n");
    let misspelt = lab.write("misspelt.yaml", &text);
    lab.reconcile(&misspelt, &["validate"]).expect(1).says("did you mean `shared_buffers`?");
    lab.reconcile(&spec, &[]).expect(0);
}

/// How old the last archived WAL is, and the last failure, as monitoring asks for it.
fn archived_wal_is_told(lab: &Lab) {
    let spec = lab.dir().join("rolling.yaml");
    let job = lab.start(&spec, &["--watch", "--interval", "1", "--listen", "127.0.0.1:0"]);
    let address = until("the status endpoint's address", PATIENCE, || {
        let told = job.told();
        let url = told.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        url.and_then(|url| url.parse().ok()).ok_or(told)
    });
    let primary = lab.primary();
    let told = |metric: &str| {
        let text = get_body(address, "/metrics")?;
        let start = format!("reconcile_postgresql_{metric}_timestamp_seconds{{");
        let line = text.lines().find(|line| line.starts_with(&start) && line.contains(&primary));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.ok_or_else(|| format!("no {start} of {primary}"))
    };
    let sql = |statement: &str| {
        lab.sh(
            &primary,
            &format!(
                "cd /; setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtqc '{statement}'"
            ),
        )
    };
    let began: f64 = sql("select extract(epoch from now())").trim().parse().expect("seconds");
    // A record, for a segment without one is not switched.
    sql("select txid_current(), pg_switch_wal()");
    until("the archived segment in the metrics", PATIENCE, || {
        let at = told("last_archived")?;
        if at >= began.floor() { Ok(()) } else { Err(format!("{at} is before {began}")) }
    });
    assert!(told("last_archive_failure").is_err(), "nothing failed yet");
    job.terminate(PATIENCE).expect(0);
}

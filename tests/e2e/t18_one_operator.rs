//! One writer: of two operators the second waits and says for whom, takes over when the first is
//! gone, and one that was stopped past its lease does nothing more; a server refuses an old token.

use std::{path::Path, process::Command, thread::sleep, time::Duration};

use crate::harness::{Job, Lab, PATIENCE, figure, seconds, until};

/// The lease lasts 15 s; the next looks every 2 s.
const TAKE_OVER: Duration = Duration::from_secs(25);
const FILE: &str = "/etc/patroni/patroni.yml";

/// An operator with a journal and a lock of its own, as on a machine of its own.
fn operator(lab: &Lab, spec: &Path, name: &str) -> Job {
    let state = lab.dir().join(format!("state-{name}"));
    let state = state.to_str().expect("the lab's folder is text");
    lab.start(spec, &["--watch", "--state-dir", state])
}

fn await_word(job: &Job, word: &str, patience: Duration) {
    until(word, patience, || {
        let told = job.told();
        told.contains(word).then_some(()).ok_or(told)
    });
}

fn heals(lab: &Lab, node: &str, by: &Job) {
    let before = by.told().len();
    lab.sh(node, &format!("chmod 644 {FILE}"));
    until("the drift to be healed", PATIENCE, || {
        let mode = lab.sh(node, &format!("stat -c %a {FILE}"));
        (mode.trim() == "600").then_some(()).ok_or(by.told())
    });
    until("it to say so", PATIENCE, || {
        let told = by.told()[before..].to_owned();
        told.contains("ok    update").then_some(()).ok_or(told)
    });
}

/// What changes nothing needs no lease, and the status says who has it.
fn needs_no_lease(lab: &Lab, spec: &Path, holder: &Job) {
    lab.reconcile(spec, &["plan", "--exit-code"]).expect(0);
    let holds = format!("(process {}), lease renewed ", holder.id());
    lab.reconcile(spec, &["status", "--no-proof"]).expect(0).says("Operator  ").says(&holds);
}

/// With nobody left.
fn goes_on_alone(lab: &Lab, spec: &Path) {
    let nobody = "Operator  none: nobody keeps the cluster at its desired state";
    lab.reconcile(spec, &["status", "--no-proof"]).expect(0).says(nobody);
    lab.reconcile(spec, &[]).expect(0).says("and serves");
}

fn signal(job: &Job, name: &str) {
    let status = Command::new("kill").args([name, &job.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

#[test]
fn the_second_operator_waits_and_takes_over() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let nodes: Vec<String> = lab.nodes().into_iter().map(str::to_owned).collect();
    let node = nodes[1].as_str();

    let first = operator(&lab, &spec, "first");
    await_word(&first, "is as desired and serves", PATIENCE);
    println!("a switchover from its own machine asks it for the lease, and it goes on after");
    let (leader, state) = (lab.primary(), lab.dir().join("state-first"));
    let state = state.to_str().expect("the lab's folder is text");
    let began = std::time::Instant::now();
    lab.reconcile(&spec, &["switchover", "--state-dir", state]).expect(0).says("is the primary");
    figure(
        "a switchover beside a running `--watch`, which gives it the lease",
        "no process is stopped",
        &format!("{} from start to end", seconds(began.elapsed())),
    );
    assert_ne!(lab.primary(), leader);
    await_word(&first, "the lease was given back", PATIENCE);
    await_word(&first, "the lease is ours again", PATIENCE);
    let second = operator(&lab, &spec, "second");
    await_word(&second, "holds the lease of this cluster", PATIENCE);
    heals(&lab, node, &first);
    assert!(!second.told().contains("to do"), "{}", second.told());
    needs_no_lease(&lab, &spec, &first);

    println!("kill -9 of the holder");
    let began = std::time::Instant::now();
    first.kill();
    await_word(&second, "is as desired and serves", TAKE_OVER + PATIENCE);
    figure(
        "kill -9 of the operator that acts → the second one acts",
        &format!("≤ {}", seconds(TAKE_OVER)),
        &seconds(began.elapsed()),
    );
    assert!(began.elapsed() < TAKE_OVER, "{}", second.told());
    heals(&lab, node, &second);

    println!("a pause stops every operator, and its end lets it go on");
    let pause = ["pause", "--for", "5m", "--reason", "disk swap"];
    lab.reconcile(&spec, &pause).expect(0).says("main is paused until");
    await_word(&second, "disk swap", PATIENCE);
    lab.sh(node, &format!("chmod 644 {FILE}"));
    await_word(&second, "`reconcile resume` ends it", PATIENCE);
    lab.reconcile(&spec, &["switchover", "--state-dir", state]).expect(1).says("is paused by");
    assert_eq!(lab.sh(node, &format!("stat -c %a {FILE}")).trim(), "644");
    let psql = |sql: &str| {
        let leader = lab.primary();
        lab.sh(&leader, &format!("sudo -u postgres psql -h /var/run/postgresql -XAtc \"{sql}\""))
    };
    psql("ALTER SYSTEM SET work_mem = '48MB'");
    lab.reconcile(&spec, &["adopt"]).expect(0).says("+").says("work_mem: 48MB");
    lab.reconcile(&spec, &["resume"]).expect(0).says("main goes on");
    until("the drift to be healed", PATIENCE, || {
        let mode = lab.sh(node, &format!("stat -c %a {FILE}"));
        (mode.trim() == "600").then_some(()).ok_or(second.told())
    });
    lab.reconcile(&spec, &["resume"]).expect(0).says("is not paused");

    println!("SIGSTOP of the holder, past its lease");
    signal(&second, "-STOP");
    let third = operator(&lab, &spec, "third");
    await_word(&third, "is as desired and serves", TAKE_OVER + PATIENCE);
    heals(&lab, node, &third);
    signal(&second, "-CONT");
    await_word(&second, "the lease was lost", PATIENCE);
    until("it to wait again", PATIENCE, || {
        let told = second.told();
        let waits = told.matches("holds the lease of this cluster").count();
        (waits == 2).then_some(()).ok_or(told)
    });
    let before = second.told().len();
    heals(&lab, node, &third);
    sleep(Duration::from_secs(2));
    assert_eq!(second.told()[before..], *"", "it only waits");

    println!("a server that knows a newer token refuses");
    lab.sh(node, "echo '1000000 elsewhere/1/0' > /var/lib/reconcile/fence.main");
    lab.sh(node, &format!("chmod 644 {FILE}"));
    await_word(&third, "refused: elsewhere/1/0 holds the lease", PATIENCE);
    assert_eq!(lab.sh(node, &format!("stat -c %a {FILE}")).trim(), "644");
    println!(
        "until it is asked under a newer one still: whoever holds the lease gives it back for that"
    );
    await_word(&third, "the lease was given back", PATIENCE);
    until("the refused drift to be healed", PATIENCE, || {
        let mode = lab.sh(node, &format!("stat -c %a {FILE}"));
        (mode.trim() == "600").then_some(()).ok_or(second.told() + &third.told())
    });
    let fence = lab.sh(node, "cat /var/lib/reconcile/fence.main");
    let token = fence.split(' ').next().and_then(|token| token.parse::<u64>().ok());
    assert!(token.is_some_and(|token| token > 1_000_000), "{fence}");

    println!("a holder that ends in peace gives the lease back");
    signal(&third, "-TERM");
    let began = std::time::Instant::now();
    await_word(&second, "the lease is ours", TAKE_OVER);
    println!("the other took over after {}", seconds(began.elapsed()));
    until("the refused drift to be healed", PATIENCE, || {
        let mode = lab.sh(node, &format!("stat -c %a {FILE}"));
        (mode.trim() == "600").then_some(()).ok_or(second.told())
    });
    drop(second);
    sleep(Duration::from_secs(20));
    goes_on_alone(&lab, &spec);
}

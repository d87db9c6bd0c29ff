//! Two operators, changes by hand and kills for as long as `RECONCILE_DUEL` says, in seconds: no step
//! of one runs inside a step of the other, and nothing is healed twice.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::harness::{Job, Lab, figure, seconds, setting, until};

/// A lease runs out, the other wins it, looks, and heals.
const HEALED: Duration = Duration::from_secs(90);
const NAMES: [&str; 2] = ["left", "right"];
/// A file that nothing is told of, and one whose change restarts etcd.
const FILES: [&str; 2] =
    ["/etc/postgresql-common/createcluster.d/reconcile.conf", "/etc/default/etcd"];

fn operator(lab: &Lab, spec: &Path, name: &str) -> Job {
    let state = lab.dir().join(format!("state-{name}"));
    let state = state.to_str().expect("the lab's folder is text");
    lab.start(spec, &["--watch", "--listen", "off", "--interval", "3", "--state-dir", state])
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs_f64()
}

fn journal(lab: &Lab, name: &str) -> Vec<Value> {
    let path = lab.dir().join(format!("state-{name}/main/journal.jsonl"));
    let text = std::fs::read_to_string(&path).expect("the journal is there");
    // The last line may be cut off by a kill.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// From when to when an operator did something to what.
struct Span {
    who: &'static str,
    object: String,
    from: f64,
    to: f64,
    done: bool,
}

/// A step of which no end is noted ended with its operator.
fn spans(who: &'static str, entries: &[Value], kills: &[f64]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open: Vec<(u64, usize)> = Vec::new();
    for entry in entries {
        let at = entry["at"].as_f64().unwrap_or_default();
        let step = entry["step"].as_u64().unwrap_or_default();
        match entry["kind"].as_str() {
            Some("started") => {
                let killed = kills.iter().copied().find(|kill| *kill >= at);
                let object = entry["object"].as_str().unwrap_or_default().to_owned();
                open.retain(|(other, _)| *other != step);
                open.push((step, spans.len()));
                spans.push(Span { who, object, from: at, to: killed.unwrap_or(at), done: false });
            }
            Some("finished" | "waits") => {
                if let Some(place) = open.iter().position(|(other, _)| *other == step) {
                    let (_, index) = open.remove(place);
                    spans[index].to = at;
                    spans[index].done = entry["kind"] == "finished" && entry["error"].is_null();
                }
            }
            _ => {}
        }
    }
    spans
}

#[test]
fn two_operators_never_interleave_and_heal_once() {
    let mut lab = Lab::shared();
    let spec = lab.converged();
    let nodes: Vec<String> = lab.nodes().into_iter().map(str::to_owned).collect();
    for name in NAMES {
        // What an earlier run of this test noted does not count.
        let _absent = std::fs::remove_dir_all(lab.dir().join(format!("state-{name}")));
    }
    let mut jobs = NAMES.map(|name| Some(operator(&lab, &spec, name)));
    let mut kills: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    let mut changes: Vec<(f64, String)> = Vec::new();
    let lasts = Duration::from_secs(setting("RECONCILE_DUEL", 60));
    let began = Instant::now();
    let mut round = 0;
    while began.elapsed() < lasts {
        let (node, path) = (&nodes[round % nodes.len()], FILES[round / 2 % FILES.len()]);
        changes.push((now(), format!("{node}:{path}")));
        lab.sh(node, &format!("printf '# by hand {round}\\n' >> {path}"));
        std::thread::sleep(Duration::from_millis((round as u64 * 37 % 13) * 150));
        let victim = round % 2;
        if let Some(job) = jobs[victim].take() {
            job.kill();
        }
        kills[victim].push(now());
        jobs[victim] = Some(operator(&lab, &spec, NAMES[victim]));
        until("the change to be undone", HEALED, || {
            let left = lab.try_sh(node, &format!("grep -c 'by hand {round}$' {path} || :"));
            (left.stdout.trim() == "0").then_some(()).ok_or_else(|| {
                jobs.iter().flatten().map(Job::told).collect::<Vec<_>>().join("\n--- the other\n")
            })
        });
        round += 1;
    }
    let took = began.elapsed();
    drop(jobs);
    let [left, right] =
        [0, 1].map(|index| spans(NAMES[index], &journal(&lab, NAMES[index]), &kills[index]));
    for one in &left {
        for other in &right {
            let apart = one.to <= other.from || other.to <= one.from;
            assert!(
                apart,
                "{} {} {:.3}–{:.3} and {} {} {:.3}–{:.3}",
                one.who,
                one.object,
                one.from,
                one.to,
                other.who,
                other.object,
                other.from,
                other.to
            );
        }
    }
    for (index, (at, object)) in changes.iter().enumerate() {
        let next = changes.get(index + 1).map_or(f64::MAX, |(next, _)| *next);
        let heals = left.iter().chain(&right).filter(|span| {
            span.done && span.object == *object && span.from >= *at && span.from < next
        });
        assert!(heals.count() <= 1, "{object} was healed more than once");
    }
    let steps = left.iter().chain(&right).filter(|span| span.done).count();
    assert!(left.iter().any(|span| span.done) || right.iter().any(|span| span.done));
    figure(
        "two operators, changes and kills",
        "no step twice, none interleaved, 10 min",
        &format!("{}: {round} changes and kills, {steps} steps, none", seconds(took)),
    );
    std::thread::sleep(Duration::from_secs(20));
    lab.reconcile(&spec, &[]).expect(0).says("and serves");
}

//! The watch: a trigger makes a pass, a step that keeps failing slows down nothing else, and events
//! without end make no tries without pause; what waits or fails neither deafens nor blocks it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use reconcile_core::{
    action::{Action, HostAction},
    model::{ClaimKind, HostFacts, HostName, Observed, PauseNote, SwarmFacts},
    ports::{EffectError, Fleet, Retry},
    probe::{ProbeRequest, SwarmRequest},
    verify::{Proof, VerifyReport, VerifyRequest},
};
use reconcile_engine::watch::{Current, Prove, Refresh, Rhythm, Source, watch};
use reconcile_sim::{Reach, SimFleet, World, fixture};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::run::converged;

const FILE: &str = "/etc/default/etcd";
const CREATE: &str = "/etc/postgresql-common/createcluster.d/reconcile.conf";
const HAND: &[u8] = b"# by hand\n";
const BROKEN: &str = "/etc/systemd/system/patroni.service";

const NODE3: &[(&str, &str)] = &[("node3", BROKEN)];

/// A fleet on which some files cannot be written, and which waits for etcd in vain.
struct Stubborn<'a> {
    fleet: &'a SimFleet,
    retry: Option<Retry>,
    broken: &'static [(&'static str, &'static str)],
    tries: &'a std::sync::Mutex<Vec<Instant>>,
}

impl Fleet for Stubborn<'_> {
    type Switching = SimFleet;

    fn switching(&self) -> &SimFleet {
        self.fleet
    }

    fn now(&self) -> u64 {
        self.fleet.now()
    }

    async fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        self.fleet.observe_host(host, request).await
    }
    async fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        self.fleet.observe_swarm(via, request).await
    }
    async fn perform(&self, action: &Action, deadline: Duration) -> Result<(), EffectError> {
        if let (Some(retry), Action::Host(host, HostAction::WriteFile { file, .. })) =
            (self.retry, action)
            && self.broken.contains(&(host.as_str(), &file.path))
        {
            self.tries.lock().unwrap().push(Instant::now());
            return Err(EffectError::new(Some(host), "write it", "the disk is full", retry));
        }
        if let Action::Host(host, HostAction::AwaitEtcd { .. }) = action {
            tokio::time::sleep(deadline).await;
            self.tries.lock().unwrap().push(Instant::now());
            let seen = format!("/health is not true after {} s", deadline.as_secs());
            return Err(EffectError::new(Some(host), "await etcd", seen, Retry::Later));
        }
        self.fleet.perform(action, deadline).await
    }
    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        self.fleet.verify(request).await
    }
    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.fleet.round_trips()
    }
}

struct Once<'a>(Option<Box<Current<Stubborn<'a>>>>);

impl<'a> Source for Once<'a> {
    type Fleet = Stubborn<'a>;
    fn refresh(&mut self) -> Refresh<Stubborn<'a>> {
        self.0.take().map_or(Refresh::Unchanged, Refresh::Changed)
    }
}

struct NoProof;

impl<F: Sync> Prove<F> for NoProof {
    async fn prove(&self, _: &Current<F>, _: &Observed, _: bool) -> VerifyReport {
        VerifyReport { proofs: Vec::new() }
    }
}

const RHYTHM: Rhythm = Rhythm {
    interval: Duration::from_secs(3600),
    poll: Duration::from_millis(500),
    debounce: Duration::from_millis(200),
    prove_every: Duration::from_secs(60),
    jitter: || 0.0,
};

fn edit(world: &mut World, host: &str, path: &str) {
    world.server_mut(host).files.get_mut(path).unwrap().bytes.extend_from_slice(b"# by hand\n");
}

fn edited(fleet: &SimFleet, host: &str) -> bool {
    fleet.world().server_mut(host).files[FILE].bytes.ends_with(b"# by hand\n")
}

/// Watches a converged world on which `retry` is how one file fails, while `during` goes on.
async fn watched<D: Future<Output = ()>>(
    retry: Option<Retry>,
    during: impl FnOnce(&'static SimFleet, mpsc::Sender<()>) -> D,
) -> Vec<Instant> {
    watched_by(retry, NODE3, RHYTHM, &NoProof, during).await
}

async fn watched_by<D: Future<Output = ()>>(
    retry: Option<Retry>,
    broken: &'static [(&'static str, &'static str)],
    rhythm: Rhythm,
    prover: &impl Prove<Stubborn<'static>>,
    during: impl FnOnce(&'static SimFleet, mpsc::Sender<()>) -> D,
) -> Vec<Instant> {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    for (host, path) in broken.iter().filter(|_| retry.is_some()) {
        edit(&mut world, host, path);
    }
    let fleet: &'static SimFleet = Box::leak(Box::new(SimFleet::new(world)));
    let tries: &'static std::sync::Mutex<Vec<Instant>> = Box::leak(Box::default());
    let stubborn = Stubborn { fleet, retry, broken, tries };
    let mut source = Once(Some(Box::new(Current { desired, fleet: stubborn, revision: None })));
    let (dirty, mut triggers) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let watching = watch(&mut source, prover, &mut triggers, rhythm, &(), &stop);
    let during = async {
        during(fleet, dirty).await;
        stop.cancel();
    };
    tokio::join!(watching, during);
    assert_eq!(fleet.world().violations, Vec::<String>::new());
    std::mem::take(&mut tries.lock().unwrap())
}

async fn rest(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn a_trigger_makes_a_pass_and_a_pass_makes_no_other() {
    watched(None, async |fleet, dirty| {
        rest(5_000).await;
        fleet.change(|world| edit(world, "node2", FILE));
        rest(60_000).await;
        assert!(edited(fleet, "node2"), "nobody told, and the timer is far away");
        dirty.send(()).await.unwrap();
        rest(1_000).await;
        assert!(!edited(fleet, "node2"));
        rest(5_000).await;
        let looks = fleet.reads();
        rest(600_000).await;
        assert_eq!(fleet.reads(), looks, "nothing happens, nothing is looked at");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_step_that_keeps_failing_slows_down_nothing_else() {
    // Something happens all the time for a minute, and two more files are edited meanwhile.
    let storm = async |fleet: &'static SimFleet, dirty: mpsc::Sender<()>| {
        for second in 0..60 {
            if second == 20 || second == 50 {
                fleet.change(|world| {
                    edit(world, "node1", "/etc/postgresql-common/createcluster.d/reconcile.conf");
                });
            }
            for _ in 0..10 {
                let _held = dirty.try_send(());
                rest(100).await;
            }
            if second == 22 || second == 52 {
                let path = "/etc/postgresql-common/createcluster.d/reconcile.conf";
                let file = fleet.world().server_mut("node1").files[path].clone();
                assert!(!file.bytes.ends_with(b"# by hand\n"), "healed at second {second}");
            }
        }
    };
    let tries = watched(Some(Retry::Later), storm).await;
    assert!((5..=8).contains(&tries.len()), "{} tries in a minute", tries.len());
    let pauses: Vec<u64> = tries.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert!(pauses.is_sorted(), "each pause is as long as the one before: {pauses:?}");
    let tries = watched(Some(Retry::AfterChange), storm).await;
    assert_eq!(tries.len(), 1, "a step that needs a person is not tried again");
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_and_its_end_lets_go_without_a_word() {
    let rhythm = Rhythm { interval: Duration::from_secs(10), ..RHYTHM };
    watched_by(None, NODE3, rhythm, &NoProof, async |fleet, dirty| {
        rest(5_000).await;
        fleet.change(|world| {
            let (by, reason) = ("anna@ops1".to_owned(), String::new());
            let note = PauseNote { number: 1, until: world.now + 100, by, reason };
            world.server_mut("node1").pause = Some(note);
            edit(world, "node2", FILE);
        });
        dirty.send(()).await.unwrap();
        rest(60_000).await;
        assert!(edited(fleet, "node2"), "the cluster is paused");
        fleet.change(|world| world.now += 100);
        rest(11_000).await;
        assert!(!edited(fleet, "node2"), "the pause ended by itself");
    })
    .await;
}

/// Takes note away that etcd was formed: the plan waits for it, and this fleet waits in vain.
fn unform(world: &mut World, host: &str) {
    let claims = &mut world.server_mut(host).manifest.claims;
    claims.retain(|claim| claim.kind != ClaimKind::EtcdFormed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_does_not_deafen_the_watch() {
    let began = Instant::now();
    let tries = watched(None, async |fleet, dirty| {
        rest(1_000).await;
        fleet.change(|world| unform(world, "node2"));
        dirty.send(()).await.unwrap();
        for second in [10, 40, 100] {
            tokio::time::sleep_until(began + Duration::from_secs(second)).await;
            fleet.change(|world| edit(world, "node1", CREATE));
            rest(8_000).await;
            let healed = !fleet.world().server_mut("node1").files[CREATE].bytes.ends_with(HAND);
            assert!(healed, "nobody told, and yet it is looked at while something is waited for");
        }
        // Waited for over its deadline of 180 s, it is a failure that is tried at growing pauses.
        tokio::time::sleep_until(began + Duration::from_secs(900)).await;
    })
    .await;
    let pauses: Vec<u64> = tries.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert!(pauses[..20].iter().all(|pause| *pause <= 8), "{pauses:?}");
    assert!(*pauses.last().unwrap() >= 60, "{pauses:?}");
    let ended = Instant::now();
    assert!(ended - began < Duration::from_secs(910), "a stop waits for one short wait at most");
}

#[tokio::test(start_paused = true)]
async fn a_single_run_waits_for_the_whole_deadline() {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    unform(&mut world, "node2");
    let fleet = SimFleet::new(world);
    let tries = std::sync::Mutex::default();
    let stubborn = Stubborn { fleet: &fleet, retry: None, broken: &[], tries: &tries };
    let stop = CancellationToken::new();
    let ended = reconcile_engine::converge(&stubborn, &desired, &(), &stop).await.unwrap();
    let causes: Vec<&str> = ended.errors.iter().map(|error| error.cause.as_str()).collect();
    assert_eq!(causes, ["/health is not true after 180 s"]);
}

#[tokio::test(start_paused = true)]
async fn a_disruptive_step_that_fails_blocks_no_other() {
    let node1: &[(&str, &str)] = &[("node1", FILE)];
    for retry in [Retry::Later, Retry::AfterChange] {
        let tries = watched_by(Some(retry), node1, RHYTHM, &NoProof, async |fleet, dirty| {
            rest(100).await;
            fleet.change(|world| edit(world, "node2", FILE));
            dirty.send(()).await.unwrap();
            rest(5_000).await;
            assert!(edited(fleet, "node1"));
            assert!(!edited(fleet, "node2"), "it had its turn while the other one rests");
        })
        .await;
        assert!(!tries.is_empty());
    }
    // Nor does one that disturbs nothing and fails all the time.
    watched(Some(Retry::Later), async |fleet, dirty| {
        rest(100).await;
        fleet.change(|world| edit(world, "node2", FILE));
        dirty.send(()).await.unwrap();
        rest(5_000).await;
        assert!(!edited(fleet, "node2"), "it had its turn while the other one rests");
    })
    .await;
}

/// Notes each time whether a commit was to be proven.
#[derive(Default)]
struct Asked(std::sync::Mutex<Vec<bool>>);

impl<F: Sync> Prove<F> for Asked {
    async fn prove(&self, _: &Current<F>, _: &Observed, commit: bool) -> VerifyReport {
        let mut asked = self.0.lock().unwrap();
        asked.push(commit);
        VerifyReport { proofs: Vec::new() }
    }
}

#[tokio::test(start_paused = true)]
async fn service_is_proven_on_the_timer_while_something_fails() {
    let rhythm = Rhythm { interval: Duration::from_secs(10), ..RHYTHM };
    for retry in [None, Some(Retry::AfterChange)] {
        let asked = Asked::default();
        watched_by(retry, NODE3, rhythm, &asked, async |_, _| rest(601_000).await).await;
        let asked = asked.0.into_inner().unwrap();
        assert!((10..=11).contains(&asked.len()), "{} proofs in ten minutes", asked.len());
        assert!(!asked.contains(&true), "nothing was changed");
    }
}

/// A way in that can freeze: a proof sees it, and so does whoever asks whether it answers. Notes when it
/// was proven, since the first.
#[derive(Default)]
struct Way {
    frozen: AtomicBool,
    /// It does not answer, and serves all the same.
    mute: AtomicBool,
    proven: std::sync::Mutex<Vec<Instant>>,
    asked: AtomicUsize,
}

impl<F: Sync> Prove<F> for Way {
    async fn prove(&self, _: &Current<F>, _: &Observed, _: bool) -> VerifyReport {
        self.proven.lock().unwrap().push(Instant::now());
        let holds = !self.frozen.load(Ordering::Relaxed);
        if !holds {
            rest(1_000).await;
        }
        let (what, detail) = ("write".to_owned(), String::new());
        let proof = Proof { what, holds, detail, ..Proof::default() };
        VerifyReport { proofs: vec![proof] }
    }

    async fn answers(&self, _: &Current<F>, _: &Observed) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        !self.frozen.load(Ordering::Relaxed) && !self.mute.load(Ordering::Relaxed)
    }
}

impl Way {
    /// Proofs after a moment, in seconds from it.
    fn since(&self, from: Instant) -> Vec<u64> {
        let proven = self.proven.lock().unwrap();
        let after = proven.iter().filter(|at| **at >= from);
        after.map(|at| (*at - from).as_secs()).collect()
    }
}

const TEN: Rhythm = Rhythm { interval: Duration::from_secs(10), ..RHYTHM };

#[tokio::test(start_paused = true)]
async fn what_gives_no_answer_is_proven_soon_and_again_until_it_serves() {
    let way = Way::default();
    watched_by(None, NODE3, TEN, &way, async |_, _| {
        rest(125_000).await;
        assert_eq!(way.proven.lock().unwrap().len(), 3, "nothing happens: once a minute");
        assert!(way.asked.load(Ordering::Relaxed) <= 13, "and it is asked in each look at most");
        let froze = Instant::now();
        way.frozen.store(true, Ordering::Relaxed);
        rest(100_000).await;
        let proofs = way.since(froze);
        assert!(proofs[0] <= 10, "{proofs:?}");
        assert!((5..=7).contains(&proofs.len()), "less and less often: {proofs:?}");
        let thawed = Instant::now();
        way.frozen.store(false, Ordering::Relaxed);
        rest(60_000).await;
        let proofs = way.since(thawed);
        assert!(proofs[0] <= 11 && proofs.len() <= 2, "it answers again: {proofs:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_serves_without_an_answer_is_not_proven_over_and_over() {
    let way = Way::default();
    way.mute.store(true, Ordering::Relaxed);
    watched_by(None, NODE3, TEN, &way, async |_, _| rest(601_000).await).await;
    let proofs = way.proven.lock().unwrap().len();
    assert!((11..=16).contains(&proofs), "{proofs} in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_to_change_is_proven_soon_and_a_storm_of_it_now_and_then() {
    let way = Way::default();
    let refuses = || Reach::Refuses("connection refused".to_owned());
    watched_by(None, NODE3, TEN, &way, async |fleet, dirty| {
        rest(30_000).await;
        let lost = Instant::now();
        fleet.change(|world| world.server_mut("node2").reach = refuses());
        dirty.send(()).await.unwrap();
        rest(3_000).await;
        assert_eq!(way.since(lost).len(), 1, "a server is lost");
        rest(20_000).await;
        assert_eq!(way.since(lost).len(), 1, "and nothing new");
        fleet.change(|world| world.server_mut("node2").reach = Reach::Answers);
        dirty.send(()).await.unwrap();
        rest(3_000).await;
        assert_eq!(way.since(lost).len(), 2, "it is back");
        let storm = Instant::now();
        for round in 0..60 {
            let reach = if round % 2 == 0 { refuses() } else { Reach::Answers };
            fleet.change(|world| world.server_mut("node2").reach = reach);
            dirty.send(()).await.unwrap();
            rest(1_000).await;
        }
        let proofs = way.since(storm);
        assert!((6..=13).contains(&proofs.len()), "{proofs:?}");
    })
    .await;
}

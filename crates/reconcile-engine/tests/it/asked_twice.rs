//! One answer that is lost, late or lacks a part is asked for once more before anything is concluded;
//! what is silent for long is not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use reconcile_core::{
    action::Action,
    model::{ClaimKind, HostFacts, HostName, Observation, Observed, SwarmFacts},
    plan::Verb,
    ports::{EffectError, Fleet, Retry},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};
use reconcile_engine::{
    look,
    watch::{Current, Prove, Refresh, Rhythm, Source, watch},
};
use reconcile_sim::{SimFleet, World, fixture};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::run::converged;

/// How node1 answers.
#[derive(Clone, Copy)]
enum Answer {
    Lost(Retry),
    Late(u64),
    /// Nothing for so many seconds, and then the connection breaks.
    Breaks(u64),
    /// Patroni did not answer in time.
    Without,
    /// Nor did it tell its configuration.
    NoConfig,
    /// PostgreSQL did not.
    NoSql,
    Whole,
}

use Answer::{Breaks, Late, Lost, NoConfig, NoSql, Whole, Without};

/// Node1 answers so, and in the end like this for ever; the others are always well.
struct Shaky {
    fleet: SimFleet,
    answers: Mutex<VecDeque<Answer>>,
    last: Answer,
    asked: Mutex<usize>,
}

impl Shaky {
    fn new(world: World, answers: &[Answer], last: Answer) -> Self {
        let (fleet, answers) =
            (SimFleet::new(world), Mutex::new(answers.iter().copied().collect()));
        Self { fleet, answers, last, asked: Mutex::default() }
    }

    fn asked(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Fleet for &Shaky {
    type Switching = SimFleet;

    fn switching(&self) -> &SimFleet {
        &self.fleet
    }
    fn now(&self) -> u64 {
        self.fleet.now()
    }
    async fn observe_host(
        &self,
        host: &HostName,
        request: &ProbeRequest,
    ) -> Result<HostFacts, EffectError> {
        let mut facts = self.fleet.observe_host(host, request).await;
        if let Ok(facts) = &mut facts {
            // As a real server has it.
            if request.etcd.is_none() {
                facts.etcd = Observation::unknown("was not asked");
            }
            if request.patroni.is_none() {
                facts.patroni = Observation::unknown("was not asked");
                facts.sql = Observation::unknown("was not asked");
            }
        }
        if host.as_str() != "node1" {
            return facts;
        }
        *self.asked.lock().unwrap() += 1;
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(self.last);
        let mut facts = facts?;
        match answer {
            Whole => {}
            Lost(retry) => {
                return Err(EffectError::new(Some(host), "observe node1", "reset", retry));
            }
            Late(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Breaks(seconds) => {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                return Err(EffectError::new(Some(host), "observe node1", "reset", Retry::Soon));
            }
            Without => facts.patroni = Observation::unknown("no answer within 2 s"),
            NoSql => facts.sql = Observation::unknown("no answer within 2 s"),
            NoConfig => {
                if let Observation::Known(Some(patroni)) = &mut facts.patroni {
                    patroni.config = None;
                }
            }
        }
        Ok(facts)
    }
    async fn observe_swarm(
        &self,
        via: &HostName,
        request: &SwarmRequest,
    ) -> Result<SwarmFacts, EffectError> {
        self.fleet.observe_swarm(via, request).await
    }
    async fn perform(&self, action: &Action, deadline: Duration) -> Result<(), EffectError> {
        self.fleet.perform(action, deadline).await
    }
    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        self.fleet.verify(request).await
    }
    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.fleet.round_trips()
    }
}

/// One look at a converged cluster whose primary is node1: what is known of its Patroni, how often it
/// was asked, and for how long.
async fn looked(answers: &[Answer], last: Answer) -> (bool, usize, Duration) {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let shaky = Shaky::new(converged(&desired).await, answers, last);
    let started = Instant::now();
    let pass = look(&&shaky, &desired, &()).await.unwrap();
    let known = pass.observed.host(&"node1".into()).is_some_and(|facts| {
        facts.patroni.present().is_some_and(|patroni| patroni.config.is_some())
    });
    assert!(!known || pass.plan.is_converged(), "{:?}", pass.plan);
    let waits = pass.plan.steps.iter().all(|step| step.verb == Verb::Await);
    assert!(waits, "a doubt is no reason to do anything: {:?}", pass.plan.steps);
    (known, shaky.asked(), started.elapsed())
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn one_answer_that_is_lost_or_late_is_asked_for_once_more() {
    let (known, asked, took) = looked(&[], Whole).await;
    assert!(known && asked == 1 && took < SECOND, "all is well: one round trip");
    for answers in [[Lost(Retry::Soon)], [Lost(Retry::Later)], [Without], [NoConfig]] {
        let (known, asked, took) = looked(&answers, Whole).await;
        assert!(known && asked == 2 && took < SECOND, "{known} {asked} {took:?}");
    }
    let (known, asked, took) = looked(&[Late(9)], Whole).await;
    assert!(known && asked == 2 && took < 5 * SECOND, "{known} {asked} {took:?}");
    let (known, asked, took) = looked(&[Late(9)], Lost(Retry::Soon)).await;
    assert!(known && asked == 2 && took < 10 * SECOND, "the late one comes: {took:?}");
    let (known, asked, took) = looked(&[Breaks(5)], Late(3)).await;
    assert!(known && asked == 2 && took < 8 * SECOND, "the second one comes: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_stays_silent_is_unknown_and_within_bounds() {
    for last in [Lost(Retry::Soon), Without, NoConfig, Late(60)] {
        let (known, asked, took) = looked(&[], last).await;
        assert!(!known && asked == 2 && took <= 11 * SECOND, "{known} {asked} {took:?}");
    }
    let (known, asked, _) = looked(&[], Lost(Retry::AfterChange)).await;
    assert!(!known && asked == 1, "a login that is refused is refused again");
}

struct Once<'a>(Option<Box<Current<&'a Shaky>>>);

impl<'a> Source for Once<'a> {
    type Fleet = &'a Shaky;
    fn refresh(&mut self) -> Refresh<&'a Shaky> {
        self.0.take().map_or(Refresh::Unchanged, Refresh::Changed)
    }
}

/// Notes each time whether a commit was to be proven; it holds.
#[derive(Default)]
struct Asked(Mutex<Vec<bool>>);

impl<F: Sync> Prove<F> for Asked {
    async fn prove(&self, _: &Current<F>, observed: &Observed, commit: bool) -> VerifyReport {
        self.0.lock().unwrap().push(commit);
        let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
        VerifyReport { proofs: reconcile_core::verify::observed_proofs(&desired, observed) }
    }
}

const RHYTHM: Rhythm = Rhythm {
    interval: Duration::from_secs(10),
    poll: Duration::from_millis(500),
    debounce: Duration::from_millis(200),
    prove_every: Duration::from_secs(3600),
    jitter: || 0.0,
};

/// Watches a world for so many seconds: how often node1 was asked, and the proofs.
async fn watched(
    change: impl FnOnce(&mut World),
    answers: &[Answer],
    last: Answer,
    seconds: u64,
) -> (usize, Vec<bool>) {
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    change(&mut world);
    let shaky = Shaky::new(world, answers, last);
    let mut source = Once(Some(Box::new(Current { desired, fleet: &shaky, revision: None })));
    let (asked, stop) = (Asked::default(), CancellationToken::new());
    let (_dirty, mut triggers) = mpsc::channel(1);
    let watching = watch(&mut source, &asked, &mut triggers, RHYTHM, &(), &stop);
    let end = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.cancel();
    };
    tokio::join!(watching, end);
    assert_eq!(shaky.fleet.world().violations, Vec::<String>::new());
    (shaky.asked(), asked.0.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_is_silent_for_long_is_asked_once_a_pass() {
    // Passes at 0, 10, … 50 s; in the second it falls silent.
    for silence in [NoSql, Lost(Retry::Soon)] {
        let (asked, _) = watched(|_| {}, &[Whole], silence, 55).await;
        assert_eq!(asked, 6 + 1);
    }
    let (asked, proofs) =
        watched(|_| {}, &[Whole, Without, Whole, Lost(Retry::Soon)], Whole, 55).await;
    assert_eq!(asked, 6 + 2);
    assert_eq!(proofs, [false], "nothing was done, nothing is committed");
}

#[tokio::test(start_paused = true)]
async fn what_was_only_waited_for_is_proven_without_a_trace() {
    let unform = |world: &mut World| {
        let claims = &mut world.server_mut("node2").manifest.claims;
        claims.retain(|claim| claim.kind != ClaimKind::EtcdFormed);
    };
    assert_eq!(watched(unform, &[], Whole, 55).await.1, [false]);
    let edit = |world: &mut World| {
        let files = &mut world.server_mut("node2").files;
        files.get_mut("/etc/default/etcd").unwrap().bytes.extend_from_slice(b"# by hand\n");
    };
    assert_eq!(watched(edit, &[], Whole, 55).await.1, [true]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_asked_of_a_server_is_not_missed() {
    let desired = fixture::desire(&fixture::spec(3, 1, |_| {}));
    let shaky = Shaky::new(converged(&desired).await, &[], Whole);
    look(&&shaky, &desired, &()).await.unwrap();
    let probes = shaky.fleet.round_trips();
    assert_eq!(probes[&HostName::new("node4")], 1, "a worker: {probes:?}");
}

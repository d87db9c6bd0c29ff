//! A newer desired state during a long pass: it is taken after the steps at hand, and what only waits
//! is let go for it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use reconcile_core::{
    action::{Action, HostAction},
    desired::Desired,
    model::{Content, HostFacts, HostName, Observed, SwarmFacts},
    ports::{EffectError, Fleet, Retry},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};
use reconcile_engine::{
    Event, Listener,
    watch::{Current, Prove, Refresh, Rhythm, Source, watch},
};
use reconcile_sim::{SimFleet, World, fixture};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::run::converged;

const FILE: &str = "/etc/postgresql-common/createcluster.d/reconcile.conf";

/// Whose step it was, what it was, and when it began.
type Begun = Arc<Mutex<Vec<(&'static str, String, Instant)>>>;

/// A fleet on which each effect takes its time, and Patroni never gets ready where it hangs.
struct Slow {
    fleet: &'static SimFleet,
    whose: &'static str,
    takes: Duration,
    hangs: bool,
    /// How long a look takes.
    look: Duration,
    begun: Begun,
}

impl Fleet for Slow {
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
        tokio::time::sleep(self.look).await;
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
        let what = format!("{action:?}").chars().take(60).collect();
        self.begun.lock().unwrap().push((self.whose, what, Instant::now()));
        if let Action::Host(host, HostAction::StartPatroni { .. }) = action
            && self.hangs
        {
            tokio::time::sleep(deadline).await;
            return Err(EffectError::new(Some(host), "start Patroni", "no replica", Retry::Later));
        }
        tokio::time::sleep(self.takes.min(deadline)).await;
        self.fleet.perform(action, deadline).await
    }
    async fn verify(&self, request: &VerifyRequest) -> VerifyReport {
        self.fleet.verify(request).await
    }
    fn round_trips(&self) -> BTreeMap<HostName, u64> {
        self.fleet.round_trips()
    }
}

/// A file that somebody edits, and when it was looked at.
#[derive(Clone, Default)]
struct Edited(Arc<Mutex<Option<Box<Current<Slow>>>>>, Arc<Mutex<Vec<Instant>>>);

impl Edited {
    fn edit(&self, desired: &Desired, fleet: Slow) {
        let current = Current { desired: desired.clone(), fleet, revision: None };
        *self.0.lock().unwrap() = Some(Box::new(current));
    }
}

impl Source for Edited {
    type Fleet = Slow;
    fn refresh(&mut self) -> Refresh<Slow> {
        self.1.lock().unwrap().push(Instant::now());
        self.0.lock().unwrap().take().map_or(Refresh::Unchanged, Refresh::Changed)
    }
}

struct NoProof;

impl Prove<Slow> for NoProof {
    async fn prove(&self, _: &Current<Slow>, _: &Observed, _: bool) -> VerifyReport {
        VerifyReport { proofs: Vec::new() }
    }
}

/// What was heard of the source, and what had to wait.
#[derive(Default)]
struct Heard(Mutex<Vec<&'static str>>);

impl Listener for Heard {
    fn hear(&self, event: &Event<'_>) {
        let word = match event {
            Event::SourceAhead => "ahead",
            Event::SourceChanged(_) => "changed",
            Event::StepWaits { .. } => "waits",
            _ => return,
        };
        self.0.lock().unwrap().push(word);
    }
}

const RHYTHM: Rhythm = Rhythm {
    interval: Duration::from_secs(10),
    poll: Duration::from_millis(500),
    debounce: Duration::from_millis(200),
    prove_every: Duration::from_secs(60),
    jitter: || 0.0,
};

fn one() -> Desired {
    fixture::desire(&fixture::spec(3, 0, |_| {}))
}

/// The same with one more line in a file of every server.
fn another() -> Desired {
    let mut desired = one();
    for server in desired.servers.values_mut() {
        let content = &mut server.files.get_mut(FILE).unwrap().file.content;
        let mut text = content.bytes().to_vec();
        text.extend_from_slice(b"# more\n");
        *content = Content::open(text);
    }
    desired
}

/// Watches `world` for a while, and after `when` somebody puts `next` in force.
async fn edited(
    world: World,
    next: &Desired,
    (takes, hangs): (u64, bool),
    when: Duration,
    whole: Duration,
) -> (World, Vec<(&'static str, String, Instant)>, Vec<&'static str>) {
    let fleet: &'static SimFleet = Box::leak(Box::new(SimFleet::new(world)));
    let begun = Begun::default();
    let slow = |whose| Slow {
        fleet,
        whose,
        takes: Duration::from_secs(takes),
        hangs,
        look: Duration::ZERO,
        begun: Arc::clone(&begun),
    };
    let (mut source, heard) = (Edited::default(), Heard::default());
    source.edit(&one(), slow("old"));
    let (stop, editor) = (CancellationToken::new(), source.clone());
    let (_dirty, mut triggers) = mpsc::channel(1);
    let watching = watch(&mut source, &NoProof, &mut triggers, RHYTHM, &heard, &stop);
    let during = async {
        tokio::time::sleep(when).await;
        editor.edit(next, slow("new"));
        tokio::time::sleep(whole.saturating_sub(when)).await;
        stop.cancel();
    };
    tokio::join!(watching, during);
    assert_eq!(fleet.world().violations, Vec::<String>::new());
    let begun = std::mem::take(&mut *begun.lock().unwrap());
    (fleet.world(), begun, heard.0.into_inner().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_steps_at_hand_are_the_last_of_the_old_one() {
    let (start, when) = (Instant::now(), Duration::from_secs(65));
    let whole = Duration::from_secs(1200);
    let (world, begun, heard) =
        edited(World::bare(&one()), &another(), (20, false), when, whole).await;
    let last = begun.iter().rfind(|(whose, ..)| *whose == "old").unwrap();
    assert!(last.2 - start <= when + Duration::from_millis(500), "{last:?}");
    let first = begun.iter().find(|(whose, ..)| *whose == "new").unwrap();
    let after = (first.2 - start).saturating_sub(when);
    assert!(after <= Duration::from_secs(21), "what is under way ends, and no more: {after:?}");
    assert_eq!(heard[..3], ["changed", "ahead", "changed"], "{heard:?}");
    let desired = another();
    let plan = reconcile_core::plan::plan(&desired, &world.observe(&desired));
    assert!(plan.is_converged(), "{}", reconcile_core::plan::text(&plan, true));
}

#[tokio::test(start_paused = true)]
async fn the_same_in_other_words_ends_nothing() {
    let (start, when) = (Instant::now(), Duration::from_secs(65));
    let whole = Duration::from_secs(600);
    let (_, begun, heard) = edited(World::bare(&one()), &one(), (20, false), when, whole).await;
    let later = |(whose, _, at): &&(&str, String, Instant)| {
        *whose == "old" && *at - start > when + Duration::from_secs(1)
    };
    assert!(begun.iter().any(|begun| later(&begun)), "the plan goes on to its end: {begun:?}");
    assert_eq!(heard, ["changed", "changed"]);
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_of_the_database_does_not_keep_it_waiting() {
    let mut world = converged(&one()).await;
    world.server_mut("node3").units.get_mut("patroni.service").unwrap().running = false;
    let (start, when) = (Instant::now(), Duration::from_secs(70));
    let whole = Duration::from_secs(85);
    let (world, begun, heard) = edited(world, &another(), (0, true), when, whole).await;
    let old: Vec<_> = begun.iter().filter(|(whose, ..)| *whose == "old").collect();
    assert_eq!(old.len(), 1, "it starts Patroni and waits: {old:?}");
    let first = begun.iter().find(|(whose, ..)| *whose == "new").unwrap();
    assert!((first.2 - start).saturating_sub(when) <= Duration::from_secs(1), "{begun:?}");
    assert_eq!(heard[..4], ["changed", "ahead", "waits", "changed"], "{heard:?}");
    for server in world.servers.values() {
        assert!(server.files[FILE].bytes.ends_with(b"# more\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_patroni_was_told_is_not_cut_off() {
    let mut world = converged(&one()).await;
    world.server_mut("node3").units.get_mut("patroni.service").unwrap().running = false;
    let (start, when) = (Instant::now(), Duration::from_secs(2));
    let whole = Duration::from_secs(90);
    let (_, begun, _) = edited(world, &another(), (0, true), when, whole).await;
    let first = begun.iter().find(|(whose, ..)| *whose == "new").unwrap();
    assert!(first.2 - start >= Duration::from_secs(60), "{begun:?}");
}

/// A look may take its time, and clients wait in the poolers.
#[tokio::test(start_paused = true)]
async fn nothing_is_looked_at_while_clients_wait() {
    let desired = fixture::desire(&fixture::spec(3, 0, |spec| {
        spec.postgresql.parameters.insert("max_connections".to_owned(), "300".to_owned());
    }));
    let fleet: &'static SimFleet = Box::leak(Box::new(SimFleet::new(converged(&one()).await)));
    let begun = Begun::default();
    let takes = Duration::from_secs(20);
    let look = Duration::ZERO;
    let slow = Slow { fleet, whose: "it", takes, hangs: false, look, begun: Arc::clone(&begun) };
    let mut source = Edited::default();
    source.edit(&desired, slow);
    let (stop, looks) = (CancellationToken::new(), Arc::clone(&source.1));
    let (_dirty, mut triggers) = mpsc::channel(1);
    let watching = watch(&mut source, &NoProof, &mut triggers, RHYTHM, &(), &stop);
    let end = async {
        tokio::time::sleep(Duration::from_secs(200)).await;
        stop.cancel();
    };
    tokio::join!(watching, end);
    let (begun, looks) = (begun.lock().unwrap(), looks.lock().unwrap());
    let restarts: Vec<_> =
        begun.iter().filter(|(_, what, _)| what.contains("RestartReplica")).collect();
    assert_eq!(restarts.len(), 2, "{begun:?}");
    for (_, what, from) in &restarts {
        let next = looks.iter().find(|at| *at > from).unwrap();
        assert_eq!(*next - *from, takes, "not during {what}, but at once after it");
    }
    assert!(fleet.world().paused.is_empty());
    assert_eq!(fleet.world().violations, Vec::<String>::new());
}

/// A file that is another one whenever it is looked at.
struct Restless {
    fleet: &'static SimFleet,
    begun: Begun,
    states: [Desired; 2],
}

impl Source for Restless {
    type Fleet = Slow;
    fn refresh(&mut self) -> Refresh<Slow> {
        self.states.reverse();
        let desired = self.states[0].clone();
        let (takes, look) = (Duration::from_secs(1), Duration::from_secs(1));
        let begun = Arc::clone(&self.begun);
        let fleet = Slow { fleet: self.fleet, whose: "it", takes, hangs: false, look, begun };
        Refresh::Changed(Box::new(Current { desired, fleet, revision: None }))
    }
}

#[tokio::test(start_paused = true)]
async fn edits_without_end_do_not_keep_everything_from_being_done() {
    let fleet: &'static SimFleet = Box::leak(Box::new(SimFleet::new(World::bare(&one()))));
    let begun = Begun::default();
    let mut source = Restless { fleet, begun: Arc::clone(&begun), states: [one(), another()] };
    let stop = CancellationToken::new();
    let (_dirty, mut triggers) = mpsc::channel(1);
    let watching = watch(&mut source, &NoProof, &mut triggers, RHYTHM, &(), &stop);
    let end = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        stop.cancel();
    };
    tokio::join!(watching, end);
    assert_eq!(fleet.world().violations, Vec::<String>::new());
    let packages =
        begun.lock().unwrap().iter().filter(|(_, what, _)| what.contains("Package")).count();
    assert!(packages >= 3, "{:?}", begun.lock().unwrap());
}

/// A file that names other servers after a while.
struct Leaving(Edited, Instant);

impl Source for Leaving {
    type Fleet = Slow;
    fn refresh(&mut self) -> Refresh<Slow> {
        if Instant::now() < self.1 { self.0.refresh() } else { Refresh::Elsewhere }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_does_not_keep_another_lease_waiting() {
    let mut world = converged(&one()).await;
    world.server_mut("node3").units.get_mut("patroni.service").unwrap().running = false;
    let fleet: &'static SimFleet = Box::leak(Box::new(SimFleet::new(world)));
    let (look, begun) = (Duration::ZERO, Begun::default());
    let (takes, when) = (Duration::ZERO, Duration::from_secs(70));
    let start = Instant::now();
    let mut source = Leaving(Edited::default(), start + when);
    source.0.edit(&one(), Slow { fleet, whose: "it", takes, hangs: true, look, begun });
    let stop = CancellationToken::new();
    let (_dirty, mut triggers) = mpsc::channel(1);
    let watching = watch(&mut source, &NoProof, &mut triggers, RHYTHM, &(), &stop);
    let end = async {
        tokio::time::sleep(when).await;
        stop.cancel();
    };
    tokio::join!(watching, end);
    assert!(start.elapsed() <= when + Duration::from_secs(1), "{:?}", start.elapsed());
}

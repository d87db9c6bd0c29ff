//! The watch: a trigger makes a pass, a step that keeps failing slows down nothing else, and events
//! without end make no tries without pause.

use std::{collections::BTreeMap, time::Duration};

use reconcile_core::{
    action::{Action, HostAction},
    model::{HostFacts, HostName, Observed, SwarmFacts},
    ports::{EffectError, Fleet, Retry},
    probe::{ProbeRequest, SwarmRequest},
    verify::{VerifyReport, VerifyRequest},
};
use reconcile_engine::watch::{Current, Prove, Refresh, Rhythm, Source, watch};
use reconcile_sim::{SimFleet, World, fixture};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::run::converged;

const FILE: &str = "/etc/default/etcd";
const BROKEN: &str = "/etc/systemd/system/patroni.service";

/// A fleet on which one file cannot be written.
struct Stubborn<'a> {
    fleet: &'a SimFleet,
    retry: Option<Retry>,
    tries: &'a std::sync::Mutex<Vec<Instant>>,
}

impl Fleet for Stubborn<'_> {
    type Switching = SimFleet;

    fn switching(&self) -> &SimFleet {
        self.fleet
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
            && file.path == BROKEN
        {
            self.tries.lock().unwrap().push(Instant::now());
            return Err(EffectError::new(Some(host), "write it", "the disk is full", retry));
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
    let desired = fixture::desire(&fixture::spec(3, 0, |_| {}));
    let mut world = converged(&desired).await;
    if retry.is_some() {
        edit(&mut world, "node3", BROKEN);
    }
    let fleet: &'static SimFleet = Box::leak(Box::new(SimFleet::new(world)));
    let tries = std::sync::Mutex::new(Vec::new());
    let stubborn = Stubborn { fleet, retry, tries: &tries };
    let mut source = Once(Some(Box::new(Current { desired, fleet: stubborn, revision: None })));
    let (dirty, triggers) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let watching = watch(&mut source, &NoProof, triggers, RHYTHM, &(), &stop);
    let during = async {
        during(fleet, dirty).await;
        stop.cancel();
    };
    tokio::join!(watching, during);
    assert_eq!(fleet.world().violations, Vec::<String>::new());
    tries.into_inner().unwrap()
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

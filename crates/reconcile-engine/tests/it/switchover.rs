//! The switchover's transaction: whatever goes wrong, every pooler is resumed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reconcile_core::{
    action::PatroniAction,
    model::HostName,
    ports::{EffectError, Retry},
};
use reconcile_engine::{
    resume::{Owed, SETTLES, await_end},
    switchover::{Order, Switching, SwitchoverError, switch_over},
};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// One pooler has a transaction that does not end.
    Busy,
    /// One pooler cannot be reached.
    Dead,
    /// One pooler answers, and then not.
    Dies,
    /// The channel to Patroni breaks; Patroni goes on.
    ChannelLost,
    /// Patroni refuses.
    Refused,
    /// The candidate never leads.
    NeverLeads,
    /// One router never sees it.
    Blind,
    /// A long transaction runs on the primary.
    Work,
    /// The same, and it is not to be asked about.
    WorkRegardless,
    /// What runs there is not told.
    NotTold,
    /// A client keeps its session.
    Session,
    /// One node cannot be made to resume its pooler by itself.
    NoGuard,
    /// The first RESUME of each pooler fails.
    ResumeFailsOnce,
}

struct World {
    fault: Fault,
    paused: Mutex<BTreeSet<HostName>>,
    failed: Mutex<BTreeSet<HostName>>,
    /// Nodes that resume their poolers by themselves, since when.
    guarded: Mutex<BTreeMap<HostName, tokio::time::Instant>>,
    asked: Mutex<Option<tokio::time::Instant>>,
    /// Nodes that were told to pause or to resume.
    told: Mutex<BTreeSet<HostName>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusal(cause: &str) -> EffectError {
    EffectError::new(None, "try", cause, Retry::AfterChange)
}

fn error(cause: &str) -> EffectError {
    EffectError::new(None, "try", cause, Retry::Later)
}

impl Switching for World {
    async fn prepare(&self, _: &HostName, _: Option<&PatroniAction>) -> Result<(), EffectError> {
        Ok(())
    }
    async fn restart(&self, _: &HostName, _: &PatroniAction) -> Result<(), EffectError> {
        *lock(&self.asked) = Some(tokio::time::Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        match self.fault {
            Fault::Refused => Err(error("503: restart conditions are not satisfied")),
            Fault::NeverLeads => std::future::pending().await,
            _ => Ok(()),
        }
    }
    async fn reach(&self, node: &HostName) -> Result<(), EffectError> {
        if self.fault == Fault::Dead && node.as_str() == "node2" {
            return Err(error("connection refused"));
        }
        Ok(())
    }
    async fn long_transactions(
        &self,
        member: &HostName,
        _: Duration,
    ) -> Result<Vec<String>, EffectError> {
        assert_eq!(member.as_str(), "node1", "the primary is asked");
        Ok(match self.fault {
            Fault::Work | Fault::WorkRegardless => vec!["pid 812 of app".to_owned()],
            Fault::NotTold => return Err(error("PostgreSQL does not tell")),
            _ => Vec::new(),
        })
    }
    async fn sessions(&self, node: &HostName) -> Result<Vec<String>, EffectError> {
        let holds = self.fault == Fault::Session && node.as_str() == "node2";
        Ok(holds.then(|| "1 client keeps a session".to_owned()).into_iter().collect())
    }
    async fn guard(&self, node: &HostName) -> Result<(), EffectError> {
        if self.fault == Fault::NoGuard && node.as_str() == "node2" {
            return Err(error("systemd-run failed"));
        }
        lock(&self.guarded).insert(node.clone(), tokio::time::Instant::now());
        Ok(())
    }
    async fn unguard(&self, node: &HostName) -> Result<(), EffectError> {
        lock(&self.guarded).remove(node);
        Ok(())
    }
    async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        assert!(lock(&self.guarded).contains_key(node), "{node} is paused without a guard");
        lock(&self.told).insert(node.clone());
        // PgBouncer holds new work back at once, and answers when the old is done.
        lock(&self.paused).insert(node.clone());
        match self.fault {
            Fault::Busy if node.as_str() == "node2" => std::future::pending().await,
            Fault::Dies if node.as_str() == "node2" => Err(error("connection refused")),
            _ => Ok(()),
        }
    }
    async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        lock(&self.told).insert(node.clone());
        if self.fault == Fault::ResumeFailsOnce && lock(&self.failed).insert(node.clone()) {
            return Err(error("the connection ended early"));
        }
        lock(&self.paused).remove(node);
        Ok(())
    }
    async fn request(&self, _: &HostName, _: &HostName) -> Result<(), EffectError> {
        *lock(&self.asked) = Some(tokio::time::Instant::now());
        match self.fault {
            Fault::Refused => Err(refusal("412: leader name does not match")),
            Fault::ChannelLost => Err(error("the connection ended early")),
            // Patroni's answer comes late, or never where nothing happens.
            Fault::NeverLeads => std::future::pending().await,
            _ => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(())
            }
        }
    }
    async fn is_primary(&self, _: &HostName) -> bool {
        // Patroni needs a moment; where the channel broke, longer than that took.
        let moment = Duration::from_secs(if self.fault == Fault::ChannelLost { 3 } else { 0 });
        lock(&self.asked).is_some_and(|at| at.elapsed() >= moment)
            && !matches!(self.fault, Fault::NeverLeads | Fault::Refused)
    }
    async fn routed_to(&self, node: &HostName, _: &HostName) -> bool {
        self.fault != Fault::Blind || node.as_str() != "node3"
    }
}

async fn run(fault: Fault) -> (World, Result<(), SwitchoverError>) {
    run_to(fault, "node2").await
}

/// To the primary itself: it restarts in place.
async fn run_to(fault: Fault, candidate: &str) -> (World, Result<(), SwitchoverError>) {
    let world = World {
        fault,
        paused: Mutex::default(),
        failed: Mutex::default(),
        guarded: Mutex::default(),
        asked: Mutex::default(),
        told: Mutex::default(),
    };
    let nodes = ["node1", "node2", "node3"].map(HostName::from).to_vec();
    let restart = (candidate == "node1").then(|| PatroniAction::RestartPrimary {
        replaced: None,
        runs: BTreeMap::new(),
        data_dir: String::new(),
        nodes: nodes.clone(),
    });
    let order = Order {
        leader: "node1".into(),
        candidate: candidate.into(),
        restart,
        nodes,
        regardless: fault == Fault::WorkRegardless,
    };
    let result = switch_over(&world, &order, &()).await.map(|_| ());
    (world, result)
}

#[tokio::test(start_paused = true)]
async fn every_pooler_is_resumed_on_every_way_out() {
    for fault in [
        Fault::None,
        Fault::Busy,
        Fault::Dead,
        Fault::Dies,
        Fault::ChannelLost,
        Fault::Refused,
        Fault::NeverLeads,
        Fault::Blind,
        Fault::NoGuard,
        Fault::Work,
        Fault::WorkRegardless,
        Fault::NotTold,
        Fault::Session,
        Fault::ResumeFailsOnce,
    ] {
        for candidate in ["node2", "node1"] {
            let (world, result) = run_to(fault, candidate).await;
            assert!(lock(&world.paused).is_empty(), "{fault:?} leaves poolers paused");
            assert!(lock(&world.guarded).is_empty(), "{fault:?} leaves guards behind");
            let well = matches!(
                fault,
                Fault::None | Fault::ResumeFailsOnce | Fault::ChannelLost | Fault::WorkRegardless
            );
            assert_eq!(result.is_ok(), well, "{fault:?} to {candidate}: {result:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn patroni_is_not_asked_while_a_pooler_is_busy_or_dead() {
    for fault in [Fault::Busy, Fault::Dead, Fault::Dies, Fault::NoGuard] {
        let (world, result) = run(fault).await;
        assert!(lock(&world.asked).is_none(), "{fault:?}");
        assert!(matches!(result, Err(SwitchoverError::Pause { .. })), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_place_is_over_only_when_patroni_says_so() {
    let started = tokio::time::Instant::now();
    let (_, result) = run_to(Fault::None, "node1").await;
    assert!(result.is_ok());
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn clients_do_not_wait_for_patronis_late_answer() {
    let started = tokio::time::Instant::now();
    let (_, result) = run(Fault::None).await;
    assert!(result.is_ok());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_client_waits_where_a_console_does_not_answer() {
    let started = tokio::time::Instant::now();
    let (world, result) = run(Fault::Dead).await;
    assert!(matches!(result, Err(SwitchoverError::Pause { .. })), "{result:?}");
    assert!(lock(&world.told).is_empty(), "{:?}", lock(&world.told));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_works_is_asked_before_anybody_waits() {
    for (fault, words) in [
        (Fault::Work, "not begun: pid 812 of app"),
        (Fault::Session, "not begun: 1 client keeps a session"),
        (Fault::NotTold, "PostgreSQL does not tell"),
    ] {
        let (world, result) = run(fault).await;
        let said = result.unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        assert!(lock(&world.told).is_empty(), "{fault:?}: {:?}", lock(&world.told));
    }
}

/// Patroni where the operator was killed: `node1` leads until `moves`, then nobody for two seconds, then
/// `node2`, which the routers see a second later.
struct Left {
    began: tokio::time::Instant,
    moves: Option<u64>,
    arrives: bool,
}

impl Switching for Left {
    async fn prepare(&self, _: &HostName, _: Option<&PatroniAction>) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn restart(&self, _: &HostName, _: &PatroniAction) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn reach(&self, _: &HostName) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn long_transactions(
        &self,
        _: &HostName,
        _: Duration,
    ) -> Result<Vec<String>, EffectError> {
        unreachable!("it only looks")
    }
    async fn sessions(&self, _: &HostName) -> Result<Vec<String>, EffectError> {
        unreachable!("it only looks")
    }
    async fn guard(&self, _: &HostName) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn unguard(&self, _: &HostName) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn pause(&self, _: &HostName) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn resume(&self, _: &HostName) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn request(&self, _: &HostName, _: &HostName) -> Result<(), EffectError> {
        unreachable!("it only looks")
    }
    async fn is_primary(&self, member: &HostName) -> bool {
        let now = self.began.elapsed().as_secs();
        match (member.as_str(), self.moves) {
            ("node1", moves) => moves.is_none_or(|moves| now < moves),
            ("node2", Some(moves)) => self.arrives && now >= moves + 2,
            _ => false,
        }
    }
    async fn routed_to(&self, _: &HostName, member: &HostName) -> bool {
        let now = self.began.elapsed().as_secs();
        member.as_str() == "node2" && self.moves.is_some_and(|moves| now >= moves + 3)
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_go_into_the_middle_of_what_patroni_was_asked_for() {
    let desired = crate::workloads::bare().desired;
    let waits = async |moves: Option<u64>, arrives, age, open| {
        let began = tokio::time::Instant::now();
        let left = Left { began, moves, arrives };
        let nodes = Some(["node1", "node2", "node3"].map(HostName::from).to_vec());
        let from = Some((HostName::from("node1"), 0)).filter(|_| open);
        let owed = Owed { candidate: "node2".to_owned(), nodes, begun: from };
        await_end(&left, &desired, &owed, Duration::from_secs(age)).await;
        began.elapsed().as_millis()
    };
    // Over already; under way: until the routers see the new primary.
    assert_eq!(waits(Some(0), true, 20, true).await / 1000, 3);
    assert_eq!(waits(Some(1), true, 1, true).await / 1000, 4);
    // Patroni never heard of it.
    assert_eq!(waits(None, true, 1, true).await / 1000, 3);
    // It does not come to an end: the poolers are resumed as they would be without anybody.
    assert_eq!(waits(Some(1), false, 1, true).await, SETTLES.as_millis());
    // Long ago, or known how it ended.
    assert_eq!(waits(Some(1), false, 3_600, true).await, 0);
    assert_eq!(waits(Some(1), false, 1, false).await, 0);
}

//! The switchover's transaction: whatever goes wrong, every pooler is resumed.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reconcile_core::{
    model::HostName,
    ports::{EffectError, Retry},
};
use reconcile_engine::switchover::{Order, Switching, SwitchoverError, switch_over};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// One pooler has a transaction that does not end.
    Busy,
    /// One pooler cannot be reached.
    Dead,
    /// Patroni refuses.
    Refused,
    /// The candidate never leads.
    NeverLeads,
    /// One router never sees it.
    Blind,
    /// The first RESUME of each pooler fails.
    ResumeFailsOnce,
}

struct World {
    fault: Fault,
    paused: Mutex<BTreeSet<HostName>>,
    failed: Mutex<BTreeSet<HostName>>,
    asked: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(cause: &str) -> EffectError {
    EffectError::new(None, "try", cause, Retry::Later)
}

impl Switching for World {
    async fn pause(&self, node: &HostName) -> Result<(), EffectError> {
        // PgBouncer holds new work back at once, and answers when the old is done.
        lock(&self.paused).insert(node.clone());
        match self.fault {
            Fault::Busy if node.as_str() == "node2" => std::future::pending().await,
            Fault::Dead if node.as_str() == "node2" => Err(error("connection refused")),
            _ => Ok(()),
        }
    }
    async fn resume(&self, node: &HostName) -> Result<(), EffectError> {
        if self.fault == Fault::ResumeFailsOnce && lock(&self.failed).insert(node.clone()) {
            return Err(error("the connection ended early"));
        }
        lock(&self.paused).remove(node);
        Ok(())
    }
    async fn request(&self, _: &HostName, _: &HostName) -> Result<(), EffectError> {
        *lock(&self.asked) = true;
        match self.fault {
            Fault::Refused => Err(error("412: leader name does not match")),
            // Patroni's answer comes late, or never where nothing happens.
            Fault::NeverLeads => std::future::pending().await,
            _ => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                Ok(())
            }
        }
    }
    async fn is_primary(&self, _: &HostName) -> bool {
        *lock(&self.asked) && !matches!(self.fault, Fault::NeverLeads | Fault::Refused)
    }
    async fn routed_to(&self, node: &HostName, _: &HostName) -> bool {
        self.fault != Fault::Blind || node.as_str() != "node3"
    }
}

async fn run(fault: Fault) -> (World, Result<(), SwitchoverError>) {
    let world = World {
        fault,
        paused: Mutex::default(),
        failed: Mutex::default(),
        asked: Mutex::default(),
    };
    let nodes = ["node1", "node2", "node3"].map(HostName::from).to_vec();
    let order = Order { leader: "node1".into(), candidate: "node2".into(), nodes };
    let result = switch_over(&world, &order).await.map(|_| ());
    (world, result)
}

#[tokio::test(start_paused = true)]
async fn every_pooler_is_resumed_on_every_way_out() {
    for fault in [
        Fault::None,
        Fault::Busy,
        Fault::Dead,
        Fault::Refused,
        Fault::NeverLeads,
        Fault::Blind,
        Fault::ResumeFailsOnce,
    ] {
        let (world, result) = run(fault).await;
        assert!(lock(&world.paused).is_empty(), "{fault:?} leaves poolers paused");
        let well = matches!(fault, Fault::None | Fault::ResumeFailsOnce);
        assert_eq!(result.is_ok(), well, "{fault:?}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn patroni_is_not_asked_while_a_pooler_is_busy_or_dead() {
    for fault in [Fault::Busy, Fault::Dead] {
        let (world, result) = run(fault).await;
        assert!(!*lock(&world.asked), "{fault:?}");
        assert!(matches!(result, Err(SwitchoverError::Pause { .. })), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_do_not_wait_for_patronis_late_answer() {
    let started = tokio::time::Instant::now();
    let (_, result) = run(Fault::None).await;
    assert!(result.is_ok());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

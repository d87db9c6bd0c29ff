//! What PostgreSQL runs with on each server: some parameters it reads only when it starts, and a
//! standby must have no less of some of them than its primary. Restarts, switchovers, and the
//! poolers that wait meanwhile.

use std::collections::BTreeMap;

use reconcile_core::{
    model::{HostName, SettingFact},
    ports::{EffectError, Retry},
};
use serde_json::Value;

use crate::{World, etcd::Scope, world::refused};

/// Parameters that take effect only with a start of PostgreSQL, and their values where none is said.
const AT_START: [(&str, &str); 9] = [
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("shared_buffers", "128MB"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];
/// Those of which a standby must have no less than its primary.
const SHARED: [&str; 5] = [
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
];
/// The port of the poolers for writes.
const POOLER: u16 = 6432;

/// What a PostgreSQL runs with, by parameter.
pub type Running = BTreeMap<String, String>;
type Effect = Result<(), EffectError>;

fn number(running: &Running, name: &str) -> u64 {
    running.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What Patroni's configuration says.
fn configured(scope: &Scope) -> Running {
    let set = &scope.config["postgresql"]["parameters"];
    AT_START
        .iter()
        .map(|(name, default)| {
            let value = match &set[*name] {
                Value::String(text) => text.clone(),
                Value::Null => (*default).to_owned(),
                other => other.to_string(),
            };
            ((*name).to_owned(), value)
        })
        .collect()
}

/// True where a standby with `own` has less than it needs to follow a primary with `primary`.
fn lacks(own: &Running, primary: &Running) -> bool {
    SHARED.iter().any(|name| number(own, name) < number(primary, name))
}

impl World {
    fn running(&self, host: &HostName) -> Option<&Running> {
        self.servers.get(host)?.running.as_ref()
    }

    /// PostgreSQL starts on a server: as a standby with no less than the last primary had, which
    /// is what Patroni sees to.
    fn start_postgresql(&mut self, host: &HostName, scope: &Scope) {
        let mut running = configured(scope);
        let system = scope.initialize.clone().unwrap_or_default();
        let Some(database) = self.databases.get_mut(&system) else { return };
        if scope.leader.as_ref() == Some(host) {
            database.limits.clone_from(&running);
        } else {
            for name in SHARED {
                let least = number(&database.limits, name);
                if number(&running, name) < least {
                    running.insert(name.to_owned(), least.to_string());
                }
            }
        }
        if let Some(server) = self.servers.get_mut(host) {
            server.running = Some(running);
            server.replaced = false;
        }
    }

    /// What stopped runs with nothing, and what started runs with what was configured then.
    pub(crate) fn settle_running(&mut self) {
        let serving = self.serving();
        for server in self.servers.values_mut() {
            // Without etcd PostgreSQL runs on, and nobody can say as what.
            if server.running.is_some() && !server.runs(crate::database::UNIT) {
                server.running = None;
                server.replaced = false;
            }
        }
        let (leaders, others): (Vec<_>, Vec<_>) =
            serving.into_iter().partition(|(host, scope)| scope.leader.as_ref() == Some(host));
        for (host, scope) in leaders.into_iter().chain(others) {
            if self.running(&host).is_none() {
                self.start_postgresql(&host, &scope);
            }
            // A standby that was promoted brings its own values along.
            if scope.leader.as_ref() == Some(&host)
                && let Some(running) = self.running(&host).cloned()
                && let Some(database) =
                    scope.initialize.as_ref().and_then(|system| self.databases.get_mut(system))
            {
                database.limits = running;
            }
        }
    }

    /// PostgreSQL on the server runs with something else than is configured.
    pub(crate) fn pending_restart(&self, host: &HostName, scope: &Scope) -> bool {
        self.running(host).is_some_and(|running| *running != configured(scope))
    }

    /// A replica replays: it has what its primary needs of it.
    pub(crate) fn replays(&self, host: &HostName, scope: &Scope) -> bool {
        let primary = scope.leader.as_ref().and_then(|leader| self.running(leader));
        self.running(host).zip(primary).is_none_or(|(own, primary)| !lacks(own, primary))
    }

    /// As `pg_settings` tells it.
    pub(crate) fn settings(&self, host: &HostName) -> Option<BTreeMap<String, SettingFact>> {
        let fact = |(name, value): (&String, &String)| {
            let kind = if value.parse::<u64>().is_ok() { "integer" } else { "string" };
            let fact = SettingFact {
                value: value.clone(),
                unit: String::new(),
                kind: kind.to_owned(),
                altered: false,
            };
            (name.clone(), fact)
        };
        Some(self.running(host)?.iter().map(fact).collect())
    }

    /// Complains where disturbing a member leaves another that does not serve, or is not for us to do.
    pub(crate) fn before_disturbing(&mut self, host: &HostName, scope: &Scope) {
        if scope.paused {
            self.violate(format!("PostgreSQL on {host} was disturbed while Patroni is paused"));
        }
        let down: Vec<HostName> = self
            .servers
            .iter()
            .filter(|(other, server)| {
                let populated = server.data_dirs.values().any(|data| {
                    matches!(data, crate::DataDir::Postgres(id) if Some(id) == scope.initialize.as_ref())
                });
                let left = self.leaving.contains(*other) && !server.runs(crate::database::UNIT);
                *other != host && populated && !left && !self.serves(other, scope)
            })
            .map(|(other, _)| other.clone())
            .collect();
        for other in down {
            self.violate(format!("PostgreSQL on {host} was disturbed while {other} is down"));
        }
    }

    /// Complains where clients are not held back while the primary is away.
    fn before_moving(&mut self, host: &HostName, scope: &Scope) {
        self.before_disturbing(host, scope);
        let open: Vec<HostName> = self
            .servers
            .keys()
            .filter(|node| {
                !self.paused.contains(*node)
                    && self.container_listeners(node).iter().any(|l| l.port == POOLER)
            })
            .cloned()
            .collect();
        for node in open {
            self.violate(format!("the primary on {host} went away under the clients of {node}"));
        }
    }

    pub(crate) fn standbys<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a HostName> {
        self.servers
            .keys()
            .filter(|host| scope.leader.as_ref() != Some(*host) && self.serves(host, scope))
    }

    /// It still runs what, and with what, the plan saw; where that says nothing, Patroni's word counts.
    fn as_seen(&self, host: &HostName, scope: &Scope, seen: &Running, replaced: bool) -> bool {
        let program = self.servers.get(host).is_some_and(|server| server.replaced);
        (if replaced { program } else { self.pending_restart(host, scope) })
            && self.running(host).is_some_and(|running| {
                seen.iter().all(|(name, value)| running.get(name) == Some(value))
            })
    }

    /// `POST /restart` of a replica that waits for one.
    pub(crate) fn restart_replica(
        &mut self,
        host: &HostName,
        seen: &Running,
        replaced: bool,
    ) -> Effect {
        let attempt = format!("restart PostgreSQL through Patroni on {host}");
        let Some(scope) = self.scope_served_by(host) else {
            return Err(refused(host, attempt, "PostgreSQL does not run", Retry::Later));
        };
        if scope.leader.as_ref() == Some(host) || !self.as_seen(host, &scope, seen, replaced) {
            let cause = "503: restart conditions are not satisfied";
            return Err(refused(host, attempt, cause, Retry::Soon));
        }
        self.before_disturbing(host, &scope);
        self.cut_here(host)?;
        let before = self.running(host).cloned();
        self.start_postgresql(host, &scope);
        self.wrote(format!("{host}/postgresql restart"));
        if self.running(host) == before.as_ref() && !replaced {
            self.violate(format!("the restart of PostgreSQL on {host} was in vain"));
        }
        if self.replays(host, &scope) {
            return Ok(());
        }
        Err(refused(host, attempt, "it lags", Retry::Later))
    }

    /// `POST /restart` of the primary while it waits for one.
    pub(crate) fn restart_primary(
        &mut self,
        host: &HostName,
        seen: &Running,
        replaced: bool,
    ) -> Effect {
        let attempt = format!("restart the primary through Patroni on {host}");
        let Some(scope) = self.scope_served_by(host) else {
            return Err(refused(host, attempt, "PostgreSQL does not run", Retry::Later));
        };
        if scope.leader.as_ref() != Some(host) || !self.as_seen(host, &scope, seen, replaced) {
            let cause = "503: restart conditions are not satisfied";
            return Err(refused(host, attempt, cause, Retry::Soon));
        }
        self.before_moving(host, &scope);
        let new = configured(&scope);
        let lowers = self.running(host).is_some_and(|running| lacks(&new, running));
        let standbys: Vec<HostName> = self.standbys(&scope).cloned().collect();
        if !lowers && standbys.iter().any(|standby| self.replays(standby, &scope)) {
            self.violate(format!(
                "the primary on {host} was restarted, and a replica could take over"
            ));
        }
        for standby in standbys {
            let tried = |(name, value): (&String, &String)| {
                SHARED.contains(&name.as_str())
                    || self.running(&standby).is_some_and(|own| own.get(name) == Some(value))
            };
            if !new.iter().all(tried) {
                self.violate(format!("the primary on {host} is the first to run with a new value"));
            }
            if self.running(&standby).is_some_and(|own| lacks(own, &new)) {
                self.violate(format!("{standby} has less than the restarted primary on {host}"));
            }
        }
        self.start_postgresql(host, &scope);
        self.wrote(format!("{host}/postgresql restart"));
        self.settle();
        Ok(())
    }

    /// `POST /switchover`.
    pub fn hand_over(&mut self, leader: &HostName, candidate: &HostName) -> Effect {
        let attempt = format!("hand over from {leader} to {candidate}");
        let found = self.patroni_of(leader);
        let Some((store, name, mut scope)) = found else {
            return Err(refused(leader, attempt, "503: no leader", Retry::AfterChange));
        };
        if scope.leader.as_ref() != Some(leader) {
            let cause = "412: leader name does not match";
            return Err(refused(leader, attempt, cause, Retry::AfterChange));
        }
        if !self.serves(candidate, &scope) || !self.replays(candidate, &scope) {
            let cause = "412: no good candidates have been found";
            return Err(refused(leader, attempt, cause, Retry::AfterChange));
        }
        self.before_moving(leader, &scope);
        let new = self.running(candidate).cloned().unwrap_or_default();
        let lacking: Vec<HostName> = self
            .standbys(&scope)
            .filter(|standby| self.running(standby).is_some_and(|own| lacks(own, &new)))
            .cloned()
            .collect();
        for standby in lacking {
            self.violate(format!("{standby} has less than the new primary {candidate}"));
        }
        scope.leader = Some(candidate.clone());
        if let Some(database) =
            scope.initialize.as_ref().and_then(|system| self.databases.get_mut(system))
        {
            database.timeline += 1;
            database.limits = new;
        }
        self.store_scope(store, &name, scope.clone());
        // The old primary stops and starts as a standby.
        self.start_postgresql(leader, &scope);
        self.wrote("patroni/switchover");
        self.settle();
        Ok(())
    }

    /// Whether the pooler's console takes a session.
    pub(crate) fn console(&self, node: &HostName) -> Effect {
        if self.container_listeners(node).iter().any(|l| l.port == POOLER) {
            return Ok(());
        }
        let attempt = format!("ask the pooler on {node}");
        Err(refused(node, attempt, "connection refused", Retry::Later))
    }

    /// `PAUSE` and `RESUME`.
    pub(crate) fn hold_clients(&mut self, node: &HostName, hold: bool) -> Effect {
        self.console(node)?;
        if hold {
            if !self.guarded.contains(node) {
                self.violate(format!(
                    "the pooler on {node} was paused, and nothing resumes it without an operator"
                ));
            }
            self.paused.insert(node.clone());
        } else {
            self.paused.remove(node);
        }
        Ok(())
    }

    /// All of a transaction on the primary in one go, for worlds without an engine.
    pub(crate) fn transact(
        &mut self,
        nodes: &[HostName],
        work: impl FnOnce(&mut Self) -> Effect,
    ) -> Effect {
        self.guarded.extend(nodes.iter().cloned());
        let mut result = nodes.iter().try_for_each(|node| self.hold_clients(node, true));
        if result.is_ok() {
            result = work(self);
        }
        for node in nodes {
            self.paused.remove(node);
            self.guarded.remove(node);
        }
        result
    }
}

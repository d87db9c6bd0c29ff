//! Newer packages: what is installed changes at once, what runs only when it is started anew.

use std::cmp::Ordering;

use reconcile_core::{
    desired::server::{POLICY, POLICY_TEXT},
    model::HostName,
    ports::{EffectError, Retry},
    version,
};

use crate::{File, Package, World, actions::APT_NEEDS, database, world::refused};

type Effect = Result<(), EffectError>;

fn of_postgresql(name: &str) -> bool {
    name.starts_with("postgresql-") && !name.contains("client")
}

impl World {
    /// `apt-get install` of newer versions, after a note of which units are outdated by it.
    pub(crate) fn upgrade(
        &mut self,
        host: &HostName,
        packages: &[(String, String)],
        (outdates, replica): (&[String], bool),
    ) -> Effect {
        let attempt = format!("upgrade packages on {host}");
        let power_loss = std::mem::take(&mut self.cut);
        let server = self.server_of(host)?;
        let behind = |(name, version): &&(String, String)| {
            server
                .packages
                .get(name)
                .is_none_or(|there| there.version != *version || !there.complete)
        };
        let wanted: Vec<(String, String)> = packages.iter().filter(behind).cloned().collect();
        if wanted.is_empty() {
            return Ok(()); // apt has nothing to do.
        }
        if replica && self.primary_on(host).is_some() {
            return Err(refused(host, attempt, "it is the primary by now", Retry::Soon));
        }
        if self.server_of(host)?.free_bytes < APT_NEEDS {
            let cause = "No space left on device";
            return Err(refused(host, attempt, cause, Retry::AfterChange));
        }
        for (name, version) in &wanted {
            if self.repository.get(name) != Some(version) {
                let cause = format!("no package source of this server has: {name}={version}");
                return Err(refused(host, attempt, cause, Retry::AfterChange));
            }
        }
        self.before_upgrade(host, &wanted);
        for unit in outdates {
            if let Some(unit) = self.server_of(host)?.units.get_mut(unit) {
                unit.old_program = unit.running;
            }
        }
        for (index, (name, version)) in wanted.iter().enumerate() {
            let half = power_loss && index * 2 >= wanted.len();
            let package = Package { version: version.clone(), complete: !half };
            let server = self.server_of(host)?;
            server.packages.insert(name.clone(), package);
            server.replaced |= of_postgresql(name) && server.running.is_some();
            if half {
                let policy = File { mode: 0o755, ..File::of_root(POLICY_TEXT) };
                server.files.insert(POLICY.to_owned(), policy);
                return Err(refused(host, attempt, "the connection was lost", Retry::Soon));
            }
            self.wrote(format!("{host}/package/{name}"));
        }
        Ok(())
    }

    /// Packages that are half installed are about to be finished. Complains where they are the primary's.
    pub(crate) fn before_finishing(
        &mut self,
        host: &HostName,
        packages: &[(String, Option<String>)],
        replica: bool,
    ) -> Effect {
        let primary = self.primary_on(host).is_some();
        if replica && primary {
            let attempt = format!("install packages on {host}");
            return Err(refused(host, attempt, "it is the primary by now", Retry::Soon));
        }
        let server = self.server_of(host)?;
        let half = packages.iter().any(|(name, _)| {
            !name.starts_with("etcd") && server.packages.get(name).is_some_and(|p| !p.complete)
        });
        let Some(scope) = self.scope_served_by(host).filter(|_| half && primary) else {
            return Ok(());
        };
        if self.standbys(&scope).next().is_some() {
            self.violate(format!("the programs of the primary on {host} were finished"));
        }
        Ok(())
    }

    /// Complains where another server is not done yet, or where the primary's programs are replaced
    /// while a replica could take over.
    fn before_upgrade(&mut self, host: &HostName, packages: &[(String, String)]) {
        let busy = |server: &crate::Server| {
            let running = server.power && server.units.values().any(|u| u.running && u.old_program);
            running || server.replaced
        };
        let others: Vec<HostName> = self
            .servers
            .iter()
            .filter(|(other, server)| *other != host && busy(server))
            .map(|(other, _)| other.clone())
            .collect();
        for other in others {
            self.violate(format!("{host} was upgraded before {other} was done"));
        }
        for (name, version) in packages {
            let there = self.servers.get(host).and_then(|server| server.packages.get(name));
            if there.is_some_and(|old| version::compare(&old.version, version) == Ordering::Greater)
            {
                self.violate(format!("{name} on {host} was downgraded"));
            }
        }
        let Some(scope) = self.scope_served_by(host) else { return };
        if packages.iter().all(|(name, _)| name.starts_with("etcd")) {
            return;
        }
        self.before_disturbing(host, &scope);
        if scope.leader.as_ref() == Some(host) && self.standbys(&scope).next().is_some() {
            self.violate(format!("the programs of the primary on {host} were replaced"));
        }
    }

    /// `systemctl restart patroni` of a replica, where it still runs what was installed before.
    pub(crate) fn restart_patroni(&mut self, host: &HostName) -> Effect {
        let attempt = format!("restart Patroni on {host}");
        let due = self
            .server_of(host)?
            .units
            .get(database::UNIT)
            .is_some_and(|unit| unit.running && unit.old_program);
        if due {
            if self.primary_on(host).is_some() {
                return Err(refused(host, attempt, "it is the primary by now", Retry::Soon));
            }
            if let Some((.., scope)) = self.patroni_of(host) {
                self.before_disturbing(host, &scope);
            }
            self.cut_here(host)?;
            let server = self.server_of(host)?;
            server.running = None;
            server.replaced = false;
            if let Some(unit) = server.units.get_mut(database::UNIT) {
                unit.old_program = false;
                unit.outdated = false;
            }
            self.wrote(format!("{host}/{} restart", database::UNIT));
            self.settle();
        }
        let fact = self.patroni_fact(host);
        if fact.present().is_some_and(|fact| fact.streaming) {
            return Ok(());
        }
        Err(refused(host, attempt, "it does not stream", Retry::Later))
    }
}

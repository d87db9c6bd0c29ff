//! Effects on a server, each as `action.rs` of the core words it: claims first, idempotent,
//! refusing what has changed since the plan.

use reconcile_core::{
    action::{Action, DesiredFile, EtcdQuorum, HostAction, PatroniAction, PatroniGoal, UnitVerb},
    model::{Claim, ClaimKind, Content, HostName},
    ports::{EffectError, Retry},
};

use reconcile_core::desired::server::{POLICY, POLICY_TEXT};

use crate::{
    File, Package, World, database, etcd,
    server::{DataDir, Reach},
    sql,
    world::refused,
};

/// Free space below which apt gives up.
pub(crate) const APT_NEEDS: u64 = 400 << 20;

type Effect = Result<(), EffectError>;

impl World {
    /// Carries out an action. `cut`: the server loses power after the first half of it.
    pub(crate) fn apply(&mut self, action: &Action, cut: bool) -> Effect {
        self.tick += 1;
        self.cut = cut;
        let (Action::Host(host, _) | Action::Patroni(host, _) | Action::Swarm(host, _)) = action;
        self.reachable(host)?;
        let result = match action {
            Action::Host(host, action) => self.apply_host(host, action),
            Action::Patroni(host, PatroniAction::PatchConfig { patch, .. }) => {
                let patch = serde_json::from_str(patch).unwrap_or_default();
                self.patch_config(host, &patch)
                    .map_err(|cause| refused(host, "PATCH /config", cause, Retry::Soon))
            }
            Action::Patroni(host, PatroniAction::RestartReplica { runs, replaced, .. }) => {
                self.restart_replica(host, runs, replaced.is_some())
            }
            Action::Patroni(host, PatroniAction::HandOver { candidate, nodes }) => {
                self.transact(nodes, |world| world.hand_over(host, candidate))
            }
            Action::Patroni(host, PatroniAction::RestartPrimary { runs, replaced, nodes, .. }) => {
                let replaced = replaced.is_some();
                self.transact(nodes, |world| world.restart_primary(host, runs, replaced))
            }
            Action::Swarm(host, action) => self.apply_swarm(host, action),
        };
        self.cut = false;
        self.settle();
        result
    }

    pub(crate) fn reachable(&self, host: &HostName) -> Effect {
        let attempt = format!("connect to {host}");
        let Some(server) = self.servers.get(host) else {
            return Err(refused(host, attempt, "no such server", Retry::AfterChange));
        };
        match &server.reach {
            Reach::Answers if server.power => Ok(()),
            Reach::Answers | Reach::Silent => {
                Err(refused(host, attempt, "no route to host", Retry::Later))
            }
            Reach::Refuses(reason) => {
                Err(refused(host, attempt, reason.clone(), Retry::AfterChange))
            }
        }
    }

    pub(crate) fn server_of(&mut self, host: &HostName) -> Result<&mut crate::Server, EffectError> {
        self.servers
            .get_mut(host)
            .ok_or_else(|| refused(host, "find the server", "no such server", Retry::AfterChange))
    }

    /// Stops here where the action is cut off.
    pub(crate) fn cut_here(&self, host: &HostName) -> Effect {
        if self.cut {
            return Err(refused(host, "run the script", "the connection was lost", Retry::Soon));
        }
        Ok(())
    }

    fn claim(&mut self, host: &HostName, cluster: Option<&str>, claims: &[Claim]) -> Effect {
        let server = self.server_of(host)?;
        if let Some(cluster) = cluster {
            let owner = server.manifest.cluster.get_or_insert_with(|| cluster.to_owned());
            if owner != cluster {
                let owner = owner.clone();
                self.violate(format!("{host} of cluster {owner} was claimed for {cluster}"));
                return Err(refused(host, "claim", "it belongs elsewhere", Retry::AfterChange));
            }
        }
        for claim in claims {
            if self.server_of(host)?.manifest.claims.insert(claim.clone()) {
                self.wrote(format!("{host}/claim/{}/{}", claim.kind.word(), claim.name));
            }
        }
        self.cut_here(host)
    }

    fn apply_host(&mut self, host: &HostName, action: &HostAction) -> Effect {
        match action {
            HostAction::Claim { cluster, claims } => self.claim(host, Some(cluster), claims),
            HostAction::InstallPackages { packages, cluster, claims, silence, start, replica } => {
                self.before_finishing(host, packages, replica.is_some())?;
                self.install(host, packages, (cluster, claims), silence, start)
            }
            HostAction::UpgradePackages { packages, outdates, replica } => {
                self.upgrade(host, packages, (outdates, replica.is_some()))
            }
            HostAction::RestartPatroni { .. } => self.restart_patroni(host),
            HostAction::WriteFile { file, before, claim, notify, quorum, cluster } => {
                if let Some(quorum) = quorum {
                    self.ask_quorum(host, quorum)?;
                }
                self.write(host, file, before.as_deref(), *claim, cluster, notify.as_ref())?;
                // Also where the file is as desired by now: an earlier try may have been cut off
                // between the file and its unit.
                let changes = before.as_deref() != Some(file.content.digest().as_str());
                match notify {
                    Some((unit, verb)) if changes => self.notify(host, unit, *verb),
                    _ => Ok(()),
                }
            }
            HostAction::TryAccess { file, before, trial } => {
                self.try_access(host, file, before.as_deref(), trial)
            }
            HostAction::RemoveFile { path, digest } => self.remove(host, path, digest),
            HostAction::EnsureDirectory { path, .. } => {
                self.wrote(format!("{host}:{path}"));
                Ok(())
            }
            HostAction::Notify { unit, verb, quorum } => {
                if let Some(quorum) = quorum {
                    self.ask_quorum(host, quorum)?;
                }
                self.notify(host, unit, *verb)
            }
            HostAction::ResumePooler { .. } => {
                self.paused.remove(host);
                self.cut_here(host)?;
                self.guarded.remove(host);
                Ok(())
            }
            HostAction::Unit { unit, verb, enable } => self.unit(host, unit, *verb, *enable),
            HostAction::StartEtcd { data_dir, initial_cluster_state, initial_cluster, claims } => {
                let list = initial_cluster.as_deref();
                self.start_etcd(host, data_dir, (initial_cluster_state, list), claims)
            }
            HostAction::EtcdMembership { change, via, data_dir, token } => {
                self.change_membership(host, change, (via, data_dir, token))
            }
            HostAction::AwaitEtcd { endpoint: _, claims } => {
                let healthy = self.etcd_of(host).is_some_and(|number| self.etcd_has_quorum(number));
                if !healthy {
                    let attempt = format!("await etcd on {host}");
                    return Err(refused(host, attempt, "/health is not true", Retry::Later));
                }
                self.claim(host, None, claims)?;
                let bootstrap = reconcile_core::desired::etcd::BOOTSTRAP_ENV;
                self.server_of(host)?.files.remove(bootstrap);
                Ok(())
            }
            HostAction::StartPatroni { endpoint: _, data_dir, claims, until } => {
                self.start_patroni(host, data_dir, claims, *until)
            }
            HostAction::StopPatroni { .. } => self.stop_patroni(host),
            HostAction::Sql { database, sql, .. } => self.sql(host, database, sql),
        }
    }

    fn install(
        &mut self,
        host: &HostName,
        packages: &[(String, Option<String>)],
        (cluster, claims): (&str, &[Claim]),
        silence: &[String],
        start: &[String],
    ) -> Effect {
        let attempt = format!("install packages on {host}");
        let power_loss = std::mem::take(&mut self.cut);
        self.claim(host, Some(cluster), claims)?;
        if self.server_of(host)?.free_bytes < APT_NEEDS {
            let cause = "No space left on device";
            return Err(refused(host, attempt, cause, Retry::AfterChange));
        }
        let policy = File { mode: 0o755, ..File::of_root(POLICY_TEXT) };
        let server = self.server_of(host)?;
        if server.files.get(POLICY).is_some_and(|there| there.bytes == policy.bytes) {
            server.files.remove(POLICY);
        }
        for (index, (name, version)) in packages.iter().enumerate() {
            let offered = self.repository.get(name).cloned();
            let Some(offered) =
                offered.filter(|offered| version.as_ref().is_none_or(|version| version == offered))
            else {
                let cause = format!("E: Unable to locate package {name}");
                return Err(refused(host, attempt, cause, Retry::AfterChange));
            };
            if self.server_of(host)?.has_package(name) {
                continue; // apt has nothing to do.
            }
            let half = power_loss && index * 2 >= packages.len();
            let package = Package { version: offered, complete: !half };
            let server = self.server_of(host)?;
            if server.packages.get(name) != Some(&package) {
                server.packages.insert(name.clone(), package);
                if !half {
                    self.unpacked(host, name, silence);
                }
            }
            if half {
                self.server_of(host)?.files.insert(POLICY.to_owned(), policy);
                return Err(refused(host, attempt, "the connection was lost", Retry::Soon));
            }
        }
        if power_loss {
            // All packages are there, and what kept them quiet, too.
            self.server_of(host)?.files.insert(POLICY.to_owned(), policy);
            return Err(refused(host, attempt, "the connection was lost", Retry::Soon));
        }
        for unit in start {
            let server = self.server_of(host)?;
            let entry = server.units.entry(unit.clone()).or_default();
            (entry.running, entry.enabled) = (true, true);
            if unit == "docker.service" && server.docker.is_none() {
                server.docker = Some(crate::Engine::default());
            }
        }
        Ok(())
    }

    /// What a package's own scripts do.
    pub(crate) fn unpacked(&mut self, host: &HostName, name: &str, silence: &[String]) {
        self.wrote(format!("{host}/package/{name}"));
        let Some(server) = self.servers.get_mut(host) else { return };
        match name {
            "etcd-server" | "patroni" => {
                // Debian enables what it installs, and `policy-rc.d` only keeps it from starting.
                let unit = if name == "patroni" { database::UNIT } else { etcd::UNIT };
                let enabled = !silence.iter().any(|silent| silent == unit);
                let entry = server.units.entry(unit.to_owned()).or_default();
                entry.enabled |= enabled;
            }
            name if name.starts_with("postgresql-")
                && name.rsplit('-').next().is_some_and(|end| end.parse::<u16>().is_ok())
                && !name.contains("client") =>
            {
                let silenced =
                    server.files.contains_key(reconcile_core::desired::server::CREATE_CLUSTER);
                if !silenced {
                    let version = name.rsplit('-').next().unwrap_or_default();
                    let path = format!("/var/lib/postgresql/{version}/main");
                    server.data_dirs.entry(path).or_insert(DataDir::Foreign);
                    self.violate(format!("Debian made a database of its own on {host}"));
                }
            }
            _ => {}
        }
    }

    fn write(
        &mut self,
        host: &HostName,
        file: &DesiredFile,
        before: Option<&str>,
        claim: bool,
        cluster: &str,
        notify: Option<&(String, UnitVerb)>,
    ) -> Effect {
        let attempt = format!("write {} on {host}", file.path);
        let new = File {
            bytes: file.content.bytes().to_vec(),
            mode: file.mode,
            owner: file.owner.clone(),
            group: file.group.clone(),
        };
        let server = self.server_of(host)?;
        if !server.has_user(&file.owner) {
            let cause = format!("chown: invalid user: {}", file.owner);
            return Err(refused(host, attempt, cause, Retry::AfterChange));
        }
        let there = server.files.get(&file.path).cloned();
        if there.as_ref() == Some(&new) {
            return Ok(());
        }
        if there.as_ref().map(File::digest).as_deref() != before {
            return Err(refused(host, attempt, "it changed since the plan", Retry::Soon));
        }
        if server.free_bytes < 1 << 20 {
            return Err(refused(host, attempt, "No space left on device", Retry::AfterChange));
        }
        if there.is_some() && !self.claimed(host, ClaimKind::File, &file.path) {
            self.violate(format!(
                "the file {} of somebody else on {host} was overwritten",
                file.path
            ));
        }
        if claim {
            let claims = [Claim { kind: ClaimKind::File, name: file.path.clone() }];
            self.claim(host, Some(cluster), &claims)?;
        }
        self.cut_here(host)?;
        let changes = there.as_ref().map(File::digest) != Some(new.digest());
        if let Some((unit, verb)) = notify.filter(|_| changes)
            && let Some(unit) = self.server_of(host)?.units.get_mut(unit)
        {
            unit.owed = Some(*verb);
            unit.outdated = unit.running;
        }
        self.server_of(host)?.files.insert(file.path.clone(), new);
        self.wrote(format!("{host}:{}", file.path));
        Ok(())
    }

    /// Reloads or restarts a unit after its file was replaced, if it is active.
    pub(crate) fn notify(&mut self, host: &HostName, unit: &str, verb: UnitVerb) -> Effect {
        if self.late {
            return Err(refused(host, "run the script", "it was killed", Retry::Soon));
        }
        if self.server_of(host)?.runs(unit) {
            self.unit(host, unit, verb, true)?;
        }
        if let Some(unit) = self.server_of(host)?.units.get_mut(unit) {
            unit.owed = None;
        }
        Ok(())
    }

    /// What the script asks the other members in the moment of a restart.
    fn ask_quorum(&mut self, host: &HostName, quorum: &EtcdQuorum) -> Effect {
        let healthy = quorum.peers.iter().filter(|url| self.etcd_at(&[(*url).clone()]).is_some());
        let healthy = healthy.count();
        if healthy < quorum.needed {
            let cause = format!("quorum: {healthy} other members are healthy");
            return Err(refused(host, format!("restart etcd on {host}"), cause, Retry::Later));
        }
        Ok(())
    }

    fn remove(&mut self, host: &HostName, path: &str, digest: &str) -> Effect {
        let Some(file) = self.server_of(host)?.files.get(path) else { return Ok(()) };
        if file.digest() != digest {
            let attempt = format!("remove {path} on {host}");
            return Err(refused(host, attempt, "it changed since the plan", Retry::Soon));
        }
        if !self.claimed(host, ClaimKind::File, path) {
            self.violate(format!("the file {path} of somebody else on {host} was removed"));
        }
        self.server_of(host)?.files.remove(path);
        self.wrote(format!("{host}:{path}"));
        Ok(())
    }

    fn unit(&mut self, host: &HostName, unit: &str, verb: UnitVerb, enable: bool) -> Effect {
        self.cut_here(host)?;
        let server = self.server_of(host)?;
        let Some(state) = server.units.get(unit).cloned() else {
            let attempt = format!("start {unit} on {host}");
            return Err(refused(host, attempt, "Unit not found", Retry::AfterChange));
        };
        let mut new = crate::Unit { masked: false, ..state.clone() };
        new.enabled = if verb == UnitVerb::Stop { false } else { state.enabled || enable };
        match verb {
            UnitVerb::Start => {
                new.outdated &= state.running;
                new.old_program &= state.running;
                (new.running, new.failed) = (true, false);
            }
            UnitVerb::Stop => (new.running, new.outdated) = (false, false),
            UnitVerb::Restart => {
                (new.running, new.failed, new.outdated) = (true, false, false);
                new.old_program = false;
                self.wrote(format!("{host}/{unit} restart"));
            }
            UnitVerb::Reload => {
                new.outdated = false;
                self.wrote(format!("{host}/{unit} reload"));
            }
            UnitVerb::Keep => {}
        }
        if matches!(verb, UnitVerb::Stop | UnitVerb::Restart) && state.running {
            if unit == etcd::UNIT {
                self.before_etcd_stop(host);
            }
            if unit == database::UNIT {
                self.violate(format!("systemd stopped or restarted Patroni on {host}"));
            }
        }
        if new != state {
            self.wrote(format!("{host}/{unit}"));
            self.server_of(host)?.units.insert(unit.to_owned(), new);
        }
        Ok(())
    }

    fn start_etcd(
        &mut self,
        host: &HostName,
        data_dir: &str,
        (state, list): (&str, Option<&str>),
        claims: &[Claim],
    ) -> Effect {
        let attempt = format!("start etcd on {host}");
        let server = self.server_of(host)?;
        if !server.has_package("etcd-server") {
            return Err(refused(host, attempt, "Unit not found", Retry::AfterChange));
        }
        let running = server.runs(etcd::UNIT);
        if let Some(data) = server.data_dirs.get(data_dir) {
            let formed = |claim: &Claim| claim.kind == ClaimKind::EtcdFormed;
            let again = state == "existing"
                && server.manifest.claims(ClaimKind::DataDir, data_dir)
                && !server.manifest.claims.iter().any(formed);
            if running && *data != DataDir::Foreign && !again {
                return Ok(()); // Carried out before.
            }
            if !again {
                let cause = format!("{data_dir} is populated");
                return Err(refused(host, attempt, cause, Retry::AfterChange));
            }
        }
        self.claim(host, None, claims)?;
        let path = reconcile_core::desired::etcd::BOOTSTRAP_ENV.to_owned();
        let mut text = format!("ETCD_INITIAL_CLUSTER_STATE={state}\n");
        if let Some(list) = list {
            text.push_str(&format!("ETCD_INITIAL_CLUSTER={list}\n"));
        }
        self.server_of(host)?.files.insert(path, File::of_root(text));
        self.unit(host, etcd::UNIT, UnitVerb::Start, true)
    }

    fn start_patroni(
        &mut self,
        host: &HostName,
        data_dir: &str,
        claims: &[Claim],
        until: PatroniGoal,
    ) -> Effect {
        let attempt = format!("start Patroni on {host}");
        let server = self.server_of(host)?;
        if !server.has_package("patroni") {
            return Err(refused(host, attempt, "Unit not found", Retry::AfterChange));
        }
        let populated = server.data_dirs.contains_key(data_dir);
        if populated && !self.claimed(host, ClaimKind::DataDir, data_dir) {
            self.violate(format!("Patroni was started on the data of somebody else on {host}"));
        }
        if populated {
            self.cut_here(host)?;
        } else {
            self.claim(host, None, claims)?;
        }
        self.unit(host, database::UNIT, UnitVerb::Start, true)?;
        self.settle();
        let fact = self.patroni_fact(host);
        let fact = fact.present();
        let primary = self.primary_on(host).is_some();
        let replica = fact.is_some_and(|fact| fact.streaming);
        let reached = match until {
            PatroniGoal::Primary => primary,
            PatroniGoal::Replica => replica,
            PatroniGoal::Either => primary || replica,
        };
        if reached {
            return Ok(());
        }
        let state = fact.map_or("silent", |fact| fact.state.as_str());
        Err(refused(host, attempt, format!("it is {state} at the deadline"), Retry::Later))
    }

    fn stop_patroni(&mut self, host: &HostName) -> Effect {
        let attempt = format!("stop Patroni on {host}");
        if self.primary_on(host).is_some() {
            return Err(refused(host, attempt, "it is the primary by now", Retry::Soon));
        }
        if !self.leaving.contains(host) {
            self.violate(format!("Patroni was stopped on {host}, which does not leave"));
        }
        let running = self.server_of(host)?.runs(database::UNIT);
        if let Some((.., scope)) = self.patroni_of(host).filter(|_| running) {
            self.before_disturbing(host, &scope);
        }
        let Some(unit) = self.server_of(host)?.units.get_mut(database::UNIT) else {
            return Ok(());
        };
        // Stopped first, and kept from starting at boot then.
        unit.running = false;
        self.cut_here(host)?;
        if let Some(unit) = self.server_of(host)?.units.get_mut(database::UNIT) {
            unit.enabled = false;
        }
        self.wrote(format!("{host}/{}", database::UNIT));
        Ok(())
    }

    fn sql(&mut self, host: &HostName, inside: &str, script: &Content) -> Effect {
        let attempt = format!("run SQL on {host}");
        let text = String::from_utf8_lossy(script.bytes()).into_owned();
        let Some(system) = self.primary_on(host) else {
            // The one statement that changes a standby: its own file.
            if let Some(rest) = text.strip_prefix("ALTER SYSTEM RESET \"") {
                let parameter = rest.split('"').next().unwrap_or_default().to_owned();
                self.cut_here(host)?;
                if self.server_of(host)?.altered.remove(&parameter).is_some() {
                    self.wrote(format!("{host}/alter-system/{parameter}"));
                }
                return Ok(());
            }
            let cause = "cannot execute in a read-only transaction";
            return Err(refused(host, attempt, cause, Retry::Soon));
        };
        let cut = self.cut;
        let available = self.extensions.clone();
        let Some(cluster) = self.databases.get_mut(&system) else { return Ok(()) };
        let foreign = cluster.foreign;
        let (changed, result) = sql::run(cluster, &available, inside, &text, cut);
        if foreign && !changed.is_empty() {
            self.violate(format!("the database of somebody else on {host} was changed"));
        }
        for object in changed {
            self.wrote(object);
        }
        self.cut_here(host)?;
        result.map_err(|cause| {
            if cause.starts_with("the simulator") {
                self.violate(cause.clone());
            }
            // A person must bring an extension; anything else looks different at the next look.
            let missing = cause.ends_with("is not available");
            refused(host, attempt, cause, if missing { Retry::AfterChange } else { Retry::Soon })
        })
    }
}

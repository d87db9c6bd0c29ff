//! Who gets into the simulated PostgreSQL: the rules that it has loaded, and their trial on a server.

use reconcile_core::{
    action::{AccessTrial, DesiredFile, UnitVerb},
    desired::access,
    model::{AccessNote, AccessState, HostName},
    ports::{EffectError, Retry},
};

use crate::{File, World, database::UNIT, world::refused};

/// The file that is put back when a trial fails.
const KEPT: &str = "/etc/patroni/.patroni.yml.before";

impl World {
    /// What Patroni has read, PostgreSQL has loaded.
    pub(crate) fn settle_access(&mut self) {
        for (host, _) in self.serving() {
            self.load_rules(&host);
            let Some(server) = self.servers.get(&host) else { continue };
            let trying =
                server.access.as_ref().is_some_and(|note| note.state == AccessState::Trying);
            if !trying && self.locks_out(&host) {
                let text = format!("somebody is locked out on {host}, where nothing is tried");
                if !self.violations.contains(&text) {
                    self.violate(text);
                }
            }
        }
    }

    fn load_rules(&mut self, host: &HostName) {
        let Some(server) = self.servers.get_mut(host) else { return };
        if server.units.get(UNIT).is_none_or(|unit| unit.outdated || !unit.running) {
            return;
        }
        let Some(settings) = server.patroni_settings() else { return };
        let Some(rules) = settings["postgresql"]["pg_hba"].as_array() else { return };
        let lines: Vec<String> =
            rules.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect();
        let Some(data_dir) = settings["postgresql"]["data_dir"].as_str() else { return };
        // What somebody did to pg_hba.conf itself stays until its lines in patroni.yml change.
        if server.files.contains_key(&access::file(data_dir)) && server.rules == lines {
            return;
        }
        server.rules.clone_from(&lines);
        let file = File {
            bytes: access::text(&lines).into_bytes(),
            mode: 0o600,
            owner: "postgres".to_owned(),
            group: "postgres".to_owned(),
        };
        server.files.insert(access::file(data_dir), file);
    }

    /// The rules in force keep somebody out who must get in.
    fn locks_out(&self, host: &HostName) -> bool {
        let Some(server) = self.servers.get(host) else { return false };
        let rules = server.files.iter().filter(|(path, _)| path.ends_with("/pg_hba.conf"));
        let text: String = rules.map(|(_, file)| file.text()).collect();
        self.locking_out.iter().any(|words| text.contains(words))
    }

    /// A trial as its script makes it.
    pub(crate) fn try_access(
        &mut self,
        host: &HostName,
        file: &DesiredFile,
        before: Option<&str>,
        trial: &AccessTrial,
    ) -> Result<(), EffectError> {
        let attempt = format!("try the access rules on {host}");
        let refuse = |cause: &str| refused(host, &attempt, cause, Retry::Soon);
        let primary = self.primary_on(host).is_some();
        let answers = self.scope_served_by(host).is_some();
        let server = self.server_of(host)?;
        let there = server.files.get(&file.path).cloned();
        let note = server.access.clone();
        if trial.back {
            return self.take_back(host, &file.path);
        }
        let same = note.as_ref().filter(|note| note.digest == trial.digest);
        let loaded = server.files.get(&access::file(&trial.data_dir));
        let loaded = loaded.is_some_and(|file| file.text() == access::text(&trial.lines));
        match same.map(|note| note.state) {
            Some(AccessState::Proven) if loaded => return Ok(()),
            Some(AccessState::Refused) => return Err(refuse("they were taken back")),
            _ => {}
        }
        let begun = note.is_some_and(|note| note.state == AccessState::Trying);
        if !(begun && server.files.contains_key(KEPT)) {
            if there.as_ref().map(File::digest).as_deref() != before {
                return Err(refuse("it changed since the plan"));
            }
            let Some(old) = there.clone().filter(|_| answers && (!primary || trial.primary)) else {
                return Err(refuse("it is no member to try them on"));
            };
            server.files.insert(KEPT.to_owned(), old);
        }
        let note = |state| AccessNote {
            state,
            digest: trial.digest.clone(),
            reason: if state == AccessState::Refused { "app does not get in" } else { "" }
                .to_owned(),
        };
        server.access = Some(note(AccessState::Trying));
        let Some(kept) = server.files.get(KEPT).cloned() else { return Ok(()) };
        self.cut_here(host)?;
        if answers {
            let tried = spliced(&kept.text(), &String::from_utf8_lossy(file.content.bytes()));
            self.replace(host, &file.path, File { bytes: tried.into_bytes(), ..kept.clone() })?;
            if self.late {
                return Err(refuse("it was killed"));
            }
            self.load(host)?;
            if !self.locks_out(host) {
                let server = self.server_of(host)?;
                server.access = Some(note(AccessState::Proven));
                server.files.remove(KEPT);
                return Ok(());
            }
        }
        self.replace(host, &file.path, kept)?;
        self.load(host)?;
        let server = self.server_of(host)?;
        server.access = answers.then(|| note(AccessState::Refused));
        server.files.remove(KEPT);
        Err(refuse("the access rules were taken back"))
    }

    /// Puts back what a trial that was cut off replaced.
    fn take_back(&mut self, host: &HostName, path: &str) -> Result<(), EffectError> {
        let server = self.server_of(host)?;
        if server.access.as_ref().is_none_or(|note| note.state != AccessState::Trying) {
            return Ok(());
        }
        if let Some(kept) = server.files.get(KEPT).cloned() {
            self.replace(host, path, kept)?;
            self.cut_here(host)?;
            self.load(host)?;
        }
        let server = self.server_of(host)?;
        server.access = None;
        server.files.remove(KEPT);
        Ok(())
    }

    fn replace(&mut self, host: &HostName, path: &str, new: File) -> Result<(), EffectError> {
        let server = self.server_of(host)?;
        if server.files.get(path) == Some(&new) {
            return Ok(());
        }
        server.files.insert(path.to_owned(), new);
        if let Some(unit) = server.units.get_mut(UNIT) {
            unit.owed = Some(UnitVerb::Reload);
            unit.outdated = unit.running;
        }
        self.wrote(format!("{host}:{path}"));
        Ok(())
    }

    fn load(&mut self, host: &HostName) -> Result<(), EffectError> {
        let owed = self.server_of(host)?.units.get(UNIT).is_some_and(|unit| unit.owed.is_some());
        if owed {
            self.notify(host, UNIT, UnitVerb::Reload)?;
        }
        self.load_rules(host);
        Ok(())
    }
}

/// The old file with the rules of the new one.
fn spliced(old: &str, new: &str) -> String {
    let rule = |line: &&str| {
        let text = line.trim_start();
        text.is_empty() || text.starts_with(['#', '-']) || line.starts_with("   ")
    };
    let mut lines = new.lines().skip_while(|line| *line != "  pg_hba:").skip(1);
    let rules: Vec<&str> = lines.by_ref().take_while(rule).collect();
    let mut text = String::new();
    let mut inside = false;
    for line in old.lines() {
        inside = line == "  pg_hba:" || inside && rule(&line);
        if line == "  pg_hba:" {
            text.push_str("  pg_hba:\n");
            for rule in &rules {
                text.push_str(rule);
                text.push('\n');
            }
        } else if !inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    if text.contains("  pg_hba:\n") { text } else { new.to_owned() }
}

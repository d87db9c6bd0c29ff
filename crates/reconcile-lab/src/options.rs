//! Which lab is meant, and where its state lies.
//!
//! Must not touch the lab itself.

use std::path::PathBuf;

use crate::error::{LabError, Result, at};
use crate::state::Lab;

/// Which lab, and what it should be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabOptions {
    /// The lab's name: lower-case letters, digits and hyphens. Labs of different names live side
    /// by side.
    pub name: String,
    /// How many servers; 1 to 99. Only `up` looks at it.
    pub servers: u8,
    /// Whether the servers come with a Docker engine. Only `up` looks at it.
    pub docker: bool,
    /// The folder that holds labs; each has its own folder in it, by its name.
    pub dir: PathBuf,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { name: "lab".to_owned(), servers: 3, docker: true, dir: PathBuf::from(".lab") }
    }
}

impl LabOptions {
    /// The lab's own folder, absolute: `lab.json`, `id_ed25519`, `known_hosts`, `ssh_config`.
    pub fn state_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join(&self.name);
        std::path::absolute(&dir).map_err(at("find", dir))
    }

    /// Reads the lab's state; an error where there is no such lab.
    pub fn load(&self) -> Result<Lab> {
        self.check()?;
        Lab::load(&self.state_dir()?)?
            .ok_or_else(|| LabError::NoLab { name: self.name.clone(), dir: self.dir.clone() })
    }

    pub(crate) fn check(&self) -> Result<()> {
        /// Leaves room for `-node99-docker` in what Docker and host names allow.
        const LONGEST: usize = 40;
        let fits = !self.name.is_empty()
            && self.name.len() <= LONGEST
            && !self.name.starts_with('-')
            && self
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !fits {
            return Err(LabError::Refused(format!(
                "lab name `{}`: only lower-case letters, digits and inner hyphens, {LONGEST} at most",
                self.name
            )));
        }
        if !(1..=99).contains(&self.servers) {
            return Err(LabError::Refused(format!(
                "a lab has 1 to 99 servers, not {}",
                self.servers
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(name: &str, servers: u8) -> LabOptions {
        LabOptions { name: name.to_owned(), servers, ..LabOptions::default() }
    }

    #[test]
    fn names_are_what_hosts_and_containers_allow() {
        assert!(options("lab-2", 3).check().is_ok());
        for bad in ["", "-lab", "Lab", "a/b", "a b", &"x".repeat(41)] {
            assert!(options(bad, 3).check().is_err(), "{bad}");
        }
        assert!(options("lab", 0).check().is_err());
        assert!(options("lab", 100).check().is_err());
    }
}

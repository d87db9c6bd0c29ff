//! What a lab remembers: one folder with `lab.json`, the key, known hosts and an SSH config.
//!
//! Must not hold anything that cannot be made again, but for the key.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::command::Invocation;
use crate::error::{LabError, Result, at};

/// The user that may log in to every server.
pub const USER: &str = "reconcile";

/// The content of `lab.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    /// The lab's name.
    pub name: String,
    /// The servers' subnet, in CIDR form.
    pub subnet: String,
    /// The bridge's address: this machine, as the servers see it.
    pub gateway: Ipv4Addr,
    /// Where the servers pull images from: `gateway:port`.
    pub registry: String,
    /// References of the images in the registry.
    pub images: Vec<String>,
    /// Whether the servers came with a Docker engine.
    pub docker: bool,
    /// The servers, in order.
    pub servers: Vec<Server>,
}

/// One server of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Its host name: `node1`, ….
    pub name: String,
    /// Its address on the lab's network.
    pub address: Ipv4Addr,
    /// Its container in the outer engine.
    pub container: String,
    /// Its own SSH host key (`ssh-ed25519 AAAA…`); none before its first boot.
    pub host_key: Option<String>,
}

impl Lab {
    /// The file below the lab's folder.
    pub const FILE: &str = "lab.json";

    /// Reads a lab; none where there is no folder or file.
    pub fn load(dir: &Path) -> Result<Option<Self>> {
        let file = dir.join(Self::FILE);
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                LabError::Malformed { what: file.display().to_string(), reason: error.to_string() }
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", file)(error)),
        }
    }

    /// The server of this name.
    pub fn server(&self, name: &str) -> Result<&Server> {
        self.servers.iter().find(|server| server.name == name).ok_or_else(|| LabError::NoServer {
            lab: self.name.clone(),
            server: name.to_owned(),
            known: self
                .servers
                .iter()
                .map(|server| server.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// Writes `lab.json`, `known_hosts` and `ssh_config`.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| LabError::Malformed {
            what: format!("state of lab `{}`", self.name),
            reason: error.to_string(),
        })?;
        write(dir, "known_hosts", &self.known_hosts())?;
        write(dir, "ssh_config", &self.ssh_config(dir))?;
        write(dir, Self::FILE, &(text + "\n"))
    }

    fn known_hosts(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            if let Some(key) = &server.host_key {
                let (name, address) = (&server.name, server.address);
                // Writing to a String cannot fail.
                let _ok = writeln!(text, "{name},{address} {key}");
            }
        }
        text
    }

    fn ssh_config(&self, dir: &Path) -> String {
        let dir = dir.display();
        let mut text = String::new();
        for server in &self.servers {
            let (name, address) = (&server.name, server.address);
            let _ok = write!(text, "Host {name} {address}\n  HostName {address}\n\n");
        }
        let _ok = write!(
            text,
            "Host *\n  User {USER}\n  IdentityFile \"{dir}/id_ed25519\"\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile \"{dir}/known_hosts\"\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  ConnectTimeout 5\n"
        );
        text
    }
}

/// Makes a lab's folder with its key pair; gives the public key.
pub(crate) async fn ensure_folder(dir: &Path) -> Result<String> {
    fs::create_dir_all(dir).map_err(at("create", dir))?;
    // Keys do not belong into a repository, wherever the folder lies.
    write(dir, ".gitignore", "*\n")?;
    let key = dir.join("id_ed25519");
    if !key.exists() {
        Invocation::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "reconcile-lab", "-f"])
            .arg(&key)
            .run("make the lab's SSH key")
            .await?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).map_err(at("chmod", &key))?;
    }
    let public = dir.join("id_ed25519.pub");
    let text = fs::read_to_string(&public).map_err(at("read", &public))?;
    Ok(text.trim().to_owned())
}

/// Replaces a file whole: a reader sees the old or the new content, never half of one.
fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let file = dir.join(name);
    let draft = dir.join(format!("{name}.new"));
    fs::write(&draft, text).map_err(at("write", &draft))?;
    fs::rename(&draft, &file).map_err(at("write", &file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> Lab {
        Lab {
            name: "lab".to_owned(),
            subnet: "10.201.7.0/24".to_owned(),
            gateway: Ipv4Addr::new(10, 201, 7, 1),
            registry: "10.201.7.1:5000".to_owned(),
            images: vec!["10.201.7.1:5000/haproxy:2.6-1".to_owned()],
            docker: true,
            servers: vec![
                Server {
                    name: "node1".to_owned(),
                    address: Ipv4Addr::new(10, 201, 7, 11),
                    container: "lab-node1".to_owned(),
                    host_key: Some("ssh-ed25519 AAAA".to_owned()),
                },
                Server {
                    name: "node2".to_owned(),
                    address: Ipv4Addr::new(10, 201, 7, 12),
                    container: "lab-node2".to_owned(),
                    host_key: None,
                },
            ],
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(Lab::load(dir.path()).expect("absent is fine"), None);
        lab().save(dir.path()).expect("it is writable");
        assert_eq!(Lab::load(dir.path()).expect("it was saved"), Some(lab()));
    }

    #[test]
    fn a_broken_file_is_told_by_name() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join(Lab::FILE), "{").expect("it is writable");
        let text = Lab::load(dir.path()).expect_err("it is broken").to_string();
        assert!(text.contains("lab.json: EOF"), "{text}");
    }

    #[test]
    fn ssh_config_trusts_only_the_lab() {
        assert_eq!(
            lab().ssh_config(Path::new("/x/.lab/lab")),
            "Host node1 10.201.7.11\n  HostName 10.201.7.11\n\n\
             Host node2 10.201.7.12\n  HostName 10.201.7.12\n\n\
             Host *\n  User reconcile\n  IdentityFile \"/x/.lab/lab/id_ed25519\"\n  \
             IdentitiesOnly yes\n  UserKnownHostsFile \"/x/.lab/lab/known_hosts\"\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  ConnectTimeout 5\n"
        );
    }

    #[test]
    fn known_hosts_names_servers_that_booted() {
        assert_eq!(lab().known_hosts(), "node1,10.201.7.11 ssh-ed25519 AAAA\n");
    }
}

//! A Git host in a container of the lab's network: SSH with a deploy key, HTTPS with a token and a
//! private authority. What it needs it installs into its image (`tests/e2e/git-host`).

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{Lab, PATIENCE, Repository, until};

/// What its user must say over HTTPS.
const TOKEN: &str = "canary-token-of-the-git-host-7Qx";

/// A running host, taken away with the test.
pub(crate) struct GitHost {
    container: String,
    folder: PathBuf,
    /// Where it listens.
    pub(crate) address: Ipv4Addr,
    /// What is served, as `team/db.git`.
    pub(crate) repository: Repository,
}

impl GitHost {
    /// Starts one for a lab; the key `ada` of its repository is the deploy key.
    pub(crate) fn start(lab: &Lab) -> Self {
        let folder = lab.dir().join("git-host");
        let repository = Repository::new(folder.clone());
        let container = format!("{}-git-host", lab.name());
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/git-host");
        let token = folder.join("token");
        fs::write(&token, format!("{TOKEN}\n")).expect("written");
        Lab::engine(&format!("docker rm -f {container} >/dev/null 2>&1 || true"));
        let image = image(&recipe, "git-host");
        let address = Lab::engine(&format!(
            "docker run -d --name {container} --network reconcile-lab-{name} -e TOKEN_FILE=/token \
               -v {token}:/token:ro -v {bare}:/srv/git/team/db.git:ro {image} >/dev/null
             docker inspect -f '{{{{range .NetworkSettings.Networks}}}}{{{{.IPAddress}}}}{{{{end}}}}' {container}",
            name = lab.name(),
            token = token.display(),
            bare = repository.bare().display(),
        ));
        let address = address.trim().parse().expect("an address");
        let host = Self { container, folder, address, repository };
        until("the Git host to serve", PATIENCE, || {
            let ready = host.sh("ls /tls/ready 2>/dev/null; cat /etc/ssh/ssh_host_ed25519_key.pub");
            if ready.contains("/tls/ready") { Ok(()) } else { Err(ready) }
        });
        let key = fs::read_to_string(host.file("ada.pub")).expect("a public key");
        let line = format!("restrict {key}");
        host.sh(&format!(
            "mkdir -p ~git/.ssh; printf %s '{line}' > ~git/.ssh/authorized_keys; chown -R git ~git/.ssh; chmod -R go= ~git/.ssh"
        ));
        let server = host.sh("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub");
        fs::write(host.file("known_hosts"), format!("{address} {server}")).expect("written");
        fs::write(host.file("ca.pem"), host.sh("cat /tls/ca.pem")).expect("written");
        host
    }

    /// A file that belongs to it, on this machine: `ada`, `eve`, `known_hosts`, `ca.pem`, `token`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the file is, over SSH.
    pub(crate) fn ssh(&self) -> String {
        format!("git+ssh://git@{}/srv/git/team/db.git#main:cluster.yaml", self.address)
    }

    /// Where the file is, over HTTPS.
    pub(crate) fn https(&self) -> String {
        format!("git+https://{}/team/db.git#main:cluster.yaml", self.address)
    }

    /// Runs a script in it.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = script.replace('\'', "'\\''");
        Lab::engine(&format!("docker exec {} bash -c '{script}'", self.container))
    }
}

impl Drop for GitHost {
    fn drop(&mut self) {
        Lab::engine(&format!("docker rm -f {} >/dev/null", self.container));
    }
}

/// Builds an image in the outer engine on the lab's Debian; gives its name.
pub(crate) fn image(folder: &Path, name: &str) -> String {
    let tag = format!("reconcile-tests/{name}");
    // The builder that is part of the engine: the other one is a plug-in, and may be absent.
    Lab::engine(&format!(
        "base=$(docker images --format '{{{{.Repository}}}}:{{{{.Tag}}}}' reconcile-lab/base | head -n1)
         DOCKER_BUILDKIT=0 docker build --quiet --network=host --build-arg BASE=$base --tag {tag} {} >/dev/null",
        folder.display()
    ));
    tag
}

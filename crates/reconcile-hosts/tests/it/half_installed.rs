//! Who leads, asked where packages are half installed: the script runs for real, beside programs that
//! answer as the server's would.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use reconcile_core::action::HostAction;

use super::actions::{here, run};

/// A server with a data directory of ours, on which `apt-get` leaves a mark.
struct Server {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Server {
    /// Patroni answers with `code`, PostgreSQL with `recovers`.
    fn new(code: &str, recovers: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        for part in ["bin", "lib", "data"] {
            std::fs::create_dir(folder.path().join(part)).unwrap();
        }
        std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        let server = Self { folder, data };
        server.manifest(&format!("cluster shop\nclaim data-dir {}\n", server.data.display()));
        let curl = if code == "000" { "exit 7".to_owned() } else { format!("printf {code}") };
        let apt = format!("[ \"$1\" = -q ] && : >{}", server.path("installed").display());
        for (name, text) in [
            ("curl", curl.as_str()),
            ("systemctl", "echo activating"),
            ("dpkg-query", "exit 1"),
            ("apt-cache", "echo known"),
            ("apt-get", &apt),
            ("setpriv", &format!("[ {recovers} = none ] && exit 2; echo {recovers}")),
        ] {
            let path = server.path("bin").join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn manifest(&self, text: &str) {
        std::fs::write(self.path("lib/manifest"), text).unwrap();
    }

    fn pid_file(&self, pid: &str) {
        let text = format!("{pid}\n{}\n1700000000\n5432\n/run\n", self.data.display());
        std::fs::write(self.data.join("postmaster.pid"), text).unwrap();
    }

    /// A process that lives in `directory`, as a postmaster does in its own.
    fn lives(&self, directory: &Path) -> Process {
        let child = Command::new("sleep").arg("60").current_dir(directory).spawn().unwrap();
        self.pid_file(&child.id().to_string());
        Process(child)
    }

    /// Finishes what is half installed. Tells why not.
    fn finishes(&self) -> Result<(), String> {
        let action = HostAction::InstallPackages {
            packages: vec![("patroni".to_owned(), None)],
            cluster: "shop".to_owned(),
            claims: Vec::new(),
            silence: Vec::new(),
            start: Vec::new(),
            replica: Some("http://192.0.2.11:8008".to_owned()),
        };
        let script = here(self.folder.path(), &action)
            .replace("/usr/sbin/policy-rc.d", self.path("policy").to_str().unwrap());
        let real = " PATH=/usr/local/sbin";
        assert!(script.contains(real));
        let bin = format!(" PATH={}:/usr/local/sbin", self.path("bin").display());
        let script = script.replace(real, &bin);
        let (status, said) = run(&script);
        assert_eq!(status == 0, self.path("installed").exists(), "{status}: {said}");
        if status == 0 { Ok(()) } else { Err(said) }
    }

    fn refuses(&self) {
        let why = self.finishes().unwrap_err();
        assert!(why.contains("Patroni does not say that it is no primary (HTTP 000)"), "{why}");
    }
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn what_patroni_says_counts() {
    assert_eq!(Server::new("503", "f").finishes(), Ok(()));
    let why = Server::new("200", "t").finishes().unwrap_err();
    assert!(why.contains("it is the primary by now; nothing was installed"), "{why}");
    let why = Server::new("500", "t").finishes().unwrap_err();
    assert!(why.contains("(HTTP 500)"), "{why}");
}

/// A power cut in the middle of apt: Patroni's files are cut off, and it starts over and over.
#[test]
fn where_patroni_is_silent_postgresql_is_asked() {
    let silent = Server::new("000", "f");
    assert_eq!(silent.finishes(), Ok(()), "nothing runs");

    let stale = Server::new("000", "f");
    let gone = stale.lives(&stale.data);
    drop(gone);
    assert_eq!(stale.finishes(), Ok(()), "what ran has ended");

    let reused = Server::new("000", "f");
    let _other = reused.lives(Path::new("/"));
    assert_eq!(reused.finishes(), Ok(()), "the number is another's by now");

    let replica = Server::new("000", "t");
    let _postmaster = replica.lives(&replica.data);
    assert_eq!(replica.finishes(), Ok(()), "it is in recovery");
}

#[test]
fn where_neither_is_certain_nothing_is_installed() {
    let primary = Server::new("000", "f");
    let _postmaster = primary.lives(&primary.data);
    primary.refuses();

    let mute = Server::new("000", "none");
    let _postmaster = mute.lives(&mute.data);
    mute.refuses();

    let damaged = Server::new("000", "t");
    damaged.pid_file("");
    damaged.refuses();

    let foreign = Server::new("000", "t");
    foreign.manifest("cluster shop\n");
    foreign.refuses();

    let released = Server::new("000", "t");
    let data = released.data.display();
    released.manifest(&format!("claim data-dir {data}\nrelease data-dir {data}\n"));
    released.refuses();

    let unmounted = Server::new("000", "t");
    std::fs::remove_file(unmounted.data.join("PG_VERSION")).unwrap();
    unmounted.refuses();
}

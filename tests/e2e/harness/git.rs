//! A Git repository to push to, with commits that are signed, by whom, or not, and the word that
//! a Git host sends for a push.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::run::Job;

const PATIENCE: Duration = Duration::from_secs(30);

/// A bare repository, and a clone of it in which commits are made.
pub(crate) struct Repository {
    folder: PathBuf,
}

/// Who signs a commit.
#[derive(Clone, Copy)]
pub(crate) enum Signer {
    /// The one whose key is allowed.
    Ada,
    /// Somebody whose key is not.
    Eve,
    /// Nobody.
    Nobody,
}

impl Repository {
    /// An empty one in a folder that is made anew.
    pub(crate) fn new(folder: PathBuf) -> Self {
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(folder.join("work")).expect("the lab's folder is writable");
        let repository = Self { folder };
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main", "../bare.git"]);
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.git(&["remote", "add", "origin", "../bare.git"]);
        for name in ["ada", "eve"] {
            let key = repository.folder.join(name);
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key);
            Job::start(keygen).wait(PATIENCE).expect(0);
        }
        let ada = fs::read_to_string(repository.folder.join("ada.pub")).expect("a public key");
        let line = format!("ada@example.org namespaces=\"git\" {ada}");
        fs::write(repository.signers(), line).expect("written");
        repository
    }

    /// The bare repository.
    pub(crate) fn bare(&self) -> PathBuf {
        self.folder.join("bare.git")
    }

    /// Keys that may sign.
    pub(crate) fn signers(&self) -> PathBuf {
        self.folder.join("allowed_signers")
    }

    /// Runs git in the clone.
    #[track_caller]
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(["-c", "gpg.format=ssh"])
            .args(arguments)
            .current_dir(self.folder.join("work"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        Job::start(git).wait(PATIENCE).expect(0).stdout.trim().to_owned()
    }

    /// Commits a file.
    #[track_caller]
    pub(crate) fn commit(
        &self,
        subject: &str,
        signer: Signer,
        file: &str,
        bytes: impl AsRef<[u8]>,
    ) {
        fs::write(self.folder.join("work").join(file), bytes).expect("written");
        self.git(&["add", "--all"]);
        let name = match signer {
            Signer::Ada => "ada",
            Signer::Eve => "eve",
            Signer::Nobody => {
                self.git(&["commit", "--quiet", "--allow-empty", "-m", subject]);
                return;
            }
        };
        let key = format!("user.signingkey={}", self.folder.join(name).display());
        self.git(&["-c", &key, "commit", "--quiet", "--allow-empty", "-S", "-m", subject]);
    }

    /// Pushes the branch.
    #[track_caller]
    pub(crate) fn push(&self, more: &[&str]) {
        self.git(&[&["push", "--quiet"], more, &["origin", "main"]].concat());
    }
}

/// A secret of a webhook, in a file.
pub(crate) struct Hook {
    secret: String,
    /// The file.
    pub(crate) file: PathBuf,
}

impl Hook {
    /// A secret in a file of this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let (secret, file) = ("a-webhook-secret-of-the-tests", folder.join("webhook-secret"));
        fs::write(&file, secret).expect("the lab's folder is writable");
        Self { secret: secret.to_owned(), file }
    }

    /// Says that something was pushed; gives the answer's first line.
    pub(crate) fn ring(&self, address: SocketAddr) -> String {
        Self::ring_as(&self.secret, address)
    }

    /// The same, signed with another secret.
    pub(crate) fn ring_as(secret: &str, address: SocketAddr) -> String {
        const BODY: &str = r#"{"ref": "refs/heads/main"}"#;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(BODY.as_bytes());
        let signature = format!("{:x}", mac.finalize().into_bytes());
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the endpoint");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time is set");
        write!(
            stream,
            "POST /reconcile HTTP/1.1\r\nhost: {address}\r\nx-hub-signature-256: sha256={signature}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{BODY}",
            BODY.len()
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        answer.lines().next().unwrap_or_default().to_owned()
    }
}

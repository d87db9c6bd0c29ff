//! The bare mirror: fetching a branch, judging its newest commit, reading files out of it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use reconcile_core::model::{Revision, sha256_hex};

use crate::{
    access::Access,
    location::Location,
    process::{Bounds, HERE, Ran, git, run, size},
};

/// The branch as it was fetched last.
const SEEN: &str = "refs/reconcile/seen";
/// The commit that was accepted last; the branch may only go on from there.
const IN_FORCE: &str = "refs/reconcile/in-force";
/// A desired-state file of more is a mistake.
const FILE_MOST: u64 = 1 << 20;
/// Files of a folder.
const FILES_MOST: usize = 100;

/// How a repository is reached, and what is accepted from it.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Commits must be signed by one of these keys (ssh-keygen's ALLOWED SIGNERS).
    pub allowed_signers: Option<PathBuf>,
    /// The branch may be moved back or to another history.
    pub allow_rewind: bool,
    /// How to log in.
    pub access: Access,
    /// Longest time of a fetch.
    pub fetch_time: Duration,
    /// Most bytes of the mirror.
    pub mirror_bytes: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allowed_signers: None,
            allow_rewind: false,
            access: Access::default(),
            fetch_time: Duration::from_secs(120),
            mirror_bytes: 512 << 20,
        }
    }
}

/// Why nothing new comes from a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git.
    #[error("git is not installed on this machine, and a Git source needs it")]
    NoGit,
    /// Something of this machine failed.
    #[error("{attempt}: {source}")]
    Io {
        /// What was tried.
        attempt: String,
        /// The cause.
        source: std::io::Error,
    },
    /// git said no.
    #[error("{attempt}: {said}")]
    Git {
        /// What was tried.
        attempt: String,
        /// The last of what git said.
        said: String,
    },
    /// It took too long.
    #[error("{attempt}: stopped after {seconds} s")]
    TooLong {
        /// What was tried.
        attempt: String,
        /// The bound.
        seconds: u64,
    },
    /// It brought too much.
    #[error("{attempt}: stopped, for it brings more than {mib} MiB")]
    TooBig {
        /// What was tried.
        attempt: String,
        /// The bound.
        mib: u64,
    },
    /// A commit is refused.
    #[error("commit {commit} is refused: {reason}")]
    Refused {
        /// The commit, short.
        commit: String,
        /// Why.
        reason: String,
        /// The commit as people are shown it; missing where git does not tell.
        revision: Option<Box<Revision>>,
    },
}

impl GitError {
    /// Equal for errors that differ only in words, so that one trouble is told once.
    pub fn sort(&self) -> String {
        match self {
            Self::Refused { .. } => self.to_string(),
            Self::NoGit => "no git".to_owned(),
            Self::Io { attempt, .. } | Self::Git { attempt, .. } => attempt.clone(),
            Self::TooLong { attempt, .. } => format!("{attempt}: slow"),
            Self::TooBig { attempt, .. } => format!("{attempt}: big"),
        }
    }
}

/// Files of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit.
    pub revision: Revision,
    /// Path in the repository and text, sorted by path.
    pub files: Vec<(String, String)>,
}

/// A bare mirror of one branch.
#[derive(Debug, Clone)]
pub struct Mirror {
    location: Location,
    policy: Policy,
    folder: PathBuf,
}

impl Mirror {
    /// The mirror of a location, in a folder of its own below `state`.
    pub fn new(location: Location, policy: Policy, state: &Path) -> Self {
        let key = format!("{}#{}", location.url, location.branch);
        let folder = state.join(&sha256_hex(key.as_bytes())[..16]);
        Self { location, policy, folder }
    }

    /// What it mirrors.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Fetches, and gives the files of the branch's newest commit if it is acceptable.
    pub fn newest(&self) -> Result<Snapshot, GitError> {
        let _lock = self.open()?;
        self.fetch()?;
        let commit = self.resolve(SEEN)?.ok_or_else(|| GitError::Git {
            attempt: format!("read {}", self.location),
            said: "the branch is empty".to_owned(),
        })?;
        self.judge(&commit).and_then(|()| self.read(&commit)).map_err(|error| match error {
            GitError::Refused { commit: short, reason, .. } => {
                // Why it is refused matters more than why nobody can say whose it is.
                let revision = self.revision(&commit).ok().map(Box::new);
                GitError::Refused { commit: short, reason, revision }
            }
            other => other,
        })
    }

    /// The files of the commit that was accepted last, without asking the repository. A commit
    /// that was accepted without a signature does not serve once signatures are wanted.
    pub fn in_force(&self) -> Result<Option<Snapshot>, GitError> {
        let _lock = self.open()?;
        let Some(commit) = self.resolve(IN_FORCE)? else { return Ok(None) };
        self.verify(&commit)?;
        self.read(&commit).map(Some)
    }

    /// Another file of a commit that was given out, by its path in the repository. Reading takes no
    /// lock: a fetch at work does not take a commit away, and must not hold up whoever reads.
    pub fn file(&self, revision: &Revision, path: &str) -> Result<Option<Vec<u8>>, GitError> {
        let commit = &revision.commit;
        let entry = match self.tree(commit, path)?.as_slice() {
            [] => return Ok(None),
            [entry] if entry.is_file() && entry.path == path => entry.clone(),
            _ => return Err(refused(commit, format!("{path} is no regular file"))),
        };
        if entry.size > FILE_MOST {
            let most = FILE_MOST >> 10;
            return Err(refused(commit, format!("{path} is larger than {most} KiB")));
        }
        self.ask("read a file", &["cat-file", "blob", &entry.object]).map(Some)
    }

    /// Notes that a commit is in force; from now on the branch may only go on from it.
    pub fn accept(&self, revision: &Revision) -> Result<(), GitError> {
        let _lock = self.open()?;
        let attempt = "note the commit in force";
        self.ask(attempt, &["update-ref", IN_FORCE, &revision.commit]).map(drop)
    }

    /// Makes the mirror if it is missing, and keeps other processes out of it until dropped.
    fn open(&self) -> Result<File, GitError> {
        let attempt = || format!("open the mirror {}", self.folder.display());
        let io = |source| GitError::Io { attempt: attempt(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(io)?;
        let lock = self.folder.join("reconcile.lock");
        let lock = OpenOptions::new().create(true).append(true).open(lock).map_err(io)?;
        lock.lock().map_err(io)?;
        if !self.folder.join("HEAD").exists() {
            self.ask("make the mirror", &["init", "--quiet", "--bare", "--template="])?;
        }
        Ok(lock)
    }

    fn fetch(&self) -> Result<(), GitError> {
        let attempt = format!("fetch {}", self.location);
        for (what, file) in self.policy.access.files() {
            let attempt = format!("read the {what} file {} for Git", file.display());
            File::open(file).map_err(|source| GitError::Io { attempt, source })?;
        }
        let mut command = git(&self.folder, &self.location, &self.policy);
        command.args([
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--no-auto-maintenance",
            "--",
            &self.location.url,
            &format!("+refs/heads/{}:{SEEN}", self.location.branch),
        ]);
        let most = self.policy.mirror_bytes;
        let bounds =
            Bounds { time: self.policy.fetch_time, size: Some((self.folder.as_path(), most)) };
        let ran = run(command, &attempt, &bounds);
        let stopped = matches!(ran, Err(GitError::TooBig { .. } | GitError::TooLong { .. }));
        // The bound may be passed between two looks, or by the last of what came.
        let over = size(&self.folder) > most;
        if stopped || over {
            self.tidy(&attempt)?;
        }
        checked(ran?, &attempt)?;
        if over {
            return Err(GitError::TooBig { attempt, mib: most >> 20 });
        }
        Ok(())
    }

    /// Removes what a stopped fetch left, and what no commit of ours needs.
    fn tidy(&self, attempt: &str) -> Result<(), GitError> {
        let pack = self.folder.join("objects/pack");
        for entry in std::fs::read_dir(&pack).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("tmp_") {
                let gone = std::fs::remove_file(entry.path());
                gone.map_err(|source| GitError::Io { attempt: attempt.to_owned(), source })?;
            }
        }
        self.ask(attempt, &["update-ref", "-d", SEEN])?;
        self.ask(attempt, &["gc", "--quiet", "--prune=now"]).map(drop)
    }

    /// May this commit come into force?
    fn judge(&self, commit: &str) -> Result<(), GitError> {
        self.verify(commit)?;
        let Some(old) = self.resolve(IN_FORCE)? else { return Ok(()) };
        if self.policy.allow_rewind || old == commit {
            return Ok(());
        }
        let attempt = "compare commits";
        let ran = self.run(attempt, &["merge-base", "--is-ancestor", &old, commit])?;
        match ran.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(refused(
                commit,
                format!(
                    "the branch was moved back or to another history than {}, which is in force (--allow-rewind accepts it)",
                    short(&old)
                ),
            )),
            _ => checked(ran, attempt).map(drop),
        }
    }

    fn verify(&self, commit: &str) -> Result<(), GitError> {
        let Some(signers) = &self.policy.allowed_signers else { return Ok(()) };
        let attempt = format!("read the allowed signers {}", signers.display());
        File::open(signers).map_err(|source| GitError::Io { attempt, source })?;
        let ran = self.run("verify the signature", &["verify-commit", "--raw", commit])?;
        if ran.status.success() {
            return Ok(());
        }
        let raw = self.ask("read the commit", &["cat-file", "commit", commit])?;
        let head = String::from_utf8_lossy(&raw);
        let head = head.split("\n\n").next().unwrap_or_default();
        let reason = if !head.lines().any(|line| line.starts_with("gpgsig")) {
            "it is not signed".to_owned()
        } else if ran.stderr.contains("No principal matched") {
            "it is signed by a key that is not among the allowed signers".to_owned()
        } else {
            format!("its signature does not hold: {}", last_line(&ran.stderr))
        };
        Err(refused(commit, reason))
    }

    /// The commit that a reference names.
    fn resolve(&self, reference: &str) -> Result<Option<String>, GitError> {
        let attempt = "read the mirror";
        let name = format!("{reference}^{{commit}}");
        let ran = self.run(attempt, &["rev-parse", "--verify", "--quiet", &name])?;
        match ran.status.code() {
            Some(0) => Ok(Some(String::from_utf8_lossy(&ran.stdout).trim().to_owned())),
            Some(1) => Ok(None),
            _ => Err(checked(ran, attempt).err().unwrap_or(GitError::NoGit)),
        }
    }

    fn read(&self, commit: &str) -> Result<Snapshot, GitError> {
        let revision = self.revision(commit)?;
        let path = &self.location.path;
        let blobs = match self.tree(commit, path)?.as_slice() {
            [entry] if entry.is_file() => vec![entry.clone()],
            [entry] if entry.kind == "tree" => {
                let mut entries = self.tree(commit, &format!("{path}/"))?;
                entries.retain(|entry| {
                    Path::new(&entry.path).extension().is_some_and(|extension| extension == "yaml")
                });
                entries.sort_by(|a, b| a.path.cmp(&b.path));
                entries
            }
            [_] => return Err(refused(commit, format!("{path} is neither a file nor a folder"))),
            _ => return Err(refused(commit, format!("it has no {path}"))),
        };
        if blobs.is_empty() || blobs.len() > FILES_MOST {
            let count = blobs.len();
            let reason = format!("{path} holds {count} files *.yaml; 1 to {FILES_MOST} are read");
            return Err(refused(commit, reason));
        }
        let mut left = FILE_MOST;
        let mut files = Vec::new();
        for blob in blobs {
            if !blob.is_file() {
                return Err(refused(commit, format!("{} is no regular file", blob.path)));
            }
            left = left.checked_sub(blob.size).ok_or_else(|| {
                refused(commit, format!("{path} is larger than {} KiB", FILE_MOST >> 10))
            })?;
            let bytes = self.ask("read a file", &["cat-file", "blob", &blob.object])?;
            let text = String::from_utf8(bytes)
                .map_err(|_| refused(commit, format!("{} is not UTF-8", blob.path)))?;
            files.push((blob.path, text));
        }
        Ok(Snapshot { revision, files })
    }

    fn revision(&self, commit: &str) -> Result<Revision, GitError> {
        let format = "--format=%H%x00%an <%ae>%x00%cI%x00%s";
        let show = ["show", "--no-patch", "--no-show-signature", "--no-notes", format, commit];
        let bytes = self.ask("read the commit", &show)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.trim_end().split('\0').map(plain);
        let mut next = || words.next().unwrap_or_default();
        let (commit, author, time, subject) = (next(), next(), next(), next());
        Ok(Revision { commit, author, time, subject })
    }

    /// Entries of a commit at a path; of a folder itself with a slash at its end.
    fn tree(&self, commit: &str, path: &str) -> Result<Vec<Entry>, GitError> {
        let list = ["ls-tree", "-z", "--long", "--full-tree", commit, "--", path];
        let bytes = self.ask("list files", &list)?;
        Ok(String::from_utf8_lossy(&bytes).split('\0').filter_map(Entry::parse).collect())
    }

    fn run(&self, attempt: &str, arguments: &[&str]) -> Result<Ran, GitError> {
        let mut command = git(&self.folder, &self.location, &self.policy);
        command.args(arguments);
        run(command, attempt, &HERE)
    }

    fn ask(&self, attempt: &str, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        checked(self.run(attempt, arguments)?, attempt)
    }
}

/// An entry of `git ls-tree --long`.
#[derive(Clone)]
struct Entry {
    mode: String,
    kind: String,
    object: String,
    size: u64,
    path: String,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let (facts, path) = line.split_once('\t')?;
        let mut words = facts.split_whitespace().map(str::to_owned);
        let (mode, kind, object) = (words.next()?, words.next()?, words.next()?);
        let size = words.next()?.parse().unwrap_or(0);
        Some(Self { mode, kind, object, size, path: path.to_owned() })
    }

    /// Links (mode 120000) are files to ls-tree, but lead elsewhere.
    fn is_file(&self) -> bool {
        self.kind == "blob" && matches!(self.mode.as_str(), "100644" | "100755")
    }
}

fn checked(ran: Ran, attempt: &str) -> Result<Vec<u8>, GitError> {
    if ran.status.success() {
        return Ok(ran.stdout);
    }
    let said = match last_line(&ran.stderr) {
        line if line.is_empty() => format!("git ended with {}", ran.status),
        line => line,
    };
    Err(GitError::Git { attempt: attempt.to_owned(), said })
}

fn refused(commit: &str, reason: String) -> GitError {
    GitError::Refused { commit: short(commit).to_owned(), reason, revision: None }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// The line that says most: git's own `fatal:` or `error:`, else the last one. Where git only says
/// that the other side is gone, what ssh said before it.
fn last_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let own = |line: &&str| line.starts_with("fatal:") || line.starts_with("error:");
    let Some(at) = lines.iter().position(own) else {
        return plain(lines.last().unwrap_or(&""));
    };
    let before = at.checked_sub(1).and_then(|before| lines.get(before));
    match before {
        Some(cause) if lines[at].contains("Could not read from remote repository") => plain(cause),
        _ => plain(lines[at]),
    }
}

/// Text of a stranger: one line, no control characters (a terminal would obey them).
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

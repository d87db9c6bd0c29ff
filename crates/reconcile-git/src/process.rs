//! Running `git` with nothing open that a repository, or the environment, could use.

use std::{
    io::{Read, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    location::Location,
    mirror::{GitError, Policy},
};

/// How long a command that stays on this machine may take.
const LOCAL: Duration = Duration::from_secs(30);
/// Between two looks at a running command.
const PAUSE: Duration = Duration::from_millis(10);

/// What a command gave.
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Bounds of a command.
pub(crate) struct Bounds<'a> {
    pub(crate) time: Duration,
    /// A folder that must not grow beyond so many bytes while it runs.
    pub(crate) size: Option<(&'a Path, u64)>,
}

pub(crate) const HERE: Bounds<'static> = Bounds { time: LOCAL, size: None };

/// `git` in `repository`, for this location only.
pub(crate) fn git(repository: &Path, location: &Location, policy: &Policy) -> Command {
    let mut command = Command::new("git");
    // Variables of a caller's repository, prompts and traces have no business here. How to log in
    // is the user's own setting (credential helpers, netrc, ssh's settings), unless it is named.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("GIT_") && name != "GIT_SSH_COMMAND" {
            command.env_remove(&*name);
        }
    }
    command.env_remove("SSH_ASKPASS");
    command
        .envs([
            ("LC_ALL", "C"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_ADVICE", "0"),
        ])
        .arg("--git-dir")
        .arg(repository);
    let allow = format!("protocol.{}.allow=always", location.scheme);
    let settings = [
        "core.hooksPath=/dev/null",
        "core.fsmonitor=false",
        "core.askPass=",
        "core.attributesFile=/dev/null",
        "core.alternateRefsCommand=true",
        "protocol.allow=never",
        &allow,
        "fetch.fsckObjects=true",
        "fetch.recurseSubmodules=false",
        "fetch.bundleURI=",
        "transfer.bundleURI=false",
        "submodule.recurse=false",
        "gc.auto=0",
        "maintenance.auto=false",
        "http.lowSpeedLimit=1000",
        "http.lowSpeedTime=20",
        // Only SSH signatures by the keys of our own file count; no key ring of the user's does.
        "gpg.minTrustLevel=fully",
        "gpg.program=false",
        "gpg.openpgp.program=false",
        "gpg.x509.program=false",
        "gpg.ssh.program=ssh-keygen",
        "gpg.ssh.revocationFile=",
    ];
    for setting in settings {
        command.args(["-c", setting]);
    }
    let signers = policy.allowed_signers.as_deref().unwrap_or(Path::new("/dev/null"));
    let mut setting = std::ffi::OsString::from("gpg.ssh.allowedSignersFile=");
    setting.push(signers);
    command.arg("-c").arg(setting);
    policy.access.apply(&mut command, location);
    command
}

/// Runs it to its end or to a bound; then its whole group is killed.
pub(crate) fn run(
    mut command: Command,
    attempt: &str,
    bounds: &Bounds<'_>,
) -> Result<Ran, GitError> {
    let failed = |source| GitError::Io { attempt: attempt.to_owned(), source };
    // Files instead of pipes: a child that is not read from must not wait for us.
    let (mut out, mut err) = (scratch().map_err(failed)?, scratch().map_err(failed)?);
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(err.try_clone().map_err(failed)?)
        .process_group(0);
    let mut child = command.spawn().map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound { GitError::NoGit } else { failed(source) }
    })?;
    let status = wait(&mut child, attempt, bounds);
    if status.is_err() {
        let group = rustix::process::Pid::from_child(&child);
        // It may have ended by itself meanwhile; the wait tells either way.
        let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        child.wait().map_err(failed)?;
    }
    let status = status?;
    let stdout = content(&mut out).map_err(failed)?;
    let stderr = String::from_utf8_lossy(&content(&mut err).map_err(failed)?).into_owned();
    Ok(Ran { status, stdout, stderr })
}

fn wait(child: &mut Child, attempt: &str, bounds: &Bounds<'_>) -> Result<ExitStatus, GitError> {
    let began = Instant::now();
    let mut measured = began;
    loop {
        let ended =
            child.try_wait().map_err(|source| GitError::Io { attempt: attempt.to_owned(), source });
        if let Some(status) = ended? {
            return Ok(status);
        }
        if began.elapsed() > bounds.time {
            let seconds = bounds.time.as_secs();
            return Err(GitError::TooLong { attempt: attempt.to_owned(), seconds });
        }
        if let Some((folder, most)) = bounds.size
            && measured.elapsed() > PAUSE * 10
        {
            measured = Instant::now();
            if size(folder) > most {
                return Err(GitError::TooBig { attempt: attempt.to_owned(), mib: most >> 20 });
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Bytes in a folder. Files come and go while git works; what is gone counts nothing.
pub(crate) fn size(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// A file without a name.
fn scratch() -> std::io::Result<std::fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("git", flags)?.into())
}

fn content(file: &mut std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

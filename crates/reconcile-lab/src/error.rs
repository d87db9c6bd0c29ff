//! What can go wrong in the lab, said so that a person can act on it.
//!
//! Must not decide anything: it only words what the other modules found.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the lab. Each names what was tried, on what, and what came back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A program could not be started.
    #[error("{tried}: cannot run `{program}`")]
    Spawn {
        /// What was tried, on what.
        tried: String,
        /// The program that is absent or not executable.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("{tried}: `{command}` ended with {status}: {stderr}")]
    Command {
        /// What was tried, on what.
        tried: String,
        /// The command line, for repeating it by hand.
        command: String,
        /// Its exit status.
        status: String,
        /// What it said, or its standard output where it said nothing.
        stderr: String,
    },
    /// A file or folder could not be read or written.
    #[error("{tried} {}", path.display())]
    File {
        /// What was tried: `read`, `write`, ….
        tried: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the lab or a program's answer does not hold what it should.
    #[error("read {what}: {reason}")]
    Malformed {
        /// Which file or answer.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something did not come about in time.
    #[error("waited {} s for {what}: {last}", waited.as_secs())]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        waited: Duration,
        /// What was seen last.
        last: String,
    },
    /// The machine lacks something that the lab may not or cannot install itself.
    #[error("{what}; run:\n  {}", commands.join("\n  "))]
    Lacking {
        /// What is lacking.
        what: String,
        /// Exactly what to run.
        commands: Vec<String>,
    },
    /// The request cannot be met as it stands.
    #[error("{0}")]
    Refused(String),
    /// There is no such lab.
    #[error("no lab `{name}` in {}: run `up` first", dir.display())]
    NoLab {
        /// The lab's name.
        name: String,
        /// Where its state was looked for.
        dir: PathBuf,
    },
    /// There is no such server in the lab.
    #[error("lab `{lab}` has no server `{server}`, only {known}")]
    NoServer {
        /// The lab's name.
        lab: String,
        /// The name asked for.
        server: String,
        /// The names there are.
        known: String,
    },
}

/// The result of a lab operation.
pub type Result<T> = std::result::Result<T, LabError>;

/// Adds to an I/O error what was tried on which file.
pub(crate) fn at(
    tried: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> LabError {
    let path = path.into();
    move |source| LabError::File { tried, path, source }
}

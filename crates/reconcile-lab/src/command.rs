//! Runs other programs: argument arrays in, output or a telling error out.
//!
//! Must not build shell strings, and must not know what the programs are for.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::error::{LabError, Result, at};

/// Keeps the end of what a failed program said: the cause is there, and the rest is noise.
const TOLD_BYTES: usize = 2000;

/// A program with its arguments, not yet run.
#[derive(Debug)]
pub(crate) struct Invocation {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    unset: Vec<&'static str>,
}

impl Invocation {
    /// Starts with the program alone.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            unset: Vec::new(),
        }
    }

    /// Appends one argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Appends arguments.
    pub(crate) fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name, value.as_ref().to_owned()));
        self
    }

    /// Removes a variable from the program's environment.
    pub(crate) fn without_env(mut self, name: &'static str) -> Self {
        self.unset.push(name);
        self
    }

    /// Runs to the end; an exit status other than 0 is an error. Gives standard output.
    pub(crate) async fn run(&self, tried: &str) -> Result<String> {
        let output = self.output(tried).await?;
        if !output.status.success() {
            return Err(self.failure(tried, &output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs to the end with standard output going to a file.
    pub(crate) async fn run_into(&self, tried: &str, file: &Path) -> Result<()> {
        let sink = std::fs::File::create(file).map_err(at("create", file))?;
        let child = self
            .command()
            .stdout(sink)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| self.unspawned(tried, source))?;
        let output =
            child.wait_with_output().await.map_err(|source| self.unspawned(tried, source))?;
        if output.status.success() { Ok(()) } else { Err(self.failure(tried, &output)) }
    }

    /// Runs to the end, whatever the exit status.
    pub(crate) async fn output(&self, tried: &str) -> Result<Output> {
        tracing::debug!(command = self.line(), "{tried}");
        self.command().output().await.map_err(|source| self.unspawned(tried, source))
    }

    /// Starts the program in a session of its own, its output appended to `log`, and leaves it
    /// running: it outlives this process and hears no signal of its terminal. Gives its pid.
    pub(crate) fn detach(self, tried: &str, log: &Path) -> Result<u32> {
        let sink = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(at("open", log))?;
        let sink_too = sink.try_clone().map_err(at("open", log))?;
        // `setsid` becomes the program (it forks only when it leads a process group, and a fresh
        // child does not), so the child's pid is the program's.
        let mut detached = Self::new("setsid").arg(&self.program).args(&self.args);
        detached.env = self.env;
        detached.unset = self.unset;
        let child = detached
            .command()
            .kill_on_drop(false)
            .stdout(sink)
            .stderr(sink_too)
            .spawn()
            .map_err(|source| detached.unspawned(tried, source))?;
        child.id().ok_or_else(|| LabError::Malformed {
            what: format!("pid of `{}`", detached.line()),
            reason: "it has none".to_owned(),
        })
    }

    /// The error for an output whose status is not 0.
    pub(crate) fn failure(&self, tried: &str, output: &Output) -> LabError {
        let told =
            if output.stderr.trim_ascii().is_empty() { &output.stdout } else { &output.stderr };
        let told = &told[told.len().saturating_sub(TOLD_BYTES)..];
        LabError::Command {
            tried: tried.to_owned(),
            command: self.line(),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(told).trim().to_owned(),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).kill_on_drop(true);
        for name in &self.unset {
            command.env_remove(name);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command
    }

    fn unspawned(&self, tried: &str, source: std::io::Error) -> LabError {
        LabError::Spawn {
            tried: tried.to_owned(),
            program: self.program.to_string_lossy().into_owned(),
            source,
        }
    }

    fn line(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_tells_what_was_tried_and_what_was_said() {
        let error = Invocation::new("ls")
            .arg("/nowhere/at/all")
            .run("list a folder")
            .await
            .expect_err("there is no such folder");
        let text = error.to_string();
        assert!(text.starts_with("list a folder: `ls /nowhere/at/all` ended with exit status"));
        assert!(text.contains("/nowhere/at/all"), "{text}");
    }

    #[tokio::test]
    async fn an_absent_program_is_named() {
        let error = Invocation::new("no-such-program")
            .run("try it")
            .await
            .expect_err("there is no such program");
        assert_eq!(error.to_string(), "try it: cannot run `no-such-program`");
    }
}

//! How failures reach a person: Error, Caused by, Hint, and an exit code.

use std::{fmt::Display, io::Write as _, process::ExitCode};

use reconcile_core::model::{RefusedSource, Revision};

/// How a run ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, or nothing to do.
    Done,
    /// Something is held and needs time or a person.
    Held,
    /// Changes are pending (`plan --exit-code`).
    Pending,
    /// Errors were reported already.
    Failed,
    /// A program that was run for somebody ended with this.
    Status(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::from(1),
            Outcome::Held => Self::from(3),
            Outcome::Pending => Self::from(4),
            Outcome::Status(status) => Self::from(status),
        }
    }
}

/// A failure as a person reads it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    /// A complete report that is printed as it is.
    verbatim: bool,
    /// The commit that it is about.
    revision: Option<Box<Revision>>,
    /// Whether there is a newer desired state is not known.
    unread: bool,
    code: u8,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            verbatim: false,
            revision: None,
            unread: false,
            code: 1,
        }
    }
    /// A report that is complete in itself.
    pub(crate) fn verbatim(report: impl Into<String>) -> Self {
        Self { verbatim: true, ..Self::new(report) }
    }
    /// Exit code 2: it was asked for wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, ..Self::new(message) }
    }
    /// What was tried, and the error's own chain of causes.
    pub(crate) fn from_error(attempt: impl Into<String>, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(attempt).caused_by(error);
        let mut source = error.source();
        while let Some(error) = source {
            failure = failure.caused_by(error);
            source = error.source();
        }
        failure
    }
    pub(crate) fn caused_by(mut self, cause: impl Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// It is about this commit, if about any.
    pub(crate) fn of(mut self, revision: Option<&Revision>) -> Self {
        if let Some(revision) = revision {
            self.revision = Some(Box::new(revision.clone()));
        }
        self
    }

    /// What is newest could not be read.
    pub(crate) fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// A fault of this commit, if of any, and says so.
    pub(crate) fn in_commit(self, revision: Option<&Revision>) -> Self {
        let Some(revision) = revision else { return self };
        let code = self.code;
        Self { code, ..Self::verbatim(format!("{revision} is not taken:\n{}", self.text())) }
    }

    /// Why a desired state that was named `file` is not taken.
    pub(crate) fn refusal(&self, file: String) -> RefusedSource {
        let revision = self.revision.as_deref().cloned();
        RefusedSource { file, revision, report: self.text(), unread: self.unread }
    }

    /// The report as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if self.verbatim {
            text.push_str(self.message.trim_end());
            text.push('\n');
        } else {
            text.push_str(&format!("Error: {}\n", self.message));
        }
        if !self.causes.is_empty() {
            text.push_str("Caused by:\n");
            for (number, cause) in self.causes.iter().enumerate() {
                text.push_str(&format!("  {}: {cause}\n", number + 1));
            }
        }
        for hint in &self.hints {
            text.push_str(&format!("Hint: {hint}\n"));
        }
        text
    }

    /// Prints it and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        // Where standard error is closed nobody is left to tell.
        let _unheard = anstream::stderr().write_all(self.text().as_bytes());
        ExitCode::from(self.code)
    }
}

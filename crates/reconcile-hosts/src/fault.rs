//! Why something on a server failed, before it is known what the caller was trying.

use reconcile_core::{
    model::HostName,
    ports::{EffectError, Retry},
};

/// A cause with its class; [`Fault::at`] makes it an [`EffectError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Whether to try again.
    pub(crate) retry: Retry,
    /// The cause in one line.
    pub(crate) cause: String,
    /// What the failing command said last.
    pub(crate) stderr: String,
}

impl Fault {
    /// At once or in moments: a connection broke.
    pub(crate) fn soon(cause: impl Into<String>) -> Self {
        Self { retry: Retry::Soon, cause: cause.into(), stderr: String::new() }
    }
    /// After a while: a server is off, a deadline passed.
    pub(crate) fn later(cause: impl Into<String>) -> Self {
        Self { retry: Retry::Later, cause: cause.into(), stderr: String::new() }
    }
    /// Only after somebody changed something.
    pub(crate) fn after_change(cause: impl Into<String>) -> Self {
        Self { retry: Retry::AfterChange, cause: cause.into(), stderr: String::new() }
    }
    /// With what the command said last.
    pub(crate) fn with_stderr(mut self, stderr: impl Into<String>) -> Self {
        self.stderr = stderr.into();
        self
    }
    /// Says what was tried on which server.
    pub(crate) fn at(self, host: &HostName, attempt: impl Into<String>) -> EffectError {
        EffectError {
            host: Some(host.clone()),
            attempt: attempt.into(),
            cause: one_line(&self.cause),
            stderr: self.stderr,
            retry: self.retry,
        }
    }
}

/// The text with line breaks and other control characters made spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The last `lines` lines of what a command said, without our own markers (`@@…`), each cut to a
/// length that people read.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let kept: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("@@") && !line.trim().is_empty())
        .map(|line| match line.char_indices().nth(LINE) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        })
        .collect();
    kept[kept.len().saturating_sub(lines)..].join("\n")
}

/// Characters of a line that an error keeps.
const LINE: usize = 300;

/// A duration for people: `250 ms`, `10 s`.
pub(crate) fn spoken(duration: std::time::Duration) -> String {
    if duration.as_millis() < 1_000 {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs())
    }
}

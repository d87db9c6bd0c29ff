//! How the lab tells what it is doing, without ever printing.
//!
//! Must not format for a terminal: whoever implements [`Progress`] does that.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::Result;

/// A stage of the lab's work, in the order of `up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Programs that this machine lacks.
    Packages,
    /// The outer Docker engine.
    Engine,
    /// The package mirror that the servers install from.
    Mirror,
    /// The image that the servers boot.
    ServerImage,
    /// The images of HAProxy, PgBouncer and the test client.
    UtilityImages,
    /// The lab's own network.
    Network,
    /// The image registry on the lab's gateway address.
    Registry,
    /// The servers, from container to answering sshd.
    Servers,
    /// Taking things away.
    Removal,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Packages => "packages",
            Self::Engine => "engine",
            Self::Mirror => "package mirror",
            Self::ServerImage => "server image",
            Self::UtilityImages => "utility images",
            Self::Network => "network",
            Self::Registry => "registry",
            Self::Servers => "servers",
            Self::Removal => "removal",
        })
    }
}

/// One thing worth telling.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A stage began.
    Began(Stage),
    /// Something happened within a stage.
    Detail(Stage, String),
    /// A stage ended well, after this long.
    Ended(Stage, Duration),
}

/// Receives what the lab is doing. Called from async code: must not block.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _: Event) {}
}

/// Runs a stage between its two events. A failed stage has no end: the error says why.
pub(crate) async fn staged<T>(
    progress: &dyn Progress,
    stage: Stage,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    progress.event(Event::Began(stage));
    let start = Instant::now();
    let outcome = work.await?;
    progress.event(Event::Ended(stage, start.elapsed()));
    Ok(outcome)
}

/// Tells something within a stage.
pub(crate) fn detail(progress: &dyn Progress, stage: Stage, text: impl Into<String>) {
    progress.event(Event::Detail(stage, text.into()));
}

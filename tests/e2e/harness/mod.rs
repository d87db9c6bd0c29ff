//! What the tests share: running the binary, reaching the lab's servers, waiting, comparing.

mod browser;
mod canary;
mod figures;
mod git;
mod git_host;
mod held;
mod lab;
mod load;
mod run;
mod sql;
mod state;
mod stats;
mod wait;

pub(crate) use browser::Browser;
pub(crate) use canary::{ProcessWatch, Secrets};
pub(crate) use figures::{figure, setting};
pub(crate) use git::{Hook, Repository, Signer};
pub(crate) use git_host::{GitHost, image};
pub(crate) use held::Held;
pub(crate) use lab::{Lab, Once, condition, json};
pub(crate) use load::Load;
pub(crate) use run::{Job, Ran};
pub(crate) use sql::Login;
pub(crate) use state::{fingerprint, normalised, same};
pub(crate) use stats::{Stats, get_body, is_primary};
pub(crate) use wait::{seconds, until};

use std::time::Duration;

/// For anything that a healthy lab does within seconds, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

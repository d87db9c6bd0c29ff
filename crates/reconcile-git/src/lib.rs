//! A Git repository as the place where the desired state is kept.
//!
//! The system's `git` fetches one branch into a bare mirror in the state folder, and one file (or
//! one folder's files) is read out of a commit. Nothing is checked out, so nothing of the
//! repository can run here: no hooks, filters, submodules or links.

mod access;
pub mod follow;
pub mod location;
pub mod mirror;
mod process;

pub use access::Access;
pub use follow::Follower;
pub use location::{BadLocation, Location};
pub use mirror::{GitError, Mirror, Policy, Snapshot};

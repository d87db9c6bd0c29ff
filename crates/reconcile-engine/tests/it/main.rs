//! The engine against the simulated fleet: convergence, crashes, stale looks, strangers.
#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod asked_twice;
mod bare;
mod crashes;
mod cut_off;
mod journal;
mod lease;
mod leaving;
mod model;
mod newer;
mod passwords;
mod reach;
mod roll;
mod run;
mod seeds;
mod stale;
mod strangers;
mod switchover;
mod topologies;
mod topology;
mod two_operators;
mod upgrade;
mod watch;
mod workloads;

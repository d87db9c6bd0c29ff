//! A deterministic fleet in memory, with faults, for tests of plans and of the engine.
//!
//! It models what matters for safety and convergence: who owns what, what starts on which data,
//! quorums, elections (Patroni's alone), the Swarm and its services. It knows no clock and no
//! randomness but that of a seed, never panics on an action, and records what must never happen as a
//! *violation*. It must not share code with the planner: it is the world, not another opinion.

mod access;
mod actions;
mod database;
mod dump;
mod etcd;
mod faults;
pub mod fixture;
mod fleet;
mod observe;
mod operator;
mod quick;
mod random;
mod running;
mod server;
mod sql;
mod swarm;
mod swarm_actions;
mod upgrade;
mod world;

pub use database::Database;
pub use etcd::{EtcdMember, EtcdStore};
pub use faults::{Crash, Faults, Position};
pub use fleet::SimFleet;
pub use operator::{Operator, Shared};
pub use random::Random;
pub use running::Running;
pub use server::{DataDir, Engine, File, Package, Reach, Section, Server, Unit};
pub use swarm::{Node, Service, StoredFile, Swarm};
pub use world::World;

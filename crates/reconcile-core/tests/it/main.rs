//! Plans, renderings and the checker, on worlds of the simulator.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "tests read goldens, clocks and the environment")]

mod access;
mod adopt;
mod canary;
mod drift;
mod golden;
mod membership;
mod plans;
mod properties;
mod refusals;
mod rendered;
mod rollback;
mod rollout;
mod service;
mod speed;
mod status;
mod upgrades;
mod windows;

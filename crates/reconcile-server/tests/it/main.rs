//! The status endpoint over real sockets: what it tells, what it refuses, what it costs.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests, and what they measure")]

mod answers;
mod client;
mod load;
mod refusals;
mod secrets;
mod streams;
mod tls;
mod world;

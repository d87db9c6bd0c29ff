//! The service proof against a fake server that speaks as much of PostgreSQL's protocol as is
//! needed, and (ignored by default) against a real one.

#![expect(clippy::unwrap_used, reason = "tests may")]
#![expect(clippy::print_stdout, reason = "the test against a real server shows what it saw")]

mod fake;
mod patroni;
mod proof;
mod real;

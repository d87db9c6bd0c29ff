//! The service proof against a fake server that speaks as much of PostgreSQL's protocol as is
//! needed. The real thing is proven end to end, in `tests/e2e`.

#![expect(clippy::unwrap_used, reason = "tests may")]

mod fake;
mod proof;

//! The Docker adapter against a fake engine on an in-memory stream. The real thing is proven end to
//! end, in `tests/e2e`.

#![expect(clippy::unwrap_used, reason = "tests may")]
#![expect(clippy::needless_pass_by_value, reason = "`json!` at the call reads best")]

mod conversion;
mod fake;
mod faults;
mod look;
mod rollout;
mod secrecy;
mod services;

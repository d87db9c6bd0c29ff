//! The Docker adapter against a fake engine on an in-memory stream, and (ignored by default)
//! against the real engines of a lab.

#![expect(clippy::unwrap_used, reason = "tests may")]
#![expect(clippy::needless_pass_by_value, reason = "`json!` at the call reads best")]
#![expect(clippy::print_stdout, reason = "the lab test shows what it saw")]

mod conversion;
mod fake;
mod faults;
mod lab;
mod look;
mod secrecy;
mod services;

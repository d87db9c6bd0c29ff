//! The `reconcile` binary.
fn main() {}

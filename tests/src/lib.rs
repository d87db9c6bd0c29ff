//! End-to-end tests live in `e2e/`; the other folders hold data that tests of the crates read.

//! The figures that the suite measures: printed, and kept in a file for `docs/figures.md`.

use std::{fs::OpenOptions, io::Write as _};

/// Notes a figure. `wanted`: what it should be, in words. `RECONCILE_FIGURES` names the file, which
/// `cargo xtask soak` turns into a page.
pub(crate) fn figure(what: &str, wanted: &str, measured: &str) {
    println!("FIGURE {what} | {wanted} | {measured}");
    let Some(path) = std::env::var_os("RECONCILE_FIGURES") else { return };
    let mut file = OpenOptions::new().create(true).append(true).open(&path).expect("figures' file");
    writeln!(file, "{what}\t{wanted}\t{measured}").expect("the figures' file can be written");
}

/// A setting of the suite, such as how often to repeat; `usual` unless it is set.
#[track_caller]
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")),
        Err(_) => usual,
    }
}

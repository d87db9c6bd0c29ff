//! `soak`: the end-to-end tests with everything repeated as often as the figures ask for, and what
//! they measured written to `docs/figures.md`.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    package::assemble,
    run::{binary, is_root, program, root, run},
    test::{lab_name, runner},
};

/// How often and how much; what is set in the environment stays.
const SETTINGS: [(&str, &str); 9] = [
    ("RECONCILE_KILLS", "10"),
    ("RECONCILE_SWITCHOVERS", "20"),
    ("RECONCILE_POWER_CUTS", "3"),
    ("RECONCILE_FAULTS", "1"),
    ("RECONCILE_PASSES", "1000"),
    ("RECONCILE_PUSHES", "30"),
    ("RECONCILE_SEEDS", "20000"),
    ("PROPTEST_CASES", "20000"),
    ("RECONCILE_DUEL", "600"),
];

/// Runs all tests whose names hold one of the words, or all.
pub(crate) fn soak(words: &[String]) -> Result<(), String> {
    if !is_root() {
        return Err("the lab needs root: run `sudo -E cargo xtask soak`".to_owned());
    }
    let reconcile = binary()?;
    let package = assemble(&reconcile, true)?;
    let figures = root().join("target/figures.tsv");
    if let Err(error) = fs::remove_file(&figures)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(format!("remove {}: {error}", figures.display()));
    }
    let selected: Vec<_> = words.iter().map(String::as_str).collect();
    let mut results = Vec::new();
    let lab = lab_name();
    run(program(&reconcile.to_string_lossy(), &["lab", "--name", &lab, "up"]))?;
    for (selection, serial) in [
        (
            ["reconcile-core", "reconcile-sim", "reconcile-engine", "reconcile-server"]
                .map(|name| ["--package", name])
                .concat()
                .as_slice(),
            false,
        ),
        (&["--package", "reconcile-tests"], true),
    ] {
        let mut tests = runner(&[selection, &selected].concat(), serial);
        tests.env("RECONCILE_BIN", &reconcile).env("RECONCILE_LAB", &lab);
        tests.env("RECONCILE_FIGURES", &figures).env("RECONCILE_PACKAGE", &package);
        // A word may be of one package's tests only.
        tests.env("NEXTEST_NO_TESTS", "pass");
        for (name, value) in SETTINGS {
            if std::env::var_os(name).is_none() {
                tests.env(name, value);
            }
        }
        results.push(run(tests));
    }
    results.push(run(program(&reconcile.to_string_lossy(), &["lab", "--name", &lab, "down"])));
    results.push(page(&figures, &selected));
    results.into_iter().collect()
}

/// Writes the page from what the tests noted. A run of some tests keeps the other tests' lines.
fn page(figures: &Path, selected: &[&str]) -> Result<(), String> {
    let noted = match fs::read_to_string(figures) {
        Ok(noted) => noted,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("read {}: {error}", figures.display())),
    };
    let path = root().join("docs/figures.md");
    let rows: Vec<String> =
        noted.lines().map(|line| format!("| {} |", line.replace('\t', " | "))).collect();
    let what = |row: &str| row.split(" | ").next().unwrap_or_default().to_owned();
    let old = if selected.is_empty() {
        String::new()
    } else {
        fs::read_to_string(&path).unwrap_or_default()
    };
    let kept = old
        .lines()
        .filter(|line| {
            line.starts_with("| ") && !line.starts_with("| what") && !line.starts_with("| ---")
        })
        .filter(|line| !rows.iter().any(|row| what(row) == what(line)))
        .map(str::to_owned);
    let mut text = format!(
        "# Figures\n\nMeasured by `cargo xtask soak`, which writes this page, with an unoptimised build.\n{}\n\n| what | wanted | measured |\n| --- | --- | --- |\n",
        machine()
    );
    for row in kept.chain(rows.iter().cloned()) {
        let _infallible = writeln!(text, "{row}");
    }
    fs::write(&path, text).map_err(|error| format!("write {}: {error}", path.display()))
}

/// The machine's size; the servers of the lab, the clients and the operator share it.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    format!(
        "The machine has {cores} cores and {} GiB of memory; the lab's three servers, the clients and the operator share it.",
        kib >> 20
    )
}

//! House rules that no lint knows.

use std::path::{Path, PathBuf};

use crate::run::{cargo, root};

/// Hard limit of lines for a Rust file, tests included; 400 is the soft one.
const MAX_LINES: usize = 800;
/// Words that no source line may hold.
const FORBIDDEN: [&str; 3] = ["TODO", "FIXME", "#[ignore"];
/// Crates that must stay free of I/O, and what they must therefore not depend on.
const PURE: [&str; 2] = ["reconcile-spec", "reconcile-core"];
const IMPURE: [&str; 9] =
    ["tokio", "russh", "bollard", "hyper", "reqwest", "rand", "mio", "tokio-postgres", "tracing"];

/// Checks the rules.
pub(crate) fn tidy() -> Result<(), String> {
    let mut faults = Vec::new();
    for file in rust_files(&root())? {
        check_file(&file, &mut faults)?;
    }
    for package in PURE {
        check_dependencies(package, &mut faults)?;
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn rust_files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = vec![root.join("crates"), root.join("xtask"), root.join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| format!("read {}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| format!("read {}: {error}", folder.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_file(path: &Path, faults: &mut Vec<String>) -> Result<(), String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("read {}: {error}", path.display()))?;
    let name = path.display();
    if !text.starts_with("//!") {
        faults.push(format!("{name}: does not say at its head what it is for (`//!`)"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{name}: {lines} lines, {MAX_LINES} are allowed"));
    }
    if path.ends_with("xtask/src/tidy.rs") {
        return Ok(());
    }
    for (number, line) in text.lines().enumerate() {
        for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
            faults.push(format!("{name}:{}: `{word}`", number + 1));
        }
    }
    Ok(())
}

/// What a pure crate must not be built on, at any depth.
fn check_dependencies(package: &str, faults: &mut Vec<String>) -> Result<(), String> {
    let output = cargo(&["tree", "--package", package, "--edges", "normal", "--prefix", "none"])
        .output()
        .map_err(|error| format!("run cargo tree: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if IMPURE.contains(&name) {
            faults.push(format!("{package} is pure and must not depend on {name}"));
        }
    }
    Ok(())
}

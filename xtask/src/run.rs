//! Running programs, showing what runs and how long it took.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A program to be run in the workspace's root.
pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs a program, its output going where ours goes.
#[expect(clippy::print_stderr, reason = "xtask is a program for people")]
pub(crate) fn run(mut command: Command) -> Result<(), String> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = words.join(" ");
    eprintln!("xtask: {line}");
    let started = Instant::now();
    let status = command.status().map_err(|error| format!("run `{line}`: {error}"))?;
    eprintln!("xtask: {:.1} s", started.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("`{line}` ended with {status}")) }
}

/// cargo, as it was called.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    program(&cargo, arguments)
}

/// Builds the binary and gives its path.
pub(crate) fn binary() -> Result<PathBuf, String> {
    need_compiler()?;
    run(cargo(&["build", "--package", "reconcile"]))?;
    Ok(target().join("debug/reconcile"))
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// One crate (aws-lc-sys) builds C; a fresh machine may have no compiler.
fn need_compiler() -> Result<(), String> {
    need("cc", &["gcc", "libc6-dev"])
}

/// The page is tested in a browser.
pub(crate) fn need_browser() -> Result<(), String> {
    need("chromium", &["chromium", "fonts-dejavu-core"])
}

/// The Git source is tested with real repositories and signatures.
pub(crate) fn need_git() -> Result<(), String> {
    need("git", &["git", "openssh-client"])?;
    // Shows its usage and fails, so that only its absence counts.
    let found = program("ssh-keygen", &["-?"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok() {
        return Ok(());
    }
    install("ssh-keygen", &["openssh-client"])
}

/// Installs packages where a program is missing.
fn need(tool: &str, packages: &[&str]) -> Result<(), String> {
    let found = program(tool, &["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    install(tool, packages)
}

fn install(tool: &str, packages: &[&str]) -> Result<(), String> {
    if !is_root() {
        return Err(format!("{tool} is missing: sudo apt-get install {}", packages.join(" ")));
    }
    run(program("apt-get", &["update"]))?;
    let install = ["install", "--yes", "--no-install-recommends"];
    run(program("apt-get", &[&install, packages].concat()))
}

/// True where we may install packages and start engines.
pub(crate) fn is_root() -> bool {
    program("id", &["-u"])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "0")
}

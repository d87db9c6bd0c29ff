//! `test`: every check and every test, the lab's included.

use std::process::{Command, Stdio};

use crate::{
    package::assemble,
    run::{binary, cargo, is_root, need_browser, need_git, program, root, run},
    tidy::tidy,
};

/// Everything.
pub(crate) fn all() -> Result<(), String> {
    if !is_root() {
        return Err("the end-to-end tests need root for the lab: run `sudo -E cargo xtask test`, or `cargo xtask unit` without them".to_owned());
    }
    unit()?;
    let reconcile = binary()?;
    let package = assemble(&reconcile, true)?;
    need_browser()?;
    // Setting up is apart from the tests, so that no test's time limit has to cover it.
    let lab = lab_name();
    run(program(&reconcile.to_string_lossy(), &["lab", "--name", &lab, "up"]))?;
    let mut tests = runner(&["--package", "reconcile-tests"], true);
    tests.env("RECONCILE_BIN", &reconcile).env("RECONCILE_LAB", &lab);
    tests.env("RECONCILE_PACKAGE", &package);
    let result = run(tests);
    let down = run(program(&reconcile.to_string_lossy(), &["lab", "--name", &lab, "down"]));
    result.and(down)
}

/// A lab belongs to one folder, so each checkout has one of its own.
pub(crate) fn lab_name() -> String {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    root().hash(&mut hasher);
    format!("e2e{:04x}", hasher.finish() & 0xffff)
}

/// Lints, house rules, and the tests that need nothing but this workspace.
pub(crate) fn unit() -> Result<(), String> {
    tidy()?;
    lint()?;
    need_git()?;
    run(runner(&["--workspace", "--exclude", "reconcile-tests"], false))
}

/// Formatting and lints; warnings are errors.
pub(crate) fn lint() -> Result<(), String> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// nextest where it is installed, else cargo's own runner.
pub(crate) fn runner(selection: &[&str], serial: bool) -> Command {
    let nextest = cargo(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if nextest {
        let mut command = cargo(&["nextest", "run", "--no-fail-fast"]);
        command.args(selection);
        if serial {
            command.args(["--test-threads", "1", "--success-output", "immediate"]);
        }
        command
    } else {
        let mut command = cargo(&["test", "--no-fail-fast"]);
        command.args(selection);
        if serial {
            command.args(["--", "--test-threads", "1", "--nocapture"]);
        }
        command
    }
}

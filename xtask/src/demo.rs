//! `demo`: from a fresh machine to a serving cluster; `schema` and `docs`: what is committed of the
//! file's schema.

use crate::run::{binary, cargo, is_root, program, root, run};

/// The example that the demo converges.
const EXAMPLE: &str = "examples/lab.yaml";

#[expect(clippy::print_stdout, reason = "xtask is a program for people")]
pub(crate) fn demo() -> Result<(), String> {
    if !is_root() {
        return Err("the lab needs root: run `sudo -E cargo xtask demo`".to_owned());
    }
    let reconcile = binary()?;
    let reconcile = reconcile.to_string_lossy();
    run(program(&reconcile, &["lab", "up"]))?;
    run(program(&reconcile, &["secrets", "init", "-f", EXAMPLE]))?;
    run(program(&reconcile, &["-f", EXAMPLE]))?;
    run(program(&reconcile, &["status", "-f", EXAMPLE]))?;
    println!(
        "
The cluster serves. Try:
  {reconcile} plan -f {EXAMPLE}                      # nothing to do
  {reconcile} status -f {EXAMPLE} -o wide
  ssh -F .lab/lab/ssh_config node1                   # a server; then: sudo docker stack services db-utils
  PGPASSWORD=$(sed -n 's/^app-password: //p' .lab/lab/secrets.yaml) psql -h 10.212.211.11 -p 15432 -U app auth
  {reconcile} lab down                               # take it away again"
    );
    Ok(())
}

pub(crate) fn schema() -> Result<(), String> {
    written_by(&["schema"], "manifests/reconcile.schema.json")
}

pub(crate) fn docs() -> Result<(), String> {
    written_by(&["schema", "--markdown"], "docs/reference/file.md")
}

/// Writes what `reconcile` prints to a file of the workspace.
fn written_by(arguments: &[&str], path: &str) -> Result<(), String> {
    let output = cargo(&[&["run", "--quiet", "--package", "reconcile", "--"], arguments].concat())
        .output()
        .map_err(|error| format!("run reconcile {}: {error}", arguments.join(" ")))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let path = root().join(path);
    std::fs::write(&path, output.stdout)
        .map_err(|error| format!("write {}: {error}", path.display()))
}

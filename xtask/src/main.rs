//! Project tasks: `cargo xtask demo | test | soak | package | unit | lint | tidy | schema | docs`.
//!
//! Only the standard library, so that the first command on a fresh machine starts quickly.

mod demo;
mod package;
mod run;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask TASK
  demo    boot the lab, converge examples/lab.yaml, say how to connect (needs root)
  test    run every check and every test, the end-to-end ones on the lab included (needs root)
  soak    the end-to-end tests [WORD…] with everything repeated; writes docs/figures.md
  package a Debian package: binary, unit, completions, manual [--binary FILE]
  unit    the same without the lab
  lint    formatting and lints
  tidy    the house rules that no lint knows
  schema  write manifests/reconcile.schema.json anew
  docs    write docs/reference/file.md anew";

#[expect(clippy::print_stderr, reason = "xtask is a program for people")]
fn main() -> ExitCode {
    let task = std::env::args().nth(1);
    let result = match task.as_deref() {
        Some("demo") => demo::demo(),
        Some("test") => test::all(),
        Some("soak") => soak::soak(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("package") => package::package(&std::env::args().skip(2).collect::<Vec<_>>()),
        Some("unit") => test::unit(),
        Some("lint") => test::lint(),
        Some("tidy") => tidy::tidy(),
        Some("schema") => demo::schema(),
        Some("docs") => demo::docs(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

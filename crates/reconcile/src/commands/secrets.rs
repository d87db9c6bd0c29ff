//! `reconcile secrets`.

use reconcile_spec::secrets::required_secrets;

use crate::{
    cli::{Cli, SecretsCommand},
    failure::{Failure, Outcome},
    output, secrets, source,
};

pub(super) fn run(cli: &Cli, command: &SecretsCommand) -> Result<Outcome, Failure> {
    let source = source::read(cli)?;
    let mut outcome = Outcome::Done;
    for spec in &source.clusters {
        match command {
            SecretsCommand::Init => {
                let (path, added) = secrets::init(spec, &source.base)?;
                let path = path.display();
                output::print(&if added.is_empty() {
                    format!("{path}: nothing is missing\n")
                } else {
                    format!("{path}: wrote {}\n", added.join(", "))
                })?;
            }
            SecretsCommand::List => {
                for need in required_secrets(spec) {
                    output::print(&format!(
                        "{}  used by {}\n",
                        need.name,
                        need.used_by.join(", ")
                    ))?;
                }
                if let Err(failure) = secrets::read(spec, &source.base) {
                    // The list is what was asked for; what is wrong with it goes to stderr.
                    let _code = failure.report();
                    outcome = Outcome::Failed;
                }
            }
        }
    }
    Ok(outcome)
}

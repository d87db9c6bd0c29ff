//! Reading secrets from their source, and making new ones. Values stay out of every message.

mod file;
mod init;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
};

use reconcile_core::{desired::Secrets, model::SecretText};
use reconcile_sops::Form;
use reconcile_spec::{ClusterSpec, secrets::required_secrets, valid::SecretsSource};
use zeroize::Zeroizing;

pub(crate) use file::in_clear;
pub(crate) use init::init;

use crate::{base::Base, failure::Failure};

/// Anything shorter is guessed.
const MIN_LENGTH: usize = 12;

/// The values of all secrets that the cluster needs.
pub(crate) fn read(spec: &ClusterSpec, base: &Base) -> Result<Secrets, Failure> {
    let (mut unfit, mut encrypted) = (BTreeMap::new(), false);
    let values = match &spec.secrets {
        SecretsSource::File(path) => {
            let found = file::read(base, path)?;
            (unfit, encrypted) = (found.unfit, found.form != Form::Plain);
            found.values
        }
        SecretsSource::Env(prefix) => read_environment(spec, prefix),
        SecretsSource::Exec(argv) => read_program(argv, base)?,
    };
    let mut faults = Vec::new();
    for need in required_secrets(spec) {
        let name = need.name.as_str();
        match values.get(name).map(|value| weakness(value.expose())) {
            None => {
                let why = unfit.get(name).unwrap_or(&"is missing");
                faults.push(format!("`{name}` {why}; used by {}", need.used_by.join(", ")));
            }
            Some(Some(weakness)) => faults.push(format!("`{name}` {weakness}")),
            Some(None) => {}
        }
    }
    if faults.is_empty() {
        return Ok(values);
    }
    let mut failure = Failure::new(format!("secrets of cluster {} are not usable", spec.name));
    for fault in faults {
        failure = failure.caused_by(fault);
    }
    Err(failure.hint(match &spec.secrets {
        SecretsSource::File(_) if encrypted => {
            "change it with the program that encrypted it, such as `sops edit`"
        }
        SecretsSource::File(_) => "`reconcile secrets init -f FILE` writes what is missing",
        SecretsSource::Env(_) => {
            "set the environment variables that `reconcile secrets list` names"
        }
        SecretsSource::Exec(_) => "the program must print a YAML map of names and values",
    }))
}

/// Checks the secrets as far as they are given here; says why they are not checked otherwise.
pub(crate) fn check(spec: &ClusterSpec, base: &Base) -> Result<Result<usize, String>, Failure> {
    let ungiven = match &spec.secrets {
        SecretsSource::File(path) => file::ungiven(base, path)?,
        SecretsSource::Env(prefix) => read_environment(spec, prefix)
            .is_empty()
            .then(|| format!("no environment variable {prefix}… of theirs is set")),
        SecretsSource::Exec(_) => Some("`exec` is not run for this".to_owned()),
    };
    match ungiven {
        Some(why) => Ok(Err(why)),
        None => read(spec, base).map(|_| Ok(required_secrets(spec).len())),
    }
}

/// Why a value cannot be used: it lands in YAML, SQL and PgBouncer's userlist.txt.
fn weakness(value: &str) -> Option<&'static str> {
    if value.len() < MIN_LENGTH {
        return Some("is shorter than 12 characters");
    }
    let unfit = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '\\');
    value.contains(unfit).then_some(
        "holds a character other than printable ASCII without quotes, backslash and space",
    )
}

fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.to_uppercase().replace('-', "_"))
}

fn read_environment(spec: &ClusterSpec, prefix: &str) -> Secrets {
    required_secrets(spec)
        .into_iter()
        .filter_map(|need| {
            let value = std::env::var(variable(prefix, need.name.as_str())).ok()?;
            Some((need.name.to_string(), SecretText::new(value)))
        })
        .collect()
}

fn read_program(argv: &[String], base: &Base) -> Result<Secrets, Failure> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Failure::new("secrets.exec names no program"));
    };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(&base.folder)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::from_error(format!("run {program} for secrets"), &error))?;
    if !output.status.success() {
        return Err(Failure::new(format!(
            "{program}, asked for secrets, ended with {}",
            output.status
        )));
    }
    let printed = Zeroizing::new(output.stdout);
    let text = std::str::from_utf8(&printed)
        .map_err(|_| Failure::new(format!("{program} printed secrets that are not UTF-8")))?;
    file::parse(text, program)
}

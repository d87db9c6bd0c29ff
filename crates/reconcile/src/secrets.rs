//! Reading secrets from their source, and making new ones. Values stay out of every message.

use std::{
    collections::BTreeMap,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::RngExt as _;
use reconcile_core::{desired::Secrets, model::SecretText};
use reconcile_spec::{ClusterSpec, secrets::required_secrets, valid::SecretsSource};

use crate::{failure::Failure, source::resolve};

/// 40 characters of 62: 238 bits.
const LENGTH: usize = 40;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Anything shorter is guessed.
const MIN_LENGTH: usize = 12;

/// The values of all secrets that the cluster needs.
pub(crate) fn read(spec: &ClusterSpec, base: &Path) -> Result<Secrets, Failure> {
    let values = match &spec.secrets {
        SecretsSource::File(path) => read_file(&resolve(base, path))?,
        SecretsSource::Env(prefix) => read_environment(spec, prefix),
        SecretsSource::Exec(argv) => read_program(argv, base)?,
    };
    let mut faults = Vec::new();
    for need in required_secrets(spec) {
        let name = need.name.as_str();
        match values.get(name).map(|value| weakness(value.expose())) {
            None => {
                faults.push(format!("`{name}` is missing; used by {}", need.used_by.join(", ")));
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
        SecretsSource::File(_) => "`reconcile secrets init -f FILE` writes what is missing",
        SecretsSource::Env(_) => {
            "set the environment variables that `reconcile secrets list` names"
        }
        SecretsSource::Exec(_) => "the program must print a YAML map of names and values",
    }))
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

fn parse(text: &str, origin: &str) -> Result<Secrets, Failure> {
    // The parser's own message could quote a value, so only its place is told.
    let values: BTreeMap<String, String> = serde_yaml::from_str(text).map_err(|error| {
        let place =
            error.location().map_or_else(String::new, |place| format!(" (line {})", place.line()));
        Failure::new(format!("{origin} is no YAML map of secret names and text values{place}"))
    })?;
    Ok(values.into_iter().map(|(name, value)| (name, SecretText::new(value))).collect())
}

fn read_file(path: &Path) -> Result<Secrets, Failure> {
    let attempt = || format!("read the secrets file {}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| {
        Failure::from_error(attempt(), &error).hint("`reconcile secrets init -f FILE` makes it")
    })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Failure::new(format!("{} may be read by others", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::from_error(attempt(), &error))?;
    parse(&text, &path.display().to_string())
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

fn read_program(argv: &[String], base: &Path) -> Result<Secrets, Failure> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Failure::new("secrets.exec names no program"));
    };
    let output = Command::new(program)
        .args(arguments)
        .current_dir(base)
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
    let text = String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("{program} printed secrets that are not UTF-8")))?;
    parse(&text, program)
}

/// Adds a random value for each needed secret that the file lacks. Existing values stay.
/// Returns the file and the names that were added.
pub(crate) fn init(spec: &ClusterSpec, base: &Path) -> Result<(PathBuf, Vec<String>), Failure> {
    let SecretsSource::File(path) = &spec.secrets else {
        return Err(Failure::usage("the secrets of this cluster do not come from a file")
            .hint("only `secrets: { file: … }` can be written by reconcile"));
    };
    let path = resolve(base, path);
    refuse_tracked(&path)?;
    let mut values = if path.exists() { read_file(&path)? } else { Secrets::new() };
    let mut added = Vec::new();
    for need in required_secrets(spec) {
        let name = need.name.to_string();
        if !values.contains_key(&name) {
            values.insert(name.clone(), random());
            added.push(name);
        }
    }
    if !added.is_empty() {
        write(&path, &values)?;
    }
    Ok((path, added))
}

fn random() -> SecretText {
    let mut rng = rand::rng();
    let letters = (0..LENGTH).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char);
    SecretText::new(letters.collect::<String>())
}

/// A file of secrets inside a Git work tree must be ignored by it.
fn refuse_tracked(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let git = |arguments: &[&str]| {
        Command::new("git")
            .arg("-C")
            .arg(folder.unwrap_or(Path::new(".")))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    };
    // Without git, or outside of a work tree, there is nothing to fear.
    if !git(&["rev-parse", "--is-inside-work-tree"]).is_ok_and(|status| status.success()) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if git(&["check-ignore", "--quiet", &name]).is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Failure::new(format!("{} lies in a Git work tree that does not ignore it", path.display()))
        .hint(format!("echo /{name} >> .gitignore, or name a place outside of it")))
}

fn write(path: &Path, values: &Secrets) -> Result<(), Failure> {
    let attempt = || format!("write the secrets file {}", path.display());
    let plain: BTreeMap<&str, &str> =
        values.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    let text =
        serde_yaml::to_string(&plain).map_err(|error| Failure::from_error(attempt(), &error))?;
    let partial = path.with_extension("new");
    let result = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)
        .and_then(|mut file| {
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(b"# Secrets of a reconcile cluster. Keep this file out of Git.\n")?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&partial, path));
    result.map_err(|error| Failure::from_error(attempt(), &error))
}

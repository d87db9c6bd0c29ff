//! Making new secrets. Existing values stay.

use std::{
    collections::BTreeMap,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::RngExt as _;
use reconcile_core::{desired::Secrets, model::SecretText};
use reconcile_sops::Form;
use reconcile_spec::{ClusterSpec, secrets::required_secrets, valid::SecretsSource};

use super::file;
use crate::{base::Base, failure::Failure};

/// 40 characters of 62: 238 bits.
const LENGTH: usize = 40;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Adds a random value for each needed secret that the file lacks. Existing values stay.
/// Returns the file and the names that were added.
pub(crate) fn init(spec: &ClusterSpec, base: &Base) -> Result<(PathBuf, Vec<String>), Failure> {
    let SecretsSource::File(said) = &spec.secrets else {
        return Err(Failure::usage("the secrets of this cluster do not come from a file")
            .hint("only `secrets: { file: … }` can be written by reconcile"));
    };
    let path = base.resolve(said);
    let committed = base.read_committed(said)?.is_some();
    let (mut values, form) = if committed || path.exists() {
        let found = file::read(base, said)?;
        (found.values, found.form)
    } else {
        (Secrets::new(), Form::Plain)
    };
    let needs = required_secrets(spec).into_iter().map(|need| need.name.to_string());
    let missing: Vec<String> = needs.filter(|name| !values.contains_key(name)).collect();
    if missing.is_empty() {
        return Ok((path, missing));
    }
    if form != Form::Plain {
        return Err(Failure::new(format!(
            "{said} is encrypted, and reconcile only reads such files"
        ))
        .caused_by(format!("it lacks {}", missing.join(", ")))
        .hint("add them with the program that encrypted it, such as `sops edit`"));
    }
    refuse_tracked(&path)?;
    values.extend(missing.iter().map(|name| (name.clone(), random())));
    write(&path, &values)?;
    Ok((path, missing))
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

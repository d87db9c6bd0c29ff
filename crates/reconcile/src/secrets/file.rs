//! A file of secrets: in clear beside the desired state, or encrypted with age or SOPS there or in
//! the same commit. What is decrypted is held in memory only, and wiped when it is dropped.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};

use reconcile_core::{desired::Secrets, model::SecretText};
use reconcile_sops::{Form, Identities, Opened, SealError};
use zeroize::Zeroizing;

use crate::{base::Base, failure::Failure};

/// A file that was read.
pub(super) struct Found {
    pub(super) values: Secrets,
    /// Names whose values cannot serve, and why.
    pub(super) unfit: BTreeMap<String, &'static str>,
    pub(super) form: Form,
}

impl Found {
    fn plain(values: Secrets) -> Self {
        Self { values, unfit: BTreeMap::new(), form: Form::Plain }
    }
}

/// Reads the file that the desired state names: that of the commit, else that of this machine.
pub(super) fn read(base: &Base, path: &str) -> Result<Found, Failure> {
    if let Some((name, bytes)) = base.read_committed(path)? {
        let bytes = Zeroizing::new(bytes);
        return match Form::of(&bytes) {
            Form::Plain => Err(in_clear(&name)),
            form => unseal(base, &name, &bytes, form),
        };
    }
    let path = base.resolve(path);
    let name = path.display().to_string();
    let attempt = || format!("read the secrets file {name}");
    let bytes = std::fs::read(&path).map(Zeroizing::new).map_err(|error| {
        Failure::from_error(attempt(), &error).hint("`reconcile secrets init -f FILE` makes it")
    })?;
    let form = Form::of(&bytes);
    if form != Form::Plain {
        return unseal(base, &name, &bytes, form);
    }
    private(&path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| Failure::new(format!("{name} is not UTF-8")))?;
    parse(text, &name).map(Found::plain)
}

/// Why the file cannot be looked at here, though nothing is wrong with it as far as is known.
pub(super) fn ungiven(base: &Base, path: &str) -> Result<Option<String>, Failure> {
    let (name, form) = if let Some((name, bytes)) = base.read_committed(path)? {
        (name, Form::of(&bytes))
    } else {
        let path = base.resolve(path);
        let name = path.display().to_string();
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => (name, Form::of(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Some(format!("there is no {name}")));
            }
            // Reading it for good says what is wrong.
            Err(_) => return Ok(None),
        }
    };
    let closed = form != Form::Plain && base.identity().is_none();
    Ok(closed.then(|| format!("{name} is encrypted, and no age identity is given")))
}

/// Secrets that were pushed in clear are known to all who may read the repository.
pub(crate) fn in_clear(name: &str) -> Failure {
    Failure::new(format!("{name} holds secrets in clear"))
        .hint("encrypt it with sops or age, or take it out of Git")
        .hint("whoever may read the repository knows them by now: change each of them")
}

fn unseal(base: &Base, name: &str, bytes: &[u8], form: Form) -> Result<Found, Failure> {
    let attempt = || format!("open the encrypted secrets file {name}");
    let Some((identity, guarded)) = base.identity() else {
        return Err(Failure::new(attempt())
            .caused_by("no age identity is given")
            .hint("name one with --identity FILE or in RECONCILE_AGE_IDENTITY_FILE"));
    };
    let identities = identities(&identity, guarded)?;
    let opened = reconcile_sops::open(bytes, &identities).map_err(|error| {
        let failure = Failure::from_error(attempt(), &error);
        match error {
            SealError::Recipients { .. } => {
                failure.caused_by(format!("ours are those of {}", identity.display()))
            }
            _ => failure,
        }
    })?;
    match opened {
        Opened::Text(text) => Ok(Found { form, ..Found::plain(parse(&text, name)?) }),
        Opened::Values(opened) => {
            let secret = |text: Zeroizing<String>| SecretText::new(text.as_str());
            let texts = opened.texts.into_iter();
            let values = texts.map(|(name, text)| (name, secret(text))).collect();
            Ok(Found { values, unfit: opened.unfit, form })
        }
    }
}

/// The identities of a file that only we may read.
fn identities(path: &Path, guarded: bool) -> Result<Identities, Failure> {
    let attempt = || format!("read the age identities {}", path.display());
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| Failure::from_error(attempt(), &error))?;
    if !guarded {
        private(path)?;
    }
    Identities::parse(&text).map_err(|error| Failure::from_error(attempt(), &error))
}

/// Secrets in clear are for their owner alone.
fn private(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Failure::from_error(format!("look at {}", path.display()), &error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Failure::new(format!("{} may be read by others", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

/// A YAML map of names and texts.
pub(super) fn parse(text: &str, origin: &str) -> Result<Secrets, Failure> {
    // The parser's own message could quote a value, so only its place is told.
    let values: BTreeMap<String, String> = serde_yaml::from_str(text).map_err(|error| {
        let place =
            error.location().map_or_else(String::new, |place| format!(" (line {})", place.line()));
        Failure::new(format!("{origin} is no YAML map of secret names and text values{place}"))
    })?;
    Ok(values.into_iter().map(|(name, value)| (name, SecretText::new(value))).collect())
}

//! SOPS YAML files with age recipients, reading. The MAC is over all values in the order of the
//! file, so the tree keeps its order, and nothing is given out before the MAC was found to hold.

use std::collections::BTreeMap;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use serde::Deserialize;
use serde_yaml::Value;
use zeroize::Zeroizing;

use crate::{
    age,
    error::SealError,
    identity::Identities,
    value::{Sealed, is_sealed},
};

/// The top level of a SOPS file whose MAC holds.
#[derive(Default)]
pub struct Values {
    /// Encrypted texts by name.
    pub texts: BTreeMap<String, Zeroizing<String>>,
    /// The other names, and why what they hold cannot serve as a secret.
    pub unfit: BTreeMap<String, &'static str>,
}

/// What the sum begins with where it leaves values in clear out (`mac_only_encrypted`), so that
/// it cannot be taken for the sum of another file.
const ONLY_ENCRYPTED: [u8; 32] = [
    0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0x0b,
    0x0b, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
];
/// Nested deeper is a mistake.
const DEEPEST: usize = 32;

/// What SOPS says of the file, as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    age: Option<Vec<Recipient>>,
    lastmodified: String,
    mac: String,
    #[serde(default)]
    mac_only_encrypted: Option<bool>,
    #[serde(default)]
    key_groups: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Recipient {
    recipient: String,
    enc: String,
}

/// What is at the top level.
pub(crate) fn open(bytes: &[u8], identities: &Identities) -> Result<Values, SealError> {
    // The YAML parser's own message could quote a value in clear, so only its place is told.
    let root: Value = serde_yaml::from_slice(bytes).map_err(|error| {
        let line = error.location().map_or(0, |place| place.line());
        SealError::Sops(format!("line {line} is not YAML"))
    })?;
    let Value::Mapping(root) = root else {
        return Err(SealError::Sops("it is no map of names and values".to_owned()));
    };
    let metadata = root.get("sops").cloned().unwrap_or_default();
    let metadata: Metadata = serde_yaml::from_value(metadata).map_err(|_| {
        SealError::Sops("its part `sops` lacks `lastmodified` or `mac`, or is damaged".to_owned())
    })?;
    if metadata.key_groups.as_ref().is_some_and(|groups| !groups.is_empty()) {
        return Err(SealError::Sops("key groups (Shamir's sharing) are not read".to_owned()));
    }
    let key = data_key(&metadata, identities)?;
    let mut walk = Walk {
        key,
        only_encrypted: metadata.mac_only_encrypted == Some(true),
        sum: digest::Context::new(&digest::SHA512),
    };
    if walk.only_encrypted {
        walk.sum.update(&ONLY_ENCRYPTED);
    }
    let mut values = Values::default();
    for (name, value) in &root {
        let Value::String(name) = name else {
            return Err(SealError::Sops("a name in it is no text".to_owned()));
        };
        if name == "sops" {
            continue;
        }
        match walk.visit(&format!("{name}:"), name, value, 0)? {
            Found::Text(text) => drop(values.texts.insert(name.clone(), text)),
            Found::Other(why) => drop(values.unfit.insert(name.clone(), why)),
        }
    }
    walk.check(&metadata)?;
    Ok(values)
}

fn data_key(
    metadata: &Metadata,
    identities: &Identities,
) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let recipients = metadata.age.as_deref().unwrap_or_default();
    if recipients.is_empty() {
        return Err(SealError::Sops("it names no age recipient, and no other kind is read".into()));
    }
    for recipient in recipients {
        match age::open(recipient.enc.as_bytes(), identities) {
            Ok(key) => {
                let mut fixed = Zeroizing::new([0; 32]);
                if key.len() != fixed.len() {
                    return Err(SealError::Sops("its data key is not of 32 bytes".to_owned()));
                }
                fixed.copy_from_slice(&key);
                return Ok(fixed);
            }
            Err(SealError::Recipients { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let recipients = recipients.iter().map(|recipient| shown(&recipient.recipient)).collect();
    Err(SealError::Recipients { recipients, ours: identities.recipients() })
}

/// A stranger's text: nothing that a terminal obeys, and not without end.
fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(100).collect()
}

enum Found {
    /// An encrypted text.
    Text(Zeroizing<String>),
    /// Anything else, and why it cannot serve.
    Other(&'static str),
}

struct Walk {
    key: Zeroizing<[u8; 32]>,
    only_encrypted: bool,
    sum: digest::Context,
}

impl Walk {
    /// `bound` is the path that a value is bound to, `name` the one for people. The members of a
    /// list are bound to the list's path.
    fn visit(
        &mut self,
        bound: &str,
        name: &str,
        value: &Value,
        depth: usize,
    ) -> Result<Found, SealError> {
        if depth > DEEPEST {
            return Err(SealError::Sops(format!("`{}` is nested too deep", shown(name))));
        }
        match value {
            Value::Mapping(map) => {
                for (inner, value) in map {
                    let Value::String(inner) = inner else {
                        return Err(SealError::Sops("a name in it is no text".to_owned()));
                    };
                    let (bound, name) = (format!("{bound}{inner}:"), format!("{name}.{inner}"));
                    self.visit(&bound, &name, value, depth + 1)?;
                }
            }
            Value::Sequence(list) => {
                for value in list {
                    self.visit(bound, name, value, depth + 1)?;
                }
            }
            Value::String(text) if is_sealed(text) => {
                let fault = || SealError::Value(shown(name));
                let sealed = Sealed::parse(text).ok_or_else(fault)?;
                let plain = sealed.open(&self.key, bound).ok_or_else(fault)?;
                self.sum.update(plain.as_bytes());
                if sealed.kind == "str" {
                    return Ok(Found::Text(plain));
                }
                return Ok(Found::Other("is no text; write it in quotes"));
            }
            Value::String(text) => self.clear(text),
            Value::Bool(true) => self.clear("True"),
            Value::Bool(false) => self.clear("False"),
            Value::Number(number) => self.clear(&number.to_string()),
            Value::Null => {}
            Value::Tagged(_) => {
                return Err(SealError::Sops(format!("`{}` has a YAML tag", shown(name))));
            }
        }
        Ok(Found::Other(match value {
            Value::Mapping(_) | Value::Sequence(_) | Value::Null => "is no text",
            _ => "is in clear in an encrypted file",
        }))
    }

    fn clear(&mut self, text: &str) {
        if !self.only_encrypted {
            self.sum.update(text.as_bytes());
        }
    }

    /// The sum that the file says, bound to when it was changed last, against ours.
    fn check(self, metadata: &Metadata) -> Result<(), SealError> {
        let said = Sealed::parse(&metadata.mac)
            .and_then(|mac| mac.open(&self.key, &metadata.lastmodified))
            .ok_or(SealError::Mac)?;
        let sum = self.sum.finish();
        let mut ours = String::with_capacity(2 * sum.as_ref().len());
        for byte in sum.as_ref() {
            ours.push_str(&format!("{byte:02X}"));
        }
        verify_slices_are_equal(said.as_bytes(), ours.as_bytes()).map_err(|_| SealError::Mac)
    }
}

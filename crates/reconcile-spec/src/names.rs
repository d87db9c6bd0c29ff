//! Names and small quantities of the vocabulary, each parsed once and then trusted.
//!
//! A `HostName` in hand is a well-formed name; no later code checks it again.
//! Nothing here reads the outside world.

use std::fmt;

/// A name that does not follow its kind's rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {text:?} {rule}")]
pub struct NameError {
    /// What the name should have named, such as `host name`.
    pub kind: &'static str,
    /// The refused text.
    pub text: String,
    /// What is wrong with it, continuing a sentence: `must …`.
    pub rule: String,
}

/// Why `text` is no RFC 1123 label (lower-case letters, digits, `-`), or `None` if it is one.
///
/// Labels are what host names, Swarm stack names, and etcd member names have in common.
fn label_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("must not be empty");
    }
    if text.len() > 63 {
        return Some("must have at most 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Some("must consist of lower-case letters, digits and '-' (RFC 1123)");
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Some("must start and end with a letter or a digit (RFC 1123)");
    }
    None
}

/// Why `text` is no name for a Docker stack or network, or `None` if it is one.
fn docker_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("must not be empty");
    }
    if text.len() > 63 {
        return Some("must have at most 63 characters");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Some("must consist of letters, digits, '-', '_' and '.'");
    }
    if !text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) {
        return Some("must start with a letter or a digit");
    }
    None
}

/// Why `text` is no name for a role, database, schema, or extension, or `None` if it is one.
///
/// PostgreSQL would take nearly anything between quotes, but cuts at 63 bytes without an error,
/// and PgBouncer's and HBA's files have no common quoting for control characters.
fn identifier_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("must not be empty");
    }
    if text.len() > 63 {
        return Some("must have at most 63 bytes; PostgreSQL cuts longer names silently");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$')) {
        return Some("must consist of letters, digits, '_', '-', '.' and '$'");
    }
    if !text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') {
        return Some("must start with a letter or '_'");
    }
    None
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $fault:path) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name, or what is wrong with `text`.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                match $fault(&text) {
                    None => Ok(Self(text)),
                    Some(rule) => Err(NameError { kind: $kind, text, rule: rule.to_owned() }),
                }
            }

            /// Stands in for a name that was refused, so that the other rules can still run.
            /// Never part of a valid specification.
            #[allow(dead_code, reason = "not every kind of name needs one")]
            pub(crate) fn placeholder() -> Self {
                Self(String::new())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name!(
    /// Name of a cluster; also Patroni's scope and part of the etcd cluster token.
    ClusterName, "cluster name", label_fault
);
name!(
    /// Name of a server; also its etcd member name and its Patroni member name.
    HostName, "host name", label_fault
);
name!(
    /// Name under which a secret is found in the secrets source; never its value.
    SecretName, "secret name", label_fault
);
name!(
    /// Name of a Docker stack.
    StackName, "stack name", docker_fault
);
name!(
    /// Name of a Docker network.
    NetworkName, "network name", docker_fault
);
name!(
    /// Name of a PostgreSQL role.
    RoleName, "role name", identifier_fault
);
name!(
    /// Name of a PostgreSQL database.
    DatabaseName, "database name", identifier_fault
);
name!(
    /// Name of a PostgreSQL schema.
    SchemaName, "schema name", identifier_fault
);
name!(
    /// Name of a PostgreSQL extension.
    ExtensionName, "extension name", identifier_fault
);

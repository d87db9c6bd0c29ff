//! YAML as a tree that knows where each key and value is, read by serde-saphyr.
//!
//! Scalars keep their spelling (`1.10` stays `1.10`). Everything that YAML allows and this format
//! does not (merge keys, custom tags, deep nesting, expanding aliases) is refused here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Location, Spanned};

use crate::fault::{Fault, Place};

/// Largest file that is read. The largest sensible one has a few hundred kilobytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

/// What a value is, in YAML's terms.
#[derive(Debug)]
pub(crate) enum Value {
    Null,
    Bool(String),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

impl Value {
    /// In words, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// The spelling of a scalar.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match self {
            Self::Bool(text) | Self::Number(text) | Self::Text(text) => Some(text),
            Self::Null | Self::List(_) | Self::Map(_) => None,
        }
    }
}

/// The documents of `text`; empty ones are left out. YAML's own faults end the reading, so there
/// is at most one.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, Box<Fault>> {
    if text.len() > MAX_BYTES {
        return Err(Box::new(
            Fault::error(
                "",
                format!("the file has {} bytes; at most {MAX_BYTES} are read", text.len()),
            )
            .help("split it: `reconcile -f FOLDER` reads every file of a folder"),
        ));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000,
            max_nodes: 50_000,
            max_depth: 32,
            max_documents: 256,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 50_000,
            max_total_scalar_bytes: MAX_BYTES,
            flow_nesting_limit: 32,
        },
        // Aliases may repeat a host's settings, not multiply a file.
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
        },
        // Repeated keys are kept, so that the walk reports all of them with both places.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        emit_comments: false,
    };
    let documents: Vec<Spanned<Raw>> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|e| Box::new(yaml_fault(&e, text)))?;
    Ok(documents.into_iter().map(|document| node(document, text)).collect())
}

fn yaml_fault(error: &serde_saphyr::Error, text: &str) -> Fault {
    use serde_saphyr::Error as E;
    let error = error.without_snippet();
    let fault = match error {
        E::MergeKeyNotAllowed { .. } => {
            Fault::error("", "merge keys (`<<`) are not part of this format")
                .help("write the fields out; what all hosts share belongs in `spec.ssh`")
        }
        E::Budget { .. } => {
            Fault::error("", "the file nests or repeats more than any sensible one")
                .help("aliases (`*name`) multiply what they repeat; write it out")
        }
        E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. }
        | E::AliasReplayCounterOverflow { .. } => {
            Fault::error("", "aliases (`*name`) multiply this file beyond all measure")
                .help("write out what they repeat")
        }
        _ => {
            let full = error.to_string();
            // The message ends with its position, which the report shows in its own way.
            let message = full.split(" at line ").next().unwrap_or(&full);
            let message = message.strip_prefix("YAML parse error: ").unwrap_or(message);
            Fault::error("", format!("not valid YAML: {}", message.trim_end_matches([':', ' '])))
        }
    };
    let fault = if text.lines().any(|line| line.starts_with('\t') || line.starts_with(" \t")) {
        fault.help("YAML does not allow tabs for indentation; use spaces")
    } else {
        fault
    };
    let place = error.location().filter(|at| at.line() > 0).map(|at| Place {
        line: usize::try_from(at.line()).unwrap_or(usize::MAX),
        column: usize::try_from(at.column()).unwrap_or(1).max(1),
        length: 1,
    });
    fault.place(place)
}

/// A value as serde-saphyr hands it over, without its place.
#[derive(Debug)]
enum Raw {
    Null,
    Bool(bool),
    /// Its spelling is taken from the file.
    Number,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let place = place_of(raw.referenced, text);
    let spelling =
        || slice(raw.defined, text).map_or(Cow::Borrowed(""), Cow::Borrowed).into_owned();
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => {
            let spelled = spelling();
            Value::Bool(if spelled.is_empty() { value.to_string() } else { spelled })
        }
        Raw::Number => Value::Number(spelling()),
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_place: place_of(key.referenced, text),
                    key: key.value,
                    node: node(value, text),
                })
                .collect(),
        ),
    };
    Node { value, place }
}

fn slice(at: Location, text: &str) -> Option<&str> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    text.get(start..start.checked_add(length)?)
}

fn place_of(at: Location, text: &str) -> Place {
    // A block scalar spans lines; only its first is marked.
    let first = slice(at, text).and_then(|slice| slice.lines().next()).unwrap_or("");
    Place {
        line: usize::try_from(at.line()).unwrap_or(usize::MAX),
        column: usize::try_from(at.column()).unwrap_or(1).max(1),
        length: first.trim_end().chars().count().max(1),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

//! Takes parameters of PostgreSQL into the text of a file; comments, order and spelling of all else
//! stay as they are.
//!
//! What cannot be done without guessing (a value over several lines, an alias, a mapping in braces
//! that would have to grow a line) is refused with its place.

use std::collections::BTreeMap;

use crate::fault::{Place, Severity};
use crate::parse::load;
use crate::tree::{self, Entry, Node, Value};
use crate::valid::{ClusterSpec, ValidSpec};

/// Why a text was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text is no valid file.
    #[error("the file is not valid as it is")]
    Invalid,
    /// It has no such cluster.
    #[error("the file has no cluster {0}")]
    NoCluster(String),
    /// It is written in a way that only a person can change.
    #[error("line {line}: {what} has to be changed by hand: {why}")]
    ByHand {
        /// Line, from 1.
        line: usize,
        /// What.
        what: String,
        /// Why.
        why: &'static str,
    },
    /// The edited text does not say what it should.
    #[error("{0} cannot be said in the file: {1}")]
    Refused(String, String),
}

/// The text in which the cluster's `postgresql.parameters` have these values; None: taken out.
///
/// # Errors
/// Where the text is not valid, the place is written in a way that cannot be edited, or the result
/// would not be valid or not say so.
pub fn set_parameters(
    text: &str,
    cluster: &str,
    values: &BTreeMap<String, Option<String>>,
) -> Result<String, EditError> {
    let before = load("the file", text).map_err(|_| EditError::Invalid)?;
    let mut text = text.to_owned();
    // One by one, so that no edit moves the place of another.
    for (name, value) in values {
        text = set(&text, cluster, name, value.as_deref())?;
    }
    let loaded = load("the edited file", &text).map_err(|faults| {
        let mut errors = faults.faults.iter().filter(|fault| fault.severity == Severity::Error);
        let first = errors.next().map_or_else(String::new, |fault| fault.message.clone());
        EditError::Refused(values.keys().cloned().collect::<Vec<_>>().join(", "), first)
    })?;
    let spec = loaded.clusters.iter().find(|spec| spec.name.as_str() == cluster);
    let spec = spec.ok_or_else(|| EditError::NoCluster(cluster.to_owned()))?.clone();
    // Nothing but those parameters may read differently.
    let plain = |clusters: Vec<ValidSpec>| -> Vec<ClusterSpec> {
        clusters.into_iter().map(ValidSpec::into_inner).collect()
    };
    let mut wanted = plain(before.clusters);
    for own in wanted.iter_mut().filter(|own| own.name.as_str() == cluster) {
        let parameters = &mut own.postgresql.parameters;
        for name in values.keys() {
            parameters.remove(name);
            let new = spec.postgresql.parameters.get_key_value(name);
            parameters.extend(new.map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    if wanted != plain(loaded.clusters) {
        let names = values.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(EditError::Refused(names, "something else would change with it".to_owned()));
    }
    for (name, value) in values {
        let said = spec.postgresql.parameters.get(name).cloned();
        if value.is_some() && said.as_deref() != value.as_deref() {
            let said = said.unwrap_or_else(|| "nothing".to_owned());
            return Err(EditError::Refused(name.clone(), format!("the file then says {said}")));
        }
    }
    Ok(text)
}

fn set(text: &str, cluster: &str, name: &str, value: Option<&str>) -> Result<String, EditError> {
    let documents = tree::read(text).map_err(|_| EditError::Invalid)?;
    let of = |document: &&Node| {
        let named = find(document, "metadata").and_then(|entry| find(&entry.node, "name"));
        named.and_then(|entry| entry.node.value.scalar()) == Some(cluster)
    };
    let document = documents.iter().find(of);
    let document = document.ok_or_else(|| EditError::NoCluster(cluster.to_owned()))?;
    let spec = find(document, "spec").ok_or(EditError::Invalid)?;
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let Some(postgresql) = find(&spec.node, "postgresql") else {
        return before_first(&lines, spec, value, |indent, value| {
            vec![
                format!("{indent}postgresql:"),
                format!("{indent}  parameters:"),
                format!("{indent}    {name}: {value}"),
            ]
        });
    };
    let Some(parameters) = find(&postgresql.node, "parameters") else {
        return before_first(&lines, postgresql, value, |indent, value| {
            vec![format!("{indent}parameters:"), format!("{indent}  {name}: {value}")]
        });
    };
    let by_hand =
        |place: Place, why| EditError::ByHand { line: place.line, what: format!("`{name}`"), why };
    let Value::Map(entries) = &parameters.node.value else {
        return Err(by_hand(parameters.key_place, "`parameters` is empty"));
    };
    let flow = starts_with(&lines, parameters.node.place, '{');
    match (find(&parameters.node, name), value) {
        (None, None) => {}
        (Some(entry), Some(value)) => {
            replace(&mut lines, entry, flow, &spelled(value))
                .map_err(|why| by_hand(entry.key_place, why))?;
        }
        (Some(entry), None) => {
            let place = entry.node.place;
            if flow || place.line != entry.key_place.line || end(&lines, place, flow).is_err() {
                return Err(by_hand(entry.key_place, "it does not stand on a line of its own"));
            }
            lines.remove(entry.key_place.line - 1);
        }
        (None, Some(value)) if flow => {
            let place = parameters.node.place;
            let line = &mut lines[place.line - 1];
            let at = byte(line, place.column + 1);
            let rest = if entries.is_empty() { " " } else { "," };
            line.insert_str(at, &format!(" {name}: {}{rest}", spelled(value)));
        }
        (None, Some(value)) => {
            let Some(last) = entries.last() else {
                return Err(by_hand(parameters.key_place, "`parameters` is empty"));
            };
            if last.node.place.line != last.key_place.line
                || end(&lines, last.node.place, false).is_err()
            {
                return Err(by_hand(last.key_place, "the value before it is no plain line"));
            }
            let indent = " ".repeat(last.key_place.column.saturating_sub(1));
            let line = format!("{indent}{name}: {}", spelled(value));
            lines.insert(last.key_place.line, line);
        }
    }
    Ok(lines.join("\n"))
}

/// New lines in front of the first key of a block mapping.
fn before_first(
    lines: &[String],
    parent: &Entry,
    value: Option<&str>,
    new: impl Fn(&str, &str) -> Vec<String>,
) -> Result<String, EditError> {
    let Some(value) = value else { return Ok(lines.join("\n")) };
    let by_hand = |why| EditError::ByHand {
        line: parent.key_place.line,
        what: format!("`{}`", parent.key),
        why,
    };
    let Value::Map(entries) = &parent.node.value else { return Err(by_hand("it is empty")) };
    let first = entries.first().ok_or_else(|| by_hand("it is empty"))?;
    if first.key_place.line == parent.key_place.line {
        return Err(by_hand("it is written in braces"));
    }
    let indent = " ".repeat(first.key_place.column.saturating_sub(1));
    let mut lines = lines.to_vec();
    let at = first.key_place.line - 1;
    lines.splice(at..at, new(&indent, &spelled(value)));
    Ok(lines.join("\n"))
}

fn find<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    }
}

/// The byte at which a column (from 1, in characters) of a line begins.
fn byte(line: &str, column: usize) -> usize {
    line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at)
}

fn starts_with(lines: &[String], place: Place, wanted: char) -> bool {
    let line = lines.get(place.line - 1).map_or("", String::as_str);
    line[byte(line, place.column)..].starts_with(wanted)
}

/// The byte after a scalar that begins at a place and ends on its line.
fn end(lines: &[String], place: Place, flow: bool) -> Result<usize, &'static str> {
    let line = lines.get(place.line - 1).map_or("", String::as_str);
    let start = byte(line, place.column);
    let rest = &line[start..];
    let mut characters = rest.char_indices();
    match characters.next().map(|(_, first)| first) {
        Some('"') => {
            let mut escaped = false;
            for (at, c) in characters {
                match c {
                    '"' if !escaped => return Ok(start + at + 1),
                    '\\' => escaped = !escaped,
                    _ => escaped = false,
                }
            }
            Err("it goes over several lines")
        }
        Some('\'') => {
            let inner = rest[1..].replace("''", "\0\0");
            let closing = inner.find('\'').ok_or("it goes over several lines")?;
            Ok(start + 1 + closing + 1)
        }
        Some('|' | '>') => Err("it goes over several lines"),
        Some('&' | '*' | '!') => Err("it has an anchor, an alias or a tag"),
        Some(_) => {
            let comment = rest.find(" #").unwrap_or(rest.len());
            let stop = if flow { rest.find([',', '}']).unwrap_or(rest.len()) } else { rest.len() };
            Ok(start + rest[..comment.min(stop)].trim_end().len())
        }
        None => Err("it has no value"),
    }
}

fn replace(
    lines: &mut [String],
    entry: &Entry,
    flow: bool,
    value: &str,
) -> Result<(), &'static str> {
    let place = entry.node.place;
    if place.line != entry.key_place.line {
        return Err("its value stands on another line");
    }
    let end = end(lines, place, flow)?;
    let line = &mut lines[place.line - 1];
    let start = byte(line, place.column);
    line.replace_range(start..end, value);
    Ok(())
}

/// A value as YAML reads it back as the same text.
fn spelled(value: &str) -> String {
    let number = value.parse::<f64>().is_ok() && !value.starts_with(['+', '.', '-']);
    let plain = value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "_./%-".contains(c));
    let word = ["true", "false", "null", "yes", "no", "y", "n", "on", "off", "~"]
        .contains(&value.to_ascii_lowercase().as_str());
    if (plain && !word) || number {
        value.to_owned()
    } else {
        // JSON's quoting is YAML's.
        serde_json::Value::String(value.to_owned()).to_string()
    }
}

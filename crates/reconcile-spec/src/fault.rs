//! What can be wrong with a file: faults with a path, resolved to places in the text.

use std::collections::BTreeMap;
use std::fmt;

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is accepted; a person should look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A stretch of one line of the file. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Characters; at least 1.
    pub length: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How bad it is.
    pub severity: Severity,
    /// Which field, such as `spec.hosts[1].address`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where it is; none for the file as a whole.
    pub place: Option<Place>,
    /// Other places that have to do with it.
    pub related: Vec<Related>,
    /// Whether the value at `place` may be a secret and must not be shown.
    pub secret: bool,
    /// Whether the field's name is at fault rather than its value.
    pub(crate) at_key: bool,
}

/// Another place that has to do with a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Which field.
    pub path: String,
    /// What it has to do with the fault.
    pub label: String,
    /// Where it is; none if the file does not say it.
    pub place: Option<Place>,
}

impl Fault {
    /// An error at the value of `path`.
    pub(crate) fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: path.into(),
            message: message.into(),
            help: None,
            place: None,
            related: Vec::new(),
            secret: false,
            at_key: false,
        }
    }

    /// A warning at the value of `path`.
    pub(crate) fn warning(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, message) }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    pub(crate) fn place(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    pub(crate) fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }

    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(crate) fn related(mut self, path: impl Into<String>, label: impl Into<String>) -> Self {
        self.related.push(Related { path: path.into(), label: label.into(), place: None });
        self
    }
}

/// All errors and warnings of a refused file, with the text that shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// In the order of the file; at least one is an error.
    pub faults: Vec<Fault>,
    pub(crate) report: String,
}

impl Faults {
    /// How many errors there are.
    pub fn count(&self) -> usize {
        self.faults.iter().filter(|fault| fault.severity == Severity::Error).count()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl std::error::Error for Faults {}

/// Where the fields of one document are.
#[derive(Default)]
pub(crate) struct Places {
    fields: BTreeMap<String, FieldPlace>,
}

#[derive(Clone, Copy)]
struct FieldPlace {
    key: Place,
    value: Place,
}

impl Places {
    pub(crate) fn insert(&mut self, path: String, key: Place, value: Place) {
        self.fields.entry(path).or_insert(FieldPlace { key, value });
    }

    /// Where the field's name is.
    pub(crate) fn key(&self, path: &str) -> Option<Place> {
        self.fields.get(path).map(|field| field.key)
    }

    /// Whether the file itself says the field.
    pub(crate) fn says(&self, path: &str) -> bool {
        self.fields.contains_key(path)
    }

    /// Fills in the places of a fault: that of its field or, if the file does not say it, that of
    /// the nearest parent that it does say.
    pub(crate) fn resolve(&self, fault: &mut Fault) {
        if fault.place.is_none() {
            fault.place = match self.fields.get(&fault.path) {
                Some(field) if fault.at_key => Some(field.key),
                Some(field) => Some(field.value),
                None => self.nearest(&fault.path).map(|field| field.key),
            };
        }
        for related in &mut fault.related {
            if related.place.is_none() {
                related.place = self.fields.get(&related.path).map(|field| field.value);
            }
        }
    }

    fn nearest(&self, path: &str) -> Option<&FieldPlace> {
        let mut path = path;
        while let Some(end) = path.rfind(['.', '[']) {
            path = &path[..end];
            if let Some(field) = self.fields.get(path) {
                return Some(field);
            }
        }
        self.fields.get("")
    }
}

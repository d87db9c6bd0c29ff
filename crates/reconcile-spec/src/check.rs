//! The walk of a document's tree against the schema: every unknown, repeated, missing, ill-typed
//! or out-of-range field at once, which serde, stopping at the first, could not tell.
//!
//! What passes comes out as JSON for the typed decode; what fails is left out of it, so that the
//! rules of [`crate::validate`] still run over the rest. A misspelt field with a clear
//! suggestion is taken for what it suggests, so that one slip does not cause three faults.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value as Json};

use crate::fault::{Fault, Place, Places};
use crate::hints;
use crate::tree::{Entry, Node, Value};

/// The outcome of a walk.
pub(crate) struct Checked {
    /// What passed.
    pub(crate) json: Json,
    /// What did not.
    pub(crate) faults: Vec<Fault>,
    /// Where everything is.
    pub(crate) places: Places,
    /// Where values are that must not be shown.
    pub(crate) hidden: Vec<Place>,
}

/// Walks one document.
pub(crate) fn check(root: &Node, schema: &Json) -> Checked {
    let mut hidden = Vec::new();
    hide(root, false, &mut hidden);
    let mut walk =
        Walk { definitions: &schema["$defs"], faults: Vec::new(), places: Places::default() };
    let start = Place { length: 1, ..root.place };
    walk.places.insert(String::new(), start, start);
    let json = walk.value(root, schema, "").unwrap_or_else(|| Json::Object(Map::new()));
    Checked { json, faults: walk.faults, places: walk.places, hidden }
}

/// Gathers the places of all values that may be secrets, wherever they stand: also below fields
/// that the format does not know.
fn hide(node: &Node, named: bool, hidden: &mut Vec<Place>) {
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                // The forms of references stay readable, `password: { value: … }` does not.
                let secret = match entry.key.as_str() {
                    "secret" => false,
                    "value" => named,
                    key => hints::hides(key),
                };
                hide(&entry.node, secret, hidden);
            }
        }
        Value::List(items) => items.iter().for_each(|item| hide(item, named, hidden)),
        value => {
            if value.scalar().is_some_and(|text| named || hints::secret_value(text)) {
                hidden.push(node.place);
            }
        }
    }
}

struct Walk<'a> {
    definitions: &'a Json,
    faults: Vec<Fault>,
    places: Places,
}

impl<'a> Walk<'a> {
    /// The schema behind a reference.
    fn resolved(&self, schema: &'a Json) -> &'a Json {
        match schema.get("$ref").and_then(Json::as_str) {
            Some(reference) => &self.definitions[reference.rsplit('/').next().unwrap_or_default()],
            None => schema,
        }
    }

    fn fault(&mut self, fault: Fault, place: Place) {
        self.faults.push(fault.place(Some(place)));
    }

    /// The value as JSON if it passes, with what fails inside of it left out.
    fn value(&mut self, node: &Node, schema: &'a Json, path: &str) -> Option<Json> {
        let schema = self.resolved(schema);
        // Before any message could repeat it.
        if node.value.scalar().is_some_and(hints::secret_value) {
            let fault =
                Fault::error(path, hints::SECRET_IN_THE_OPEN).help(hints::secret_help(path));
            self.fault(fault.secret(), node.place);
            return None;
        }
        if let Some(choices) = schema.get("oneOf").and_then(Json::as_array) {
            return self.choice(node, choices, path);
        }
        let types = match &schema["type"] {
            Json::String(one) => vec![one.as_str()],
            Json::Array(several) => several.iter().filter_map(Json::as_str).collect(),
            _ => vec![],
        };
        match (types.as_slice(), &node.value) {
            (["object"], Value::Map(entries)) => Some(self.object(node, entries, schema, path)),
            (["array"], Value::List(items)) => Some(self.array(node, items, schema, path)),
            // `labels:` with all its lines commented out means no labels.
            (["object" | "array"], Value::Null) if !path.is_empty() => {
                self.empty_if_required(node, schema, path);
                None
            }
            (["boolean"], Value::Bool(text)) => Some(Json::Bool(text.eq_ignore_ascii_case("true"))),
            (["integer"], Value::Number(text)) => self.integer(node, text, schema, path),
            (["string"] | [_, _, ..], value) => match value.scalar() {
                Some(text) => self.string(node, text, schema, path),
                None => self.wrong_type(node, schema, &types, path),
            },
            _ => self.wrong_type(node, schema, &types, path),
        }
    }

    /// An empty block where fields of it must be said: names those fields.
    fn empty_if_required(&mut self, node: &Node, schema: &'a Json, path: &str) {
        if let Some(required) = schema.get("required").and_then(Json::as_array) {
            let names: Vec<&str> = required.iter().filter_map(Json::as_str).collect();
            let message = format!("`{path}` is empty; it needs {}", hints::listed(&names));
            self.fault(Fault::error(path, message), node.place);
        } else if schema.get("minItems").is_some() {
            let message = format!("`{path}` is empty; it needs at least one item");
            self.fault(Fault::error(path, message).help_if(hints::empty(path)), node.place);
        }
    }

    fn object(&mut self, node: &Node, entries: &[Entry], schema: &'a Json, path: &str) -> Json {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let mut out = Map::new();
        let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
        let present: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        for entry in entries {
            let inner =
                if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            if let Some(first) = seen.insert(&entry.key, entry.key_place) {
                let mut fault = Fault::error(&*inner, format!("`{}` is said twice", entry.key))
                    .related(&*inner, "first said here")
                    .help("keep one of the two");
                fault.related[0].place = Some(first);
                self.fault(fault, entry.key_place);
                continue;
            }
            self.places.insert(inner.clone(), entry.key_place, entry.node.place);
            if let Some(property) = properties.and_then(|properties| properties.get(&entry.key)) {
                if let Some(json) = self.value(&entry.node, property, &inner) {
                    out.insert(entry.key.clone(), json);
                }
            } else if let Some(others) = others {
                if self.secret_entry(entry, &inner) {
                    continue;
                }
                if let Some(json) = self.value(&entry.node, others, &inner) {
                    out.insert(entry.key.clone(), json);
                }
            } else if let Some(properties) = properties {
                self.unknown(entry, properties, path, &inner, &present, &mut out);
            }
        }
        for name in schema.get("required").and_then(Json::as_array).into_iter().flatten() {
            let Some(name) = name.as_str() else { continue };
            if !present.contains(&name) && !out.contains_key(name) {
                let owner = if path.is_empty() { "the document" } else { path };
                let fault = Fault::error(
                    join(path, name),
                    format!("`{name}` is missing in {owner}", owner = quoted(owner, path)),
                )
                .help_if(hints::missing(path, name));
                let place = self.places.key(path).unwrap_or(Place { length: 1, ..node.place });
                self.fault(fault, place);
            }
        }
        Json::Object(out)
    }

    fn unknown(
        &mut self,
        entry: &Entry,
        properties: &'a Map<String, Json>,
        path: &str,
        inner: &str,
        present: &[&str],
        out: &mut Map<String, Json>,
    ) {
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        let owner = if path.is_empty() { "the document" } else { path };
        let message = format!("unknown field `{}` in {}", entry.key, quoted(owner, path));
        let mut fault = Fault::error(inner, message).at_key();
        let special = hints::unknown(path, &entry.key, entry.node.value.scalar());
        let meant = hints::nearest(&entry.key, &names);
        match (special, meant) {
            (Some(special), _) => fault = fault.help(special),
            (None, Some(meant)) => {
                fault = fault.help(format!("did you mean `{meant}`?"));
                if !present.contains(&meant) && !out.contains_key(meant) {
                    let path = join(path, meant);
                    self.places.insert(path.clone(), entry.key_place, entry.node.place);
                    if let Some(json) = self.value(&entry.node, &properties[meant], &path) {
                        out.insert(meant.to_owned(), json);
                    }
                }
            }
            (None, None) => {
                let elsewhere = hints::elsewhere(self.definitions, &entry.key);
                let known = format!("known fields here: {}", names.join(", "));
                fault = fault
                    .help(elsewhere.map_or(known.clone(), |place| format!("{place}\n{known}")));
            }
        }
        self.fault(fault, entry.key_place);
        self.secret_entry(entry, inner);
    }

    /// Refuses a value under a name that tells of a secret.
    fn secret_entry(&mut self, entry: &Entry, path: &str) -> bool {
        let found = entry.node.value.scalar().is_some_and(|text| {
            let named = hints::secret_name(&entry.key) || path.ends_with(".password.value");
            !text.is_empty() && (named || hints::secret_value(text))
        });
        if found {
            let fault =
                Fault::error(path, hints::SECRET_IN_THE_OPEN).help(hints::secret_help(path));
            self.fault(fault.secret(), entry.node.place);
        }
        found
    }

    fn array(&mut self, node: &Node, items: &[Node], schema: &'a Json, path: &str) -> Json {
        if items.is_empty() && schema.get("minItems").is_some() {
            let message = format!("`{path}` is empty; it needs at least one item");
            self.fault(Fault::error(path, message).help_if(hints::empty(path)), node.place);
        }
        let mut out = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let inner = format!("{path}[{index}]");
            self.places.insert(inner.clone(), item.place, item.place);
            let json = self.value(item, &schema["items"], &inner);
            // A refused item keeps its seat, so that the paths of later ones stay right; the rules
            // know that emptiness has been reported. Words out of a choice have no rules.
            let placeholder = match self.resolved(&schema["items"])["type"].as_str() {
                Some("object") => Some(Json::Object(Map::new())),
                Some("string") => Some(Json::String(String::new())),
                _ => None,
            };
            out.extend(json.or(placeholder));
        }
        Json::Array(out)
    }

    fn choice(&mut self, node: &Node, choices: &[Json], path: &str) -> Option<Json> {
        let names: Vec<&str> =
            choices.iter().flat_map(constants).filter_map(Json::as_str).collect();
        let text = node.value.scalar();
        if let Some(text) = text.filter(|text| names.contains(text)) {
            return Some(Json::String(text.to_owned()));
        }
        let allowed = hints::listed(&names);
        let fault = match text {
            Some("") | None if matches!(node.value, Value::Null) || text.is_some() => {
                Fault::error(path, format!("`{path}` has no value"))
                    .help(format!("one of: {allowed}"))
            }
            None => {
                Fault::error(path, format!("`{path}` must be one word, not {}", node.value.kind()))
                    .help(format!("one of: {allowed}"))
            }
            Some(text) => {
                let fault =
                    Fault::error(path, format!("`{path}` cannot be `{}`", hints::clip(text)));
                match (hints::value(path, text), hints::nearest(text, &names)) {
                    (Some(special), _) => fault.help(special),
                    (None, Some(meant)) => {
                        fault.help(format!("did you mean `{meant}`? One of: {allowed}"))
                    }
                    (None, None) if names.len() == 1 => fault.help(format!("write `{allowed}`")),
                    (None, None) => fault.help(format!("one of: {allowed}")),
                }
            }
        };
        self.fault(fault, node.place);
        None
    }

    fn integer(&mut self, node: &Node, text: &str, schema: &'a Json, path: &str) -> Option<Json> {
        let Ok(number) = text.parse::<i64>() else {
            let fault = Fault::error(
                path,
                format!("`{path}` must be a whole number, not `{}`", hints::clip(text)),
            );
            self.fault(fault, node.place);
            return None;
        };
        // schemars writes the bounds of unsigned integers as integers or floats.
        let bound = |name: &str| {
            schema.get(name).and_then(|b| {
                #[expect(clippy::cast_possible_truncation, reason = "bounds are small and whole")]
                b.as_i64().or_else(|| b.as_f64().map(|b| b as i64))
            })
        };
        let (low, high) =
            (bound("minimum").unwrap_or(i64::MIN), bound("maximum").unwrap_or(i64::MAX));
        if (low..=high).contains(&number) {
            return Some(Json::Number(Number::from(number)));
        }
        let range = match (low, high) {
            (low, i64::MAX) => format!("at least {low}"),
            (i64::MIN, high) => format!("at most {high}"),
            (low, high) => format!("from {low} to {high}"),
        };
        let fault = Fault::error(path, format!("`{path}` must be {range}, not {number}"))
            .help_if(hints::value(path, text));
        self.fault(fault, node.place);
        None
    }

    fn string(&mut self, node: &Node, text: &str, schema: &'a Json, path: &str) -> Option<Json> {
        let length = |name: &str| schema.get(name).and_then(Json::as_u64);
        let characters = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        if length("minLength").is_some_and(|least| characters < least) {
            self.fault(Fault::error(path, format!("`{path}` must not be empty")), node.place);
            return None;
        }
        if let Some(most) = length("maxLength").filter(|most| characters > *most) {
            let message =
                format!("`{path}` has {characters} characters; at most {most} are allowed");
            self.fault(Fault::error(path, message), node.place);
            return None;
        }
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            let message = format!("`{path}` has the control character {bad:?} in it");
            let fault = Fault::error(path, message).help("values are single lines of plain text");
            self.fault(fault, node.place);
            return None;
        }
        Some(Json::String(text.to_owned()))
    }

    fn wrong_type(
        &mut self,
        node: &Node,
        schema: &'a Json,
        types: &[&str],
        path: &str,
    ) -> Option<Json> {
        let wanted = match types {
            ["object"] => "a mapping",
            ["array"] => "a list",
            ["boolean"] => "true or false",
            ["integer"] => "a whole number",
            [_] => "a text",
            _ => "a text, a number or a boolean",
        };
        let text = node.value.scalar();
        let subject = if path.is_empty() { "the document".to_owned() } else { format!("`{path}`") };
        // A secret reference is the one object with the single field `secret`.
        let reference = schema["properties"]
            .as_object()
            .is_some_and(|p| p.len() == 1 && p.contains_key("secret"));
        let fault = if reference && text.is_some() {
            Fault::error(path, hints::SECRET_IN_THE_OPEN).help(hints::SECRET_HELP).secret()
        } else if matches!(node.value, Value::Null) {
            Fault::error(path, format!("{subject} has no value; it must be {wanted}"))
                .help("give it a value, or leave the line out for the default")
        } else {
            let shown = text.map_or(String::new(), |text| format!(" (`{}`)", hints::clip(text)));
            Fault::error(
                path,
                format!("{subject} must be {wanted}, not {}{shown}", node.value.kind()),
            )
            .help_if(text.and_then(|text| {
                hints::retyped(types, text, &node.value).or_else(|| hints::value(path, text))
            }))
            .help_if(hints::container(path, &node.value, types))
        };
        self.fault(fault, node.place);
        None
    }
}

/// The constants of one alternative of an enum: schemars writes documented ones as `const`, and
/// gathers the others under `enum`.
fn constants(choice: &Json) -> Vec<&Json> {
    match (choice.get("const"), choice.get("enum").and_then(Json::as_array)) {
        (Some(one), _) => vec![one],
        (None, Some(several)) => several.iter().collect(),
        (None, None) => vec![],
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn quoted(owner: &str, path: &str) -> String {
    if path.is_empty() { owner.to_owned() } else { format!("`{owner}`") }
}

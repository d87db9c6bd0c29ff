//! The JSON Schema of the file format, generated from [`crate::v1alpha1`].
//!
//! Editors use the committed copy; the walk in [`crate::check`] uses the same value, so that
//! what an editor marks and what `reconcile` refuses are one.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::v1alpha1::PostgresCluster;

/// The schema as a value, made once.
pub(crate) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema = schemars::SchemaGenerator::default()
            .into_root_schema_for::<PostgresCluster>()
            .to_value();
        tidy(&mut schema);
        schema
    })
}

/// The JSON Schema (draft 2020-12) as text: indented, stable, with a final newline.
pub fn json_schema() -> String {
    // Serialising a `Value` cannot fail: its keys are strings.
    let mut text = serde_json::to_string_pretty(schema()).unwrap_or_default();
    text.push('\n');
    text
}

/// Turns what schemars says about Rust into what is true of the file: a field may be left out
/// but not be `null`, defaults are in the descriptions, `x-required` fields are required.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(map) => {
            map.values_mut().for_each(tidy);
            lift_required(map);
            drop_null(map);
            // No field of the format is called `default`, so this is always the keyword.
            map.remove("default");
        }
        _ => {}
    }
}

fn lift_required(map: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = map.get_mut("properties") else { return };
    let mut required = Vec::new();
    for (name, property) in properties {
        if property.as_object_mut().and_then(|p| p.remove("x-required")).is_some() {
            required.push(json!(name));
        }
    }
    if !required.is_empty() {
        map.insert("required".to_owned(), Value::Array(required));
    }
}

fn drop_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = map.get_mut("anyOf") {
        choices.retain(|choice| choice != &json!({ "type": "null" }));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            map.remove("anyOf");
            for (key, value) in only {
                map.entry(key).or_insert(value);
            }
        }
    }
}

//! The file's reference as Markdown, from the same schema that editors and the reader use.

use serde_json::Value;

use crate::schema::schema;

const HEAD: &str = "# The file, field by field

Written by `cargo xtask docs` from the JSON Schema; do not edit it by hand.
Fields in **bold** must be said; all others have a default. `reconcile render --spec` shows a file with every default filled in.
Durations are a number and a unit (`ms`, `s`, `m`, `h`, `d`), sizes too (`B`, `kB`, `MB`, `GB`, `TB`, in steps of 1024).
Paths start at the folder of the file; `~/` is the home folder. A file may hold several documents, each a cluster.
What a schema cannot say, such as two services on one port, `reconcile validate` says, with its place and what would mend it.
";

/// The reference as text, with a final newline.
pub fn reference() -> String {
    let sections = sections();
    let mut text = HEAD.to_owned();
    for (path, structure) in &sections {
        section(&mut text, path, structure, &sections);
    }
    text
}

/// Every structure once, by the shortest path that leads to it, outer ones first.
fn sections() -> Vec<(String, &'static Value)> {
    let mut sections = vec![(String::new(), schema())];
    let mut next = 0;
    while let Some((path, structure)) = sections.get(next).cloned() {
        next += 1;
        for (name, field) in fields(structure) {
            let (end, target) = match &field["items"] {
                Value::Null => ("", field),
                items => ("[]", items),
            };
            let known = |below: &Value| sections.iter().any(|(_, told)| std::ptr::eq(*told, below));
            if let Some(below) = definition(target)
                && below["properties"].is_object()
                && !known(below)
            {
                let dot = if path.is_empty() { "" } else { "." };
                sections.push((format!("{path}{dot}{name}{end}"), below));
            }
        }
    }
    sections
}

/// Fields of a structure, those that must be said first.
fn fields(structure: &'static Value) -> Vec<(&'static String, &'static Value)> {
    let fields = structure["properties"].as_object().into_iter().flatten();
    let (mut first, then): (Vec<_>, Vec<_>) =
        fields.partition(|(name, _)| required(structure, name));
    first.extend(then);
    first
}

fn required(structure: &Value, name: &str) -> bool {
    let names = structure["required"].as_array();
    names.is_some_and(|names| names.iter().any(|required| required == name))
}

fn section(
    text: &mut String,
    path: &str,
    structure: &'static Value,
    sections: &[(String, &'static Value)],
) {
    let title = if path.is_empty() { "The document" } else { &format!("`{path}`") };
    text.push_str(&format!("\n## {title}\n\n{}\n\n", words(structure)));
    text.push_str("| field | value | |\n| --- | --- | --- |\n");
    for (name, field) in fields(structure) {
        let shown =
            if required(structure, name) { format!("**`{name}`**") } else { format!("`{name}`") };
        let meaning = words(field) + &choices(definition(field).unwrap_or(field));
        text.push_str(&format!("| {shown} | {} | {meaning} |\n", kind(field, sections)));
    }
}

/// What a reference leads to.
fn definition(field: &Value) -> Option<&'static Value> {
    let name = field["$ref"].as_str()?.strip_prefix("#/$defs/")?;
    schema()["$defs"].get(name)
}

/// The description in one line that a table can hold.
fn words(value: &Value) -> String {
    value["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// The words that may stand there, each with its meaning.
fn choices(definition: &Value) -> String {
    let choices = match &definition["items"] {
        Value::Null => definition["oneOf"].as_array(),
        items => return items_choices(items),
    };
    let Some(choices) = choices.filter(|choices| choices.len() > 1) else { return String::new() };
    let each = choices.iter().map(|choice| {
        let word = choice["const"].as_str().unwrap_or_default();
        format!("`{word}`: {}", words(choice))
    });
    each.fold(String::new(), |text, choice| text + "<br>" + &choice)
}

fn items_choices(items: &Value) -> String {
    definition(items).map(choices).unwrap_or_default()
}

/// The kind of value; a structure leads to its section.
fn kind(field: &'static Value, sections: &[(String, &'static Value)]) -> String {
    let target = definition(field).unwrap_or(field);
    if target.get("oneOf").is_some() {
        return "word".to_owned();
    }
    match target["type"].as_str() {
        None => "text, number or boolean".to_owned(),
        Some("string") => "text".to_owned(),
        Some("integer") => match (target["minimum"].as_u64(), target["maximum"].as_u64()) {
            (Some(least), Some(most)) => format!("{least}–{most}"),
            _ => "number".to_owned(),
        },
        Some("array") => match kind(&target["items"], sections) {
            words if words == "word" || words == "text" => format!("list of {words}s"),
            structure => format!("list of {structure}"),
        },
        Some("object") => match sections.iter().find(|(_, told)| std::ptr::eq(*told, target)) {
            Some((path, _)) => format!("[`{path}`](#{})", anchor(path)),
            None => "map of names to values".to_owned(),
        },
        Some(other) => other.to_owned(),
    }
}

/// The name that a heading of code has in links.
fn anchor(path: &str) -> String {
    path.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

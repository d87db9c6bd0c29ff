//! YAML for programs that read YAML 1.1, such as Patroni with PyYAML.
//!
//! There `on`, `no`, `1_000` and `12:30` are no strings unless they are quoted, and the libraries at
//! hand quote by YAML 1.2. So every string is quoted here, keys that are plain words excepted.

use serde_json::Value;

/// The document in block style; maps in order of their keys.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0);
    text
}

fn write(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                text.push_str(&format!("{indent}{}:", self::key(key)));
                nested(text, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                nested(text, item, depth);
            }
        }
        scalar => text.push_str(&format!("{indent}{scalar}\n")),
    }
}

/// What follows a key or a dash.
fn nested(text: &mut String, value: &Value, depth: usize) {
    let empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    if empty {
        // A JSON scalar is a YAML one, its strings are double-quoted, `{}` and `[]` are the same.
        text.push_str(&format!(" {value}\n"));
    } else {
        text.push('\n');
        write(text, value, depth + 1);
    }
}

fn key(key: &str) -> String {
    let word = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&key);
    if word { key.to_owned() } else { Value::from(key).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn what_yaml_1_1_would_not_take_for_text_is_quoted() {
        let value = json!({
            "parameters": { "wal_log_hints": "on", "ttl": 30, "failsafe": true },
            "hosts": ["192.0.2.11:2379", { "encoding": "UTF8" }], "no": "1_000", "empty": {},
        });
        let expected = "empty: {}
hosts:
  - \"192.0.2.11:2379\"
  -
    encoding: \"UTF8\"
\"no\": \"1_000\"
parameters:
  failsafe: true
  ttl: 30
  wal_log_hints: \"on\"
";
        assert_eq!(document(&value), expected);
    }

    #[test]
    fn what_is_written_reads_back_equal() {
        let value = json!({ "text": "a \"quoted\" \\ line\nand another: # no comment", "list": [[1, 2], []] });
        let back: serde_json::Value = serde_yaml::from_str(&document(&value)).expect("YAML");
        assert_eq!(back, value);
    }
}

//! Values of PostgreSQL's parameters: what is written in a file against what PostgreSQL tells.

use crate::model::SettingFact;

/// Bytes or milliseconds that a unit stands for; a unit of size and one of time never meet.
fn factor(unit: &str) -> Option<f64> {
    const K: f64 = 1024.0;
    let plain = unit.trim_start_matches(|c: char| c.is_ascii_digit());
    let times: f64 = match &unit[..unit.len() - plain.len()] {
        "" => 1.0,
        digits => digits.parse().ok()?,
    };
    let factor = match plain {
        "B" | "ms" => 1.0,
        "kB" => K,
        "MB" => K * K,
        "GB" => K * K * K,
        "TB" => K * K * K * K,
        "us" => 0.001,
        "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    Some(times * factor)
}

/// A number with or without a unit, counted in `unit`.
fn number(text: &str, unit: &str) -> Option<f64> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E');
    let (digits, own) = text.split_at(end.unwrap_or(text.len()));
    let value: f64 = digits.trim().parse().ok()?;
    match own {
        "" => Some(value),
        own => Some(value * factor(own)? / factor(unit)?),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Whether a value as written is what PostgreSQL runs with. What cannot be compared counts as the
/// same: then only Patroni's own word makes it differ.
pub(crate) fn same(written: &str, runs: &SettingFact) -> bool {
    match runs.kind.as_str() {
        "bool" => truth(written).zip(truth(&runs.value)).is_none_or(|(a, b)| a == b),
        // -1 is PostgreSQL's word for "find out", which shows as what was found.
        "integer" | "real" if written.trim() == "-1" => true,
        "integer" => number(written, &runs.unit)
            .zip(number(&runs.value, ""))
            .is_none_or(|(a, b)| (a.round() - b).abs() < 0.5),
        "real" => number(written, &runs.unit)
            .zip(number(&runs.value, ""))
            .is_none_or(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(1.0)),
        "enum" => written.eq_ignore_ascii_case(&runs.value),
        _ => written == runs.value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(kind: &str, value: &str, unit: &str) -> SettingFact {
        let (value, unit, kind) = (value.to_owned(), unit.to_owned(), kind.to_owned());
        SettingFact { value, unit, kind, altered: false }
    }

    #[test]
    fn values_are_compared_by_what_they_mean() {
        for (written, kind, value, unit, expected) in [
            ("128MB", "integer", "16384", "8kB", true),
            ("16384", "integer", "16384", "8kB", true),
            ("0.125GB", "integer", "16384", "8kB", true),
            ("129MB", "integer", "16384", "8kB", false),
            ("200", "integer", "200", "", true),
            ("201", "integer", "200", "", false),
            ("-1", "integer", "512", "8kB", true),
            ("2min", "integer", "120", "s", true),
            ("yes", "bool", "on", "", true),
            ("off", "bool", "on", "", false),
            ("Replica", "enum", "replica", "", true),
            ("logical", "enum", "replica", "", false),
            ("a, b", "string", "a, b", "", true),
            ("a", "string", "a, b", "", false),
            // Not understood: no reason to restart anything.
            ("a lot", "integer", "200", "", true),
            ("5 MB", "integer", "5", "", true),
        ] {
            assert_eq!(
                same(written, &fact(kind, value, unit)),
                expected,
                "{written} {value}{unit}"
            );
        }
    }
}

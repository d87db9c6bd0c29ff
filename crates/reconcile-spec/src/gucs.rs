//! PostgreSQL's own parameters: does a name exist, does a value have its type and lie in its range.
//! From a list that PostgreSQL itself gave (`data/postgresql-15.tsv` says how).

use crate::hints;

/// The version that the list is of; names come and go between versions.
pub(crate) const VERSION: u16 = 15;
const LIST: &str = include_str!("../data/postgresql-15.tsv");

/// A parameter.
struct Guc<'a> {
    name: &'a str,
    kind: &'a str,
    context: &'a str,
    unit: &'a str,
    least: &'a str,
    greatest: &'a str,
    values: &'a str,
}

/// What is wrong with a parameter, and what helps.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Its name.
    Name(String, String),
    /// Its value.
    Value(String, String),
}

fn gucs() -> impl Iterator<Item = Guc<'static>> {
    LIST.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        Some(Guc {
            name: next()?,
            kind: next()?,
            context: next()?,
            unit: next()?,
            least: next()?,
            greatest: next()?,
            values: next()?,
        })
    })
}

/// What is wrong with a parameter of PostgreSQL 15. Names with a dot are an extension's and pass.
pub(crate) fn wrong(name: &str, value: &str) -> Option<Wrong> {
    if name.contains('.') {
        return None;
    }
    let Some(guc) = gucs().find(|guc| guc.name.eq_ignore_ascii_case(name)) else {
        let names: Vec<&str> = gucs().map(|guc| guc.name).collect();
        let help = hints::nearest(name, &names).map_or_else(
            || {
                "parameters of extensions have a dot in their name, as in `pg_stat_statements.max`"
                    .to_owned()
            },
            |meant| format!("did you mean `{meant}`?"),
        );
        return Some(Wrong::Name(format!("PostgreSQL {VERSION} has no parameter `{name}`"), help));
    };
    if guc.context == "internal" {
        let said = format!("`{name}` tells how PostgreSQL was built and cannot be set");
        return Some(Wrong::Name(said, "take it out".to_owned()));
    }
    let shown = hints::clip(value);
    let wrong = |said: String, help: String| Some(Wrong::Value(said, help));
    match guc.kind {
        "bool" if !is_bool(value) => {
            wrong(format!("`{name}` is on or off, not `{shown}`"), "`on` or `off`".to_owned())
        }
        "enum" => {
            let known = guc.values.split(',').any(|one| one.eq_ignore_ascii_case(value));
            let switch = guc.values.split(',').any(|one| one == "on") && is_bool(value);
            if known || switch {
                return None;
            }
            let values = guc.values.replace(',', ", ");
            wrong(format!("`{name}` cannot be `{shown}`"), format!("one of {values}"))
        }
        "integer" | "real" => number(&guc, name, value),
        _ => None,
    }
}

fn is_bool(value: &str) -> bool {
    let word = value.to_ascii_lowercase();
    matches!(
        word.as_str(),
        "on" | "off" | "true" | "false" | "yes" | "no" | "1" | "0" | "t" | "f" | "y" | "n"
    )
}

const SIZES: [(&str, f64); 5] = [
    ("B", 1.0),
    ("kB", 1024.0),
    ("MB", 1_048_576.0),
    ("GB", 1_073_741_824.0),
    ("TB", 1_099_511_627_776.0),
];
const TIMES: [(&str, f64); 6] = [
    ("us", 0.001),
    ("ms", 1.0),
    ("s", 1_000.0),
    ("min", 60_000.0),
    ("h", 3_600_000.0),
    ("d", 86_400_000.0),
];

/// The units that a parameter takes, and what its own stands for.
fn units(unit: &str) -> (&'static [(&'static str, f64)], f64) {
    let plain = unit.trim_start_matches(|c: char| c.is_ascii_digit());
    let times = unit[..unit.len() - plain.len()].parse().unwrap_or(1.0);
    let units: &[(&str, f64)] =
        if TIMES.iter().any(|(name, _)| *name == plain) { &TIMES } else { &SIZES };
    let factor = units.iter().find(|(name, _)| *name == plain).map_or(1.0, |(_, factor)| *factor);
    (if plain.is_empty() { &[] } else { units }, factor * times)
}

fn number(guc: &Guc<'_>, name: &str, value: &str) -> Option<Wrong> {
    let shown = hints::clip(value);
    let wrong = |said: String, help: String| Some(Wrong::Value(said, help));
    let text = value.trim();
    let exponent = |(index, c): (usize, char)| {
        matches!(c, 'e' | 'E')
            && text[index + 1..].starts_with(|c: char| c.is_ascii_digit() || c == '-')
    };
    let end = text
        .char_indices()
        .find(|(index, c)| c.is_ascii_alphabetic() && !exponent((*index, *c)))
        .map_or(text.len(), |(index, _)| index);
    let (digits, own) = text.split_at(end);
    let (units, factor) = units(guc.unit);
    let known: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
    let kind = if guc.kind == "integer" { "a whole number" } else { "a number" };
    let allowed = match known[..] {
        [] => kind.to_owned(),
        _ => format!("{kind} with or without a unit: {}", known.join(", ")),
    };
    let Some(count) = digits.trim().parse::<f64>().ok().filter(|count| count.is_finite()) else {
        return wrong(format!("`{name}` is {kind}, not `{shown}`"), allowed);
    };
    let count = match own {
        "" if guc.kind == "integer" && units.is_empty() && count.fract() != 0.0 => {
            return wrong(format!("`{name}` is {kind}, not `{shown}`"), allowed);
        }
        "" => count,
        own => {
            let Some((_, unit)) = units.iter().find(|(unit, _)| *unit == own) else {
                let meant = known.iter().find(|unit| unit.eq_ignore_ascii_case(own));
                let help = meant.map_or(allowed, |unit| format!("did you mean `{digits}{unit}`?"));
                return wrong(format!("`{name}` does not take the unit `{own}`"), help);
            };
            count * unit / factor
        }
    };
    let bounds = (guc.least.parse::<f64>().ok()?, guc.greatest.parse::<f64>().ok()?);
    if (bounds.0..=bounds.1).contains(&count.round()) || (bounds.0..=bounds.1).contains(&count) {
        return None;
    }
    let unit = if guc.unit.is_empty() { String::new() } else { format!(" (in {})", guc.unit) };
    let range = format!("from {} to {}{unit}", guc.least, guc.greatest);
    wrong(format!("`{name}` cannot be `{shown}`: it is out of range"), range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole() {
        assert!(gucs().count() > 340);
        for guc in gucs() {
            assert!(
                matches!(guc.kind, "bool" | "enum" | "integer" | "real" | "string"),
                "{}",
                guc.name
            );
            let bounded = matches!(guc.kind, "integer" | "real");
            assert_eq!(guc.least.parse::<f64>().is_ok(), bounded, "{}", guc.name);
            assert_eq!(guc.values.is_empty(), guc.kind != "enum", "{}", guc.name);
        }
    }

    #[test]
    fn what_postgresql_takes_passes() {
        for (name, value) in [
            ("shared_buffers", "2GB"),
            ("shared_buffers", "16384"),
            ("shared_buffers", "0.5 GB"),
            ("work_mem", "16MB"),
            ("statement_timeout", "30s"),
            ("autovacuum_naptime", "1min"),
            ("max_wal_size", "4GB"),
            ("checkpoint_completion_target", "0.9"),
            ("random_page_cost", "1.1"),
            ("seq_page_cost", "1e0"),
            ("synchronous_commit", "off"),
            ("synchronous_commit", "remote_apply"),
            ("huge_pages", "try"),
            ("wal_buffers", "-1"),
            ("log_connections", "yes"),
            ("timezone", "UTC"),
            ("shared_preload_libraries", "pg_stat_statements"),
            ("pg_stat_statements.max", "10000"),
            ("max_connections", "300"),
        ] {
            assert_eq!(wrong(name, value), None, "{name} = {value}");
        }
    }

    #[test]
    fn what_it_refuses_is_refused() {
        for (name, value) in [
            ("shared_bufers", "2GB"),
            ("shared_buffers", "2gb"),
            ("shared_buffers", "lots"),
            ("shared_buffers", "8s"),
            ("shared_buffers", "1kB"),
            ("max_connections", "300MB"),
            ("max_connections", "9999999"),
            ("max_connections", "1.5"),
            ("checkpoint_completion_target", "90"),
            ("random_page_cost", "NaN"),
            ("log_connections", "maybe"),
            ("synchronous_commit", "perhaps"),
            ("statement_timeout", "-2"),
            ("server_version", "15"),
        ] {
            assert!(wrong(name, value).is_some(), "{name} = {value}");
        }
    }
}

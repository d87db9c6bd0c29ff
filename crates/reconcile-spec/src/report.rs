//! Faults as text, in the manner of rustc, without colour. Deterministic; never shows a value
//! that may be a secret.

use std::fmt::Write as _;

use crate::fault::{Fault, Place};
use crate::hints;

/// Longest part of a source line that is shown.
const MAX_SHOWN: usize = 120;

/// Over so many lines a value in flow style is looked for.
const FLOW_LINES: usize = 3;

/// The file that faults are about.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name, as the user called it.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// All faults as text, each with its place, the source line, and what to do. Faults come in the
/// order of their places, then of their texts, whatever order they are given in.
pub fn report(faults: &[Fault], source: Source<'_>) -> String {
    report_hiding(faults, source, &[])
}

/// As [`report`], with further places whose text is not shown.
pub(crate) fn report_hiding(faults: &[Fault], source: Source<'_>, hidden: &[Place]) -> String {
    let mut sorted: Vec<&Fault> = faults.iter().collect();
    sorted.sort_by(|a, b| (a.place, &a.message, &a.path).cmp(&(b.place, &b.message, &b.path)));
    let secrets = sorted.iter().filter(|fault| fault.secret).filter_map(|fault| fault.place);
    let hidden: Vec<Place> = secrets.chain(hidden.iter().copied()).collect();
    let page = Page { source, lines: source.text.lines().collect(), hidden };
    sorted.iter().map(|fault| page.fault(fault)).collect::<Vec<_>>().join("\n")
}

struct Page<'a> {
    source: Source<'a>,
    lines: Vec<&'a str>,
    hidden: Vec<Place>,
}

impl Page<'_> {
    fn fault(&self, fault: &Fault) -> String {
        let mut out = format!("{}: {}\n", fault.severity, fault.message);
        let places = fault.place.iter().chain(fault.related.iter().flat_map(|r| &r.place));
        let width = places.map(|place| place.line.to_string().len()).max().unwrap_or(1);
        // Writing to a String cannot fail, so the results below are dropped.
        if let Some(place) = fault.place {
            let _ = writeln!(
                out,
                "{:width$}--> {}:{}:{}",
                "", self.source.name, place.line, place.column
            );
            self.snippet(&mut out, width, place, '^', "");
        } else {
            let _ = writeln!(out, "{:width$}--> {}", "", self.source.name);
        }
        for related in &fault.related {
            match related.place {
                Some(place) => {
                    let _ = writeln!(
                        out,
                        "{:width$}::: {}:{}:{}",
                        "", self.source.name, place.line, place.column
                    );
                    self.snippet(&mut out, width, place, '-', &related.label);
                }
                None => {
                    let _ = writeln!(out, "{:width$} = note: {}", "", related.label);
                }
            }
        }
        if let Some(help) = &fault.help {
            let indent = format!("\n{:width$}         ", "");
            let _ = writeln!(out, "{:width$} = help: {}", "", help.replace('\n', &indent));
        }
        out
    }

    fn snippet(&self, out: &mut String, width: usize, place: Place, mark: char, label: &str) {
        let Some(line) = self.lines.get(place.line.saturating_sub(1)) else { return };
        let line = self.masked(line, place.line);
        let column = place.column.saturating_sub(1).min(line.len());
        // A window of the line around the mark, for the sake of terminals.
        let start = if line.len() > MAX_SHOWN { column.saturating_sub(MAX_SHOWN / 2) } else { 0 };
        let end = line.len().min(start + MAX_SHOWN);
        let text: String = line[start..end].iter().collect();
        let before = if start > 0 { "…" } else { "" };
        let after = if end < line.len() { "…" } else { "" };
        let _ = writeln!(out, "{:width$} |", "");
        let _ = writeln!(out, "{:width$} | {before}{}{after}", place.line, text.trim_end());
        let blanks = column - start + before.chars().count();
        let marks: String =
            std::iter::repeat_n(mark, place.length.clamp(1, (end - column).max(1))).collect();
        let _ = writeln!(
            out,
            "{}",
            format!("{:width$} | {:blanks$}{marks} {label}", "", "").trim_end()
        );
    }

    /// The characters of a line, control characters made harmless, secrets starred out.
    fn masked(&self, line: &str, number: usize) -> Vec<char> {
        let mut chars: Vec<char> =
            line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        for place in self.hidden.iter().filter(|place| place.line == number) {
            star(&mut chars, place.column - 1, place.column - 1 + place.length);
        }
        // A broken file may hold a secret that no rule saw, because reading ended before it.
        if self.below_secret(number) {
            let end = chars.len();
            let start = (0..end).find(|&at| chars[at] != ' ').unwrap_or(end);
            star(&mut chars, start, end);
        }
        star_named(&mut chars);
        chars
    }

    /// Whether a line goes on with the value of a secret's field that began on a line before it.
    fn below_secret(&self, number: usize) -> bool {
        let Some(own) = self.lines.get(number.saturating_sub(1)) else { return false };
        let before = || self.lines[..number.saturating_sub(1)].iter().rev();
        let named = |line: &str| {
            let value = secret_value_of(line)?;
            let plain = value.replace("\\\"", "");
            let opened = ['"', '\'']
                .iter()
                .any(|quote| value.starts_with(*quote) && plain.matches(*quote).count() % 2 == 1);
            Some(value.is_empty() || value.starts_with(['|', '>']) || opened)
        };
        let keyed = |line: &str| line.contains(": ") || line.trim_end().ends_with(':');
        // A mapping below it is a reference, `secret: NAME`. Below a value there is nothing but more
        // of it, whatever it looks like.
        let refers = own.trim_start().starts_with("secret:");
        // In flow style its field may stand anywhere in a line, and its value go on below.
        let mut near = before().filter(|line| !line.trim().is_empty()).take(FLOW_LINES);
        if !refers && near.any(|line| left_open(line)) {
            return true;
        }
        // A tab is no indentation: it may be meant to be any.
        let blank = &own[..indent(own)];
        let mut inner = if blank.contains('\t') { usize::MAX } else { blank.len() };
        for line in before().filter(|line| !line.trim().is_empty()) {
            if key_indent(line) < inner {
                inner = indent(line).min(key_indent(line));
                let value = secret_value_of(line);
                if value
                    .is_some_and(|value| !(value.starts_with('{') || value.is_empty() && refers))
                {
                    return true;
                }
            }
        }
        let last = before().find(|line| keyed(line));
        !keyed(own) && last.and_then(|line| named(line)) == Some(true)
    }
}

/// Whether a quote or a brace of a secret's value is left open on its line.
fn left_open(line: &str) -> bool {
    let chars: Vec<char> = line.chars().collect();
    secret_fields(&chars).iter().any(|field| {
        let rest: String = chars[field.from..].iter().collect();
        let rest = rest.replace("\\\"", "");
        let count = |sign| rest.matches(sign).count();
        count('{') > count('}') || count('"') % 2 == 1 || count('\'') % 2 == 1
    })
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Where the key of a line begins: behind the dashes of a list.
fn key_indent(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t', '-']).len()
}

/// The value on a line that begins with the field of a secret.
fn secret_value_of(line: &str) -> Option<&str> {
    let (key, value) = line[key_indent(line)..].split_once(':')?;
    (key.trim() != "secret" && hints::hides(key)).then(|| value.trim())
}

/// A text of unknown origin as it may be shown: what is named or formed as a secret is starred, and
/// control characters are harmless.
pub fn masked(text: &str) -> String {
    let mut chars: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    star_named(&mut chars);
    chars.into_iter().collect()
}

/// Stars out the values of fields that are named as secrets are, and passwords in addresses.
fn star_named(chars: &mut [char]) {
    for field in secret_fields(chars) {
        star_value(chars, &field);
    }
    let line: String = chars.iter().collect();
    for (at, _) in line.match_indices("://") {
        let from = line[..at].chars().count() + 3;
        // A password may have any sign in it, also those that end one in a well formed address.
        let end = (from..chars.len()).find(|&i| matches!(chars[i], ' ' | '"' | '\''));
        let authority = from..end.unwrap_or(chars.len());
        let user = authority.clone().find(|&i| chars[i] == ':');
        let host = authority.rev().find(|&i| chars[i] == '@');
        if let (Some(user), Some(host)) = (user, host) {
            star(chars, user + 1, host);
        }
    }
}

/// A field that is named as secrets are.
struct Field {
    /// Where what follows its sign begins.
    from: usize,
    /// The sign is a `=`.
    equals: bool,
    /// It is the first of its line, in block style: all that follows is its value.
    first: bool,
}

fn secret_fields(chars: &[char]) -> Vec<Field> {
    let mut found = Vec::new();
    for (at, sign) in chars.iter().enumerate().filter(|(_, c)| matches!(c, ':' | '=')) {
        let spaces = chars[..at].iter().rev().take_while(|c| **c == ' ').count();
        let at_name = at - spaces;
        let quote = usize::from(at_name > 0 && matches!(chars[at_name - 1], '"' | '\''));
        let end = at_name - quote;
        let part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let length = chars[..end].iter().rev().take_while(|c| part(c)).count();
        let name: String = chars[end - length..end].iter().collect();
        // `secret: NAME` refers to one.
        if name.eq_ignore_ascii_case("secret") || !hints::hides(&name) {
            continue;
        }
        let equals = *sign == '=';
        let before = &chars[..end - length];
        let first = !equals && before.iter().all(|c| matches!(c, ' ' | '-' | '?' | '"' | '\''));
        found.push(Field { from: at + 1, equals, first });
    }
    found
}

fn star(chars: &mut [char], from: usize, to: usize) {
    let to = to.min(chars.len());
    for c in chars.iter_mut().take(to).skip(from) {
        *c = '*';
    }
}

/// Stars out a plain value; a reference (`{ secret: … }`) stays, and its other fields are judged by
/// their own names.
fn star_value(chars: &mut [char], field: &Field) {
    let Some(mut start) = (field.from..chars.len()).find(|&i| chars[i] != ' ') else { return };
    let mut first = field.first;
    if chars[start] == '{' {
        let blank = |c: &&char| matches!(**c, ' ' | '"' | '\'');
        let name_at = start + 1 + chars[start + 1..].iter().take_while(blank).count();
        let inside = &chars[name_at..];
        let name: String = inside.iter().take_while(|c| c.is_alphanumeric()).collect();
        let sign = name_at + name.chars().count();
        let sign = sign + chars[sign..].iter().take_while(blank).count();
        let keyed = !name.is_empty() && chars.get(sign) == Some(&':');
        let value = keyed && name.eq_ignore_ascii_case("value");
        if (keyed && !value) || name_at >= chars.len() {
            return;
        }
        if value {
            first = false;
            let Some(at) = (sign + 1..chars.len()).find(|&i| chars[i] != ' ') else { return };
            start = at;
        }
    }
    let filled = chars.iter().rposition(|c| *c != ' ').map_or(start, |last| last + 1);
    if first {
        star(chars, start, filled);
        return;
    }
    // A sign that ends a value may as well be part of it where no other field follows.
    let apart = |i: usize| chars.get(i + 1).is_none_or(|c| matches!(c, ' ' | '}' | ']' | ','));
    let ends = |i: usize| match chars[i] {
        ',' | '}' => apart(i),
        '&' | ' ' => field.equals,
        _ => false,
    };
    let mut from = start + 1;
    if let quote @ ('"' | '\'') = chars[start] {
        while from < chars.len() && chars[from] != quote {
            from += if chars[from] == '\\' { 2 } else { 1 };
        }
        from += 1;
    }
    // What follows a quote at once belongs to it, as in `'a''b'`.
    let mut end = (from..chars.len()).find(|&i| ends(i)).unwrap_or(chars.len());
    while end > start && chars[end - 1] == ' ' {
        end -= 1;
    }
    // A bracket that stands apart closes something, which may be what is wrong.
    let text: String = chars[start..end].iter().collect();
    if let Some(rest) = text.trim_end().strip_suffix(" ]") {
        end = start + rest.chars().count();
    }
    star(chars, start, end);
}

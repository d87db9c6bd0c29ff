//! Faults as text, in the manner of rustc, without colour. Deterministic; never shows a value
//! that may be a secret.

use std::fmt::Write as _;

use crate::fault::{Fault, Place};
use crate::hints;

/// Longest part of a source line that is shown.
const MAX_SHOWN: usize = 120;

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
        let indent = |line: &str| line.len() - line.trim_start().len();
        let Some(own) = self.lines.get(number.saturating_sub(1)) else { return false };
        let before = || self.lines[..number.saturating_sub(1)].iter().rev();
        let named = |line: &str| {
            let line = line.trim_start().trim_start_matches("- ");
            let (key, value) = line.split_once(':').unwrap_or_default();
            let value = value.trim();
            let opened = ['"', '\'']
                .iter()
                .any(|quote| value.starts_with(*quote) && value.matches(*quote).count() % 2 == 1);
            hints::secret_name(key) && (value.is_empty() || value.starts_with(['|', '>']) || opened)
        };
        let keyed = |line: &str| line.contains(": ") || line.trim_end().ends_with(':');
        let parent = before().find(|line| !line.trim().is_empty() && indent(line) < indent(own));
        let last = before().find(|line| keyed(line));
        // A mapping below it is a reference, `secret: NAME`, whose own fields are judged.
        !keyed(own) && ([parent, last].iter().flatten().any(|line| named(line)))
    }
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
    for (from, equals) in secret_fields(chars) {
        star_value(chars, from, equals);
    }
    let line: String = chars.iter().collect();
    for (at, _) in line.match_indices("://") {
        let from = line[..at].chars().count() + 3;
        let end = (from..chars.len()).find(|&i| matches!(chars[i], '/' | ' ' | '"' | '\''));
        let authority = from..end.unwrap_or(chars.len());
        let user = authority.clone().find(|&i| chars[i] == ':');
        let host = authority.rev().find(|&i| chars[i] == '@');
        if let (Some(user), Some(host)) = (user, host) {
            star(chars, user + 1, host);
        }
    }
}

/// Where the values of fields begin that are named as secrets are, and whether after a `=`.
fn secret_fields(chars: &[char]) -> Vec<(usize, bool)> {
    let mut found = Vec::new();
    for (at, sign) in chars.iter().enumerate().filter(|(_, c)| matches!(c, ':' | '=')) {
        let quote = usize::from(at > 0 && matches!(chars[at - 1], '"' | '\''));
        let end = at - quote;
        let part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let length = chars[..end].iter().rev().take_while(|c| part(c)).count();
        let name: String = chars[end - length..end].iter().collect();
        let lower = name.to_ascii_lowercase();
        let known = ["password", "passwd", "secret_key", "token"];
        // `secret: NAME` refers to one.
        let refers = lower == "secret";
        if !refers && (hints::secret_name(&name) || known.iter().any(|word| lower.ends_with(word)))
        {
            found.push((at + 1, *sign == '='));
        }
    }
    found
}

fn star(chars: &mut [char], from: usize, to: usize) {
    let to = to.min(chars.len());
    for c in chars.iter_mut().take(to).skip(from) {
        *c = '*';
    }
}

/// Stars out a plain value that starts after `from`; a reference (`{ secret: … }`) stays.
fn star_value(chars: &mut [char], from: usize, equals: bool) {
    let Some(start) = (from..chars.len()).find(|&i| chars[i] != ' ') else { return };
    if matches!(chars[start], '{' | '&' | '*' | '#') {
        return;
    }
    let ends = |c: char| match chars[start] {
        quote @ ('"' | '\'') => c == quote,
        _ if equals => matches!(c, ',' | '}' | '&' | ' '),
        // In a text of several words all are part of it.
        _ => matches!(c, ',' | '}'),
    };
    let mut end = (start + 1..chars.len()).find(|&i| ends(chars[i])).unwrap_or(chars.len());
    // A bracket that stands apart closes something, which may be what is wrong.
    let text: String = chars[start..end].iter().collect();
    if let Some(rest) = text.trim_end().strip_suffix(" ]") {
        end = start + rest.chars().count();
    }
    star(chars, start, end);
}

//! Shell text: quoting, and the frame that every script stands in.
//!
//! A script is one function that is called on the last line, with no input of its own. So a script
//! that was cut off on its way never runs in part, and no command in it can swallow the rest.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// A word that the shell takes literally, whatever it holds. NUL cannot be in a word and is dropped.
pub(crate) fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\0', "").replace('\'', r"'\''"))
}

/// All `words`, quoted, with a space before each.
pub(crate) fn words<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().fold(String::new(), |mut text, word| {
        text.push(' ');
        text.push_str(&quote(word.as_ref()));
        text
    })
}

/// Bytes as the lines of a here-document, in base64: no byte in it means anything to the shell.
pub(crate) fn base64_lines(bytes: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(bytes);
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / 76 + 1);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(76));
        lines.push_str(line);
        lines.push('\n');
        rest = after;
    }
    lines
}

/// The functions that scripts use, and what they rely on in their surroundings.
const HEAD: &str = r#"main() {
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
set -u
# fail RETRY CAUSE: ends the script; the last line of its kind is the error's cause.
fail() { printf '@@fail %s %s\n' "$1" "$2" >&2; exit 90; }
# at STEP: says what is being done, for the case that the deadline passes.
at() { printf '@@at %s\n' "$1" >&2; }
cd / || exit 1
[ "$(id -u)" = 0 ] || fail after-change 'the login user is not root and sudo is off for this server'
"#;

/// A whole script around `body`.
pub(crate) fn script(body: &str) -> String {
    let mut text = String::with_capacity(HEAD.len() + body.len() + 32);
    text.push_str(HEAD);
    text.push_str(body);
    // The closing brace is what a cut-off script lacks.
    let _infallible = text.write_str("}\nmain </dev/null\nexit $?\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_anything() {
        assert_eq!(quote("/etc/default/etcd"), "/etc/default/etcd");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's $(x) `y`"), r"'it'\''s $(x) `y`'");
        assert_eq!(words(["a", "b c"]), " a 'b c'");
    }

    #[test]
    fn base64_is_cut_into_lines() {
        let lines = base64_lines(&[0; 100]);
        assert_eq!(lines.lines().count(), 2);
        assert!(lines.lines().all(|line| line.len() <= 76));
        assert_eq!(base64_lines(b""), "");
    }
}

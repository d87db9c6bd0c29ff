//! The frame of a probe's answer: named sections with their lengths, so that any bytes may be in
//! them and a cut-off answer is noticed.
//!
//! ```text
//! @@probe 1
//!       14 begin
//!      270 os
//! @@data
//! <the bytes of all sections in that order>@@end
//! ```

use std::collections::BTreeMap;

/// First line of an answer. Whatever stands before it was printed by the login shell's own files.
pub(crate) const BEGIN: &str = "@@probe 1\n";
/// Between the table and the bytes.
const DATA: &str = "@@data\n";
/// After the last section.
const END: &[u8] = b"@@end\n";

/// The sections of an answer.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sections {
    parts: BTreeMap<String, Vec<u8>>,
}

impl Sections {
    pub(crate) fn parse(answer: &[u8]) -> Result<Self, String> {
        let begin = find(answer, BEGIN.as_bytes()).ok_or_else(|| {
            let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
            match text.trim() {
                "" => "the server answered nothing".to_owned(),
                said => format!("the server did not answer with a probe's result but: {said}"),
            }
        })?;
        let rest = &answer[begin + BEGIN.len()..];
        let cut = || "the probe's answer was cut off".to_owned();
        let data = find(rest, DATA.as_bytes()).ok_or_else(cut)?;
        let table = std::str::from_utf8(&rest[..data]).map_err(|_| cut())?;
        let mut bytes = &rest[data + DATA.len()..];
        let mut parts = BTreeMap::new();
        for row in table.lines() {
            let (size, name) = row.trim().split_once(' ').ok_or_else(cut)?;
            if name == "total" {
                continue;
            }
            let size: usize = size.parse().map_err(|_| cut())?;
            let (part, after) = bytes.split_at_checked(size).ok_or_else(cut)?;
            parts.insert(name.to_owned(), part.to_vec());
            bytes = after;
        }
        if bytes.starts_with(END) { Ok(Self { parts }) } else { Err(cut()) }
    }

    /// Adds what was learned another way.
    pub(crate) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.parts.insert(name.to_owned(), bytes);
    }

    /// Takes from `known` what was not told again.
    pub(crate) fn fill(&mut self, known: &Self, name: &str) {
        if let (None, Some(bytes)) = (self.bytes(name), known.bytes(name)) {
            self.put(name, bytes.to_vec());
        }
    }

    /// A section's bytes, where it is there.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.parts.get(name).map(Vec::as_slice)
    }

    /// A section's text, empty where it is not there. Bytes that are not UTF-8 become `�`.
    pub(crate) fn text(&self, name: &str) -> String {
        self.bytes(name).map_or_else(String::new, |b| String::from_utf8_lossy(b).into_owned())
    }

    /// The text of a section that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<String, String> {
        if self.bytes(name).is_none() {
            return Err(format!("the probe's answer has no section `{name}`"));
        }
        Ok(self.text(name))
    }

    /// The one line of a section that must hold one.
    pub(crate) fn line(&self, name: &str) -> Result<&str, String> {
        let text = self.bytes(name).and_then(|bytes| std::str::from_utf8(bytes).ok());
        match text.map(str::trim) {
            None | Some("") => Err(format!("the server did not tell its `{name}`")),
            Some(line) => Ok(line),
        }
    }

    /// The exit status of the command that wrote section `name`; None: it was not run.
    pub(crate) fn status(&self, name: &str) -> Option<u32> {
        self.text(&format!("{name}.rc")).trim().parse().ok()
    }

    /// What that command wrote to standard error.
    pub(crate) fn errors(&self, name: &str) -> String {
        self.text(&format!("{name}.err"))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

//! The commit that a desired state comes from, and one that is not taken.

use serde::{Deserialize, Serialize};

/// A commit, as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its full hash.
    pub commit: String,
    /// Name and address of its author.
    pub author: String,
    /// When it was committed, ISO 8601.
    pub time: String,
    /// First line of its message.
    pub subject: String,
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = self.commit.get(..12).unwrap_or(&self.commit);
        write!(f, "commit {short} \"{}\" by {}, {}", self.subject, self.author, self.time)
    }
}

/// A desired state that is not taken; the one before stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedSource {
    /// File or folder, as it was named.
    pub file: String,
    /// The commit, where it is known.
    pub revision: Option<Revision>,
    /// Why, for people: with lines of the file, in which what may be a secret is starred out.
    pub report: String,
    /// It could not be read: whether there is a newer one at all is not known.
    pub unread: bool,
}

impl RefusedSource {
    /// The first that is wrong, in a line, without the commit that is named beside it.
    pub fn reason(&self) -> &str {
        let lines = || self.report.lines();
        let marked = |mark: &str| lines().find_map(|line| line.strip_prefix(mark));
        let first = marked("error: ").or_else(|| marked("Error: ")).or_else(|| lines().next());
        let first = first.unwrap_or_default();
        let bare = first.strip_prefix("commit ").and_then(|rest| rest.split_once(" is refused: "));
        bare.filter(|(commit, _)| !commit.contains(' ')).map_or(first, |(_, reason)| reason)
    }
}

impl std::fmt::Display for RefusedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{revision} is not taken:\n{}", self.report),
            None => f.write_str(&self.report),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_one_line_and_names_no_commit_twice() {
        let reason = |report: &str| {
            let (file, report) = ("c.yaml".to_owned(), report.to_owned());
            RefusedSource { file, revision: None, report, unread: false }.reason().to_owned()
        };
        assert_eq!(
            reason("note: x\nerror: unknown field `a`\n --> c.yaml:1:1\n"),
            "unknown field `a`"
        );
        assert_eq!(
            reason("Error: commit 600d600d600d is refused: it is not signed\n"),
            "it is not signed"
        );
        let other = "commit and push is refused: yes";
        assert_eq!(reason(&format!("Error: {other}\n")), other);
        assert_eq!(reason(""), "");
    }
}

//! `git+ssh://HOST/PATH#branch:path`: where the desired state is, as it is typed.

use std::fmt;

/// A branch of a repository, and a file or folder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// What `git fetch` is given.
    pub(crate) url: String,
    /// `ssh`, `https` or `file`.
    pub(crate) scheme: &'static str,
    pub(crate) branch: String,
    pub(crate) path: String,
}

/// Why a text that begins with `git+` is no location.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadLocation {
    /// The transport.
    #[error("git is reached by git+ssh://, git+https:// or git+file:///, not by {0}")]
    Scheme(String),
    /// Nothing after `#`, or no `:` in it.
    #[error("it does not say which file of which branch: end it with #BRANCH:PATH")]
    NoPath,
    /// Characters or forms that no host or path has.
    #[error("the {part} `{value}` {fault}")]
    Part {
        /// Which part.
        part: &'static str,
        /// As it was given, control characters escaped.
        value: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A password or token in the URL would be seen in the list of processes.
    #[error("it holds a password; every user of this machine could read it")]
    Password,
}

impl Location {
    /// Reads a location; `None` for anything that does not begin with `git+`, which is a path.
    pub fn parse(text: &str) -> Option<Result<Self, BadLocation>> {
        text.strip_prefix("git+").map(read)
    }

    /// Scheme and host of the URL, with the user if one is said.
    pub(crate) fn host(&self) -> &str {
        let from = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url[from..].find('/').map_or(self.url.len(), |at| from + at);
        &self.url[..end]
    }

    /// The file or folder in the repository.
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn read(text: &str) -> Result<Location, BadLocation> {
    let (scheme, rest) = text.split_once("://").unwrap_or((text, ""));
    let scheme = match scheme {
        "ssh" => "ssh",
        "https" => "https",
        "file" => "file",
        other => return Err(BadLocation::Scheme(printable(other))),
    };
    let (repository, fragment) = rest.split_once('#').ok_or(BadLocation::NoPath)?;
    let (branch, path) = fragment.split_once(':').ok_or(BadLocation::NoPath)?;
    let (authority, repository_path) = match repository.find('/') {
        Some(slash) => repository.split_at(slash),
        None => (repository, ""),
    };
    if let Some((user, _)) = authority.rsplit_once('@')
        && user.contains(':')
    {
        return Err(BadLocation::Password);
    }
    check("host", authority, host_fault(scheme, authority))?;
    check("repository", repository_path, repository_fault(repository_path))?;
    check("branch", branch, branch_fault(branch))?;
    let path = path.trim_end_matches('/');
    check("path", path, path_fault(path))?;
    Ok(Location {
        url: format!("{scheme}://{repository}"),
        scheme,
        branch: branch.to_owned(),
        path: path.to_owned(),
    })
}

fn check(part: &'static str, value: &str, fault: Option<&'static str>) -> Result<(), BadLocation> {
    fault.map_or(Ok(()), |fault| Err(BadLocation::Part { part, value: printable(value), fault }))
}

fn printable(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

fn host_fault(scheme: &str, authority: &str) -> Option<&'static str> {
    if scheme == "file" {
        return (!authority.is_empty()).then_some("must be empty: git+file:/// and a path");
    }
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let odd = |c: char| !c.is_ascii_alphanumeric() && !".-_:[]@%+".contains(c);
    if host.is_empty() || authority.contains(odd) {
        return Some("is no host, with a user before and a port behind it if need be");
    }
    // ssh would take it for an option.
    (host.starts_with('-') || authority.starts_with('-')).then_some("begins with a dash")
}

fn repository_fault(path: &str) -> Option<&'static str> {
    if path.len() < 2 {
        return Some("is empty");
    }
    path.contains(|c: char| c.is_whitespace() || c.is_control() || c == '?')
        .then_some("holds a blank, a control character or a question mark")
}

/// The rules of git-check-ref-format, a little tighter.
fn branch_fault(branch: &str) -> Option<&'static str> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\{}".contains(c);
    let bad = branch.is_empty()
        || branch.len() > 200
        || branch.starts_with(['-', '/', '.', '+'])
        || branch.ends_with(['/', '.'])
        || branch.contains("..")
        || branch.contains("//")
        || branch.contains("/.")
        || branch.split('/').any(|word| word.to_ascii_lowercase().ends_with(".lock"))
        || branch == "@"
        || branch.contains(odd);
    bad.then_some("is no name of a branch")
}

fn path_fault(path: &str) -> Option<&'static str> {
    let bad = path.is_empty()
        || path.len() > 1000
        || path.contains(char::is_control)
        || path.split('/').any(|word| matches!(word, "" | "." | ".."));
    bad.then_some("is no path inside a repository")
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "git+{}#{}:{}", self.url, self.branch, self.path)
    }
}

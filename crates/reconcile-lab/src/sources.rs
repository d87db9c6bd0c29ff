//! Finds the Debian mirror in the machine's own apt sources.
//!
//! Must not name a mirror of its own: the machine's administrator chose one.

use std::path::Path;

use crate::error::{LabError, Result, at};
use crate::recipe::SUITE;

/// One `deb` entry of a sources file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    uri: String,
    suite: String,
    components: Vec<String>,
}

/// The mirror's address, from `/etc/apt`.
pub(crate) fn mirror() -> Result<String> {
    let etc = Path::new("/etc/apt");
    let mut sources = Vec::new();
    let main = etc.join("sources.list");
    if main.exists() {
        sources.extend(one_line(&read(&main)?));
    }
    let parts = etc.join("sources.list.d");
    if parts.exists() {
        let mut files = std::fs::read_dir(&parts)
            .map_err(at("read", &parts))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(at("read", &parts))?;
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => sources.extend(one_line(&read(&file)?)),
                Some("sources") => sources.extend(deb822(&read(&file)?)),
                _ => {}
            }
        }
    }
    choose(&sources).ok_or_else(|| LabError::Lacking {
        what: "no Debian mirror in /etc/apt, and the lab's servers are Debian".to_owned(),
        commands: vec![format!(
            "echo 'deb MIRROR {SUITE} main' > /etc/apt/sources.list.d/lab.list   # MIRROR: yours"
        )],
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(at("read", path))
}

/// The suite's own archive where it is listed, else that of another Debian release, which holds
/// the same suites.
fn choose(sources: &[Source]) -> Option<String> {
    let releases =
        [SUITE, "trixie", "bullseye", "forky", "sid", "stable", "oldstable", "testing", "unstable"];
    releases.iter().find_map(|release| {
        sources
            .iter()
            .find(|source| {
                source.suite == *release && source.components.iter().any(|name| name == "main")
            })
            .map(|source| source.uri.clone())
    })
}

/// Parses `deb [options] uri suite component…` lines (sources.list(5)).
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim();
            let rest = line.strip_prefix("deb")?;
            if !rest.starts_with([' ', '\t']) {
                return None;
            }
            let rest = rest.trim_start();
            let rest = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => rest,
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            Some(Source { uri: words.next()?, suite: words.next()?, components: words.collect() })
        })
        .collect()
}

/// Parses deb822 stanzas (sources.list(5)): fields, continuation lines, comments, `Enabled: no`.
fn deb822(text: &str) -> Vec<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(stanza).collect()
}

fn stanza(lines: &[&str]) -> Vec<Source> {
    let field = |name: &str| -> Vec<String> {
        let mut values = Vec::new();
        let mut within = false;
        for line in lines {
            if line.starts_with([' ', '\t']) {
                if within {
                    values.extend(line.split_whitespace().map(str::to_owned));
                }
            } else if let Some((key, value)) = line.split_once(':') {
                within = key.trim().eq_ignore_ascii_case(name);
                if within {
                    values.extend(value.split_whitespace().map(str::to_owned));
                }
            }
        }
        values
    };
    let off = field("Enabled").first().is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if off || !field("Types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let components = field("Components");
    let suites = field("Suites");
    field("URIs")
        .into_iter()
        .flat_map(|uri| {
            let components = components.clone();
            suites.clone().into_iter().map(move |suite| Source {
                uri: uri.clone(),
                suite,
                components: components.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_entries_with_options_and_comments() {
        let text = "# deb http://old.invalid/debian bookworm main\n\
                    deb-src http://m.invalid/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.invalid/debian bookworm main contrib # x\n";
        assert_eq!(
            one_line(text),
            [Source {
                uri: "http://m.invalid/debian".to_owned(),
                suite: "bookworm".to_owned(),
                components: vec!["main".to_owned(), "contrib".to_owned()],
            }]
        );
    }

    #[test]
    fn deb822_stanzas_with_continuations_and_disabled_ones() {
        let text = "Types: deb\n# a snapshot\nURIs: http://m.invalid/debian\n\
                    Suites: bookworm\n bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
                    Types: deb\nURIs: http://off.invalid/debian\nSuites: bookworm\n\
                    Components: main\nEnabled: no\n\n\
                    Types: deb\nURIs: http://other.invalid\nSuites: nodistro\nComponents: main\n";
        let sources = deb822(text);
        let suites: Vec<_> = sources.iter().map(|source| source.suite.as_str()).collect();
        assert_eq!(suites, ["bookworm", "bookworm-updates", "nodistro"]);
        assert_eq!(choose(&sources).as_deref(), Some("http://m.invalid/debian"));
    }

    #[test]
    fn another_release_serves_when_the_suite_is_not_listed() {
        let sources = one_line(
            "deb http://sec.invalid/s trixie-security main\ndeb http://m.invalid/debian trixie main\n",
        );
        assert_eq!(choose(&sources).as_deref(), Some("http://m.invalid/debian"));
        assert_eq!(choose(&one_line("deb http://u.invalid jammy main")), None);
    }
}

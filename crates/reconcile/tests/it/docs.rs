//! The documentation is true where a machine can tell: the reference is the schema's, links lead
//! somewhere, and every command and option that a page names exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use super::{reconcile, root, stdout};

/// Every Markdown file of the project that people read.
fn pages() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().join("docs")];
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"]
        .into_iter()
        .map(|name| root().join(name))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("text"))).collect()
}

/// GitHub's name of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn the_reference_is_the_schemas() {
    let output = reconcile(&root(), &["schema", "--markdown"]);
    let committed = fs::read_to_string(root().join("docs/reference/file.md"));
    assert_eq!(stdout(&output), committed.unwrap_or_default(), "`cargo xtask docs` writes it anew");
}

#[test]
fn every_page_is_on_the_first_one() {
    let docs = root().join("docs");
    let first = fs::read_to_string(docs.join("README.md")).expect("text");
    for (path, _) in pages() {
        let name = path.file_name().expect("a file").to_string_lossy();
        if path.parent() == Some(docs.as_path()) && name != "README.md" {
            assert!(first.contains(&format!("]({name}")), "docs/README.md does not list {name}");
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut seen = 0;
    for (page, text) in pages() {
        let folder = page.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { folder.join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !part.is_empty() {
                let there = anchors(&fs::read_to_string(&target).expect("text"));
                assert!(there.contains(part), "{}: {link}: no such heading", page.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} links were found");
}

/// The lists that `--help` gives: what follows a heading, up to an empty line.
fn listed(help: &str, heading: &str) -> BTreeSet<String> {
    let lines = help.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next()
    });
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn options(help: &str) -> BTreeSet<String> {
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

/// Commands with their options; those of commands within are joined with a space.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let help = |words: &[&str]| stdout(&reconcile(&root(), &[words, &["--help"]].concat()));
    let top = help(&[]);
    let mut commands = BTreeMap::from([(String::new(), options(&top))]);
    for name in listed(&top, "Commands:") {
        let own = help(&[&name]);
        for inner in listed(&own, "Commands:") {
            commands.insert(format!("{name} {inner}"), options(&help(&[&name, &inner])));
        }
        commands.insert(name, options(&own));
    }
    commands
}

/// What follows `reconcile ` in code, up to the end of the command.
fn invocations(text: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        // In a fence the whole line is code, else what stands between backticks.
        let code: Vec<&str> =
            if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in code {
            let piece = piece.split(" #").next().unwrap_or_default();
            let start = piece.trim_start().trim_start_matches("$ ");
            let start = start.strip_prefix("sudo ").unwrap_or(start);
            if let Some(rest) = start.strip_prefix("reconcile ") {
                let end = rest.find(['|', ';', '>', '&', '(']).unwrap_or(rest.len());
                found.push(rest[..end].split_whitespace().collect());
            }
        }
    }
    found
}

#[test]
fn every_command_that_a_page_names_exists() {
    let commands = commands();
    let mut seen = 0;
    for (page, text) in pages() {
        for words in invocations(&text) {
            let named: Vec<&str> = words
                .iter()
                .copied()
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
                .filter(|word| !word.starts_with('-'))
                .take(2)
                .collect();
            let full = named.join(" ");
            let command = if commands.contains_key(&full) {
                full
            } else {
                named.first().copied().unwrap_or_default().to_owned()
            };
            let place = format!("{}: `reconcile {}`", page.display(), words.join(" "));
            let options = commands.get(&command).unwrap_or_else(|| panic!("{place}: no {command}"));
            // What follows a bare `--` is another program's.
            let own = words.iter().take_while(|word| **word != "--");
            for word in own.filter(|word| word.starts_with("--")) {
                let option = word.split('=').next().unwrap_or_default();
                assert!(options.contains(option), "{place}: no option {option}");
            }
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} commands were found");
    let all: String = pages().into_iter().map(|(_, text)| text).collect();
    for command in commands.keys().filter(|name| !name.is_empty()) {
        assert!(all.contains(&format!("reconcile {command}")), "no page names {command}");
    }
}

/// Texts between double quotes on the lines of a source file that are no comments.
fn quoted(source: &str) -> Vec<String> {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_condition_and_kind_of_hold_has_its_place_on_the_page() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("text");
    let page = read("docs/conditions-and-holds.md");
    let holds = read("crates/reconcile-core/src/plan/mod.rs");
    let (_, holds) = holds.split_once("pub enum HoldReason").expect("the holds");
    let (holds, _) = holds.split_once("\n}").expect("their end");
    let holds: Vec<_> = quoted(holds)
        .iter()
        .map(|text| text.split([':', '{']).next().unwrap_or_default().trim().to_owned())
        .collect();
    assert!(holds.len() > 8, "{holds:?}");
    for hold in holds {
        assert!(page.contains(&format!("\n### {hold}\n")), "no heading `### {hold}`");
    }
    let word = |text: &String| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.len() > 3
            && text.chars().all(|c| c.is_ascii_alphabetic())
    };
    let conditions: BTreeSet<_> =
        quoted(&read("crates/reconcile-core/src/status.rs")).into_iter().filter(word).collect();
    assert!(conditions.len() > 18, "{conditions:?}");
    for condition in conditions {
        assert!(page.contains(&format!("`{condition}`")), "nothing is said about {condition}");
    }
}

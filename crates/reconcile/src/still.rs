//! Whether a broken file still is of the cluster that the path was of: its lines are looked through, for
//! it need not be YAML. What is not told beyond doubt is not told.

use std::collections::BTreeSet;

use reconcile_spec::ValidSpec;

/// The clusters that broken files say they are of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    names: BTreeSet<String>,
    /// Each document says it; never so where there is none.
    wholly: bool,
}

impl Told {
    /// Whether `kept` may be gone on with: the files name the same, or, where they do not say it, a person
    /// did.
    pub(crate) fn still(&self, kept: &[ValidSpec], asked: Option<&str>) -> bool {
        let kept: BTreeSet<&str> = kept.iter().map(|spec| spec.name.as_str()).collect();
        match asked {
            None => self.wholly && self.names.iter().map(String::as_str).eq(kept),
            Some(name) => kept.contains(name) && (self.names.contains(name) || !self.wholly),
        }
    }
}

/// What files say by `metadata: { name: … }`.
pub(crate) fn told(files: &[(String, String)]) -> Told {
    let mut told = Told { names: BTreeSet::new(), wholly: !files.is_empty() };
    for (_, text) in files {
        let mut some = false;
        for document in documents(text) {
            some = true;
            match name(&document) {
                Some(name) => drop(told.names.insert(name)),
                None => told.wholly = false,
            }
        }
        told.wholly &= some;
    }
    told
}

/// The lines of each document that say anything.
fn documents(text: &str) -> Vec<Vec<&str>> {
    let says = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines: Vec<&str> = text.lines().filter(says).map(str::trim_end).collect();
    let ends = |line: &&str| *line == "---" || line.starts_with("--- ");
    lines.split(ends).filter(|part| !part.is_empty()).map(<[&str]>::to_vec).collect()
}

/// The one name of a document.
fn name(lines: &[&str]) -> Option<String> {
    let mut heads = lines.iter().enumerate().filter(|(_, line)| line.starts_with("metadata"));
    let (at, head) = heads.next()?;
    let value = value_of(head, "metadata")?;
    if heads.next().is_some() {
        return None;
    }
    if let Some(inside) = value.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        // One field, and nothing that could be another.
        return word(value_of(inside.trim(), "name")?);
    }
    if !value.is_empty() {
        return None;
    }
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let block: Vec<&str> = lines[at + 1..].iter().copied().take_while(|l| indent(l) > 0).collect();
    let depth = block.first().map(|line| indent(line))?;
    let mut names = block
        .iter()
        .filter(|line| indent(line) == depth)
        .filter_map(|line| value_of(line.trim_start(), "name"));
    let name = word(names.next()?)?;
    names.next().is_none().then_some(name)
}

/// What a line says of a field, without its comment.
fn value_of<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    let value = line.strip_prefix(field)?.strip_prefix(':')?;
    if !(value.is_empty() || value.starts_with(' ')) {
        return None;
    }
    let end = value.find(" #").unwrap_or(value.len());
    Some(value[..end].trim())
}

/// A name, with quotes or without.
fn word(text: &str) -> Option<String> {
    let quoted = |sign| text.strip_prefix(sign)?.strip_suffix(sign);
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(text);
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!text.is_empty() && text.chars().all(part)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Told {
        told(&[("cluster.yaml".to_owned(), text.to_owned())])
    }

    fn names(told: &Told) -> Vec<&str> {
        told.names.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_broken_file_says_its_name_or_is_not_believed() {
        let head = "apiVersion: x\nkind: PostgresClutter\n";
        let good = [
            "metadata:\n  name: main\nspec: [",
            "metadata:   # ours\n\n  # one\n    labels:\n      name: other\n    name: \"main\" # it\nspec:\n",
            "metadata: { name: main }\nspec:\n  roles:\n    - name: other\n",
            "metadata:\r\n  name: 'main'\r\nspec: }{",
        ];
        for text in good {
            let told = of(&format!("{head}{text}"));
            assert_eq!((names(&told), told.wholly), (vec!["main"], true), "{text}");
        }
        let doubtful = [
            "",
            "spec:\n  name: main\n",
            "metadata\n  name: main\n",
            "metadata:\nname: main\n",
            " metadata:\n  name: main\n",
            "metadata:\n  name: {{ cluster }}\n",
            "metadata:\n  name: main\n  name: staging\n",
            "metadata:\n  name: main\nmetadata:\n  name: staging\n",
            "metadata: { name: main, name: staging }\n",
            "metadata:\n  labels:\n    name: main\n",
            "metadata:\n  name:\n    main\n",
            "metadata:\n  name: main\n---\nspec: {}\n",
        ];
        for text in doubtful {
            assert!(!of(text).wholly, "{text}");
        }
        assert!(!told(&[]).wholly);
        let two = of("metadata:\n  name: main\n---\nmetadata:\n  name: staging\n");
        assert_eq!((names(&two), two.wholly), (vec!["main", "staging"], true));
    }
}

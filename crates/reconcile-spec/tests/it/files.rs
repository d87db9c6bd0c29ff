//! Every file under `tests/spec/` and `examples/` against its golden. `UPDATE_GOLDENS=1` rewrites.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use reconcile_spec::{Severity, Source, json_schema, load, report, to_yaml};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect();
    found.sort();
    found
}

/// Compares with the golden, or writes it; tells of a difference.
fn golden(path: &Path, actual: &str) -> Option<String> {
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(path, actual).unwrap();
        return None;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    (expected != actual).then(|| {
        format!("{} differs.\n--- expected\n{expected}\n--- actual\n{actual}", path.display())
    })
}

fn assert_no(differences: &[String]) {
    assert!(differences.is_empty(), "{}\nUPDATE_GOLDENS=1 rewrites", differences.join("\n"));
}

/// Goldens without a file that they belong to.
fn forgotten(folder: &str, ending: &str) -> Vec<String> {
    let stems: BTreeSet<_> =
        files(folder, "yaml").iter().map(|path| path.file_stem().unwrap().to_owned()).collect();
    files(folder, ending)
        .iter()
        .filter(|path| !stems.contains(path.file_stem().unwrap()))
        .map(|path| format!("{} belongs to no file", path.display()))
        .collect()
}

#[test]
fn invalid_files_tell_what_is_wrong() {
    let folder = "tests/spec/invalid";
    let mut differences = forgotten(folder, "txt");
    let sources = files(folder, "yaml");
    assert!(sources.len() >= 60, "only {} broken files", sources.len());
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        match load(name, &text) {
            Ok(_) => differences.push(format!("{name} was accepted")),
            Err(faults) => {
                assert!(faults.count() > 0, "{name}: refused without an error");
                assert_eq!(load(name, &text).unwrap_err(), faults, "{name}: not deterministic");
                differences.extend(golden(&path.with_extension("txt"), &faults.to_string()));
            }
        }
    }
    assert_no(&differences);
}

#[test]
fn valid_files_get_their_defaults() {
    let folder = "tests/spec/valid";
    let mut differences = forgotten(folder, "golden");
    let sources = files(folder, "yaml");
    assert!(sources.len() >= 6, "only {} valid files", sources.len());
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let loaded = load(name, &text).unwrap_or_else(|faults| panic!("{faults}"));
        let mut shown =
            loaded.clusters.iter().map(|c| to_yaml(c)).collect::<Vec<_>>().join("---\n");
        if !loaded.warnings.is_empty() {
            shown.push_str("=== warnings\n");
            shown.push_str(&report(&loaded.warnings, Source { name, text: &text }));
        }
        differences.extend(golden(&path.with_extension("golden"), &shown));
    }
    assert_no(&differences);
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    for path in files("tests/spec/valid", "yaml").iter().chain(&files("examples", "yaml")) {
        let text = fs::read_to_string(path).unwrap();
        let first =
            load("first", &text).unwrap_or_else(|faults| panic!("{}\n{faults}", path.display()));
        let shown = first.clusters.iter().map(|c| to_yaml(c)).collect::<Vec<_>>().join("---\n");
        let second = load("second", &shown).unwrap_or_else(|faults| panic!("{shown}\n{faults}"));
        assert_eq!(first.clusters, second.clusters, "{}", path.display());
        let again = second.clusters.iter().map(|c| to_yaml(c)).collect::<Vec<_>>().join("---\n");
        assert_eq!(shown, again, "{}", path.display());
    }
}

#[test]
fn examples_are_valid_and_name_the_schema() {
    let examples = files("examples", "yaml");
    for wanted in [
        "three-servers.yaml",
        "full.yaml",
        "three-servers-and-worker.yaml",
        "existing-cluster.yaml",
    ] {
        assert!(examples.iter().any(|path| path.ends_with(wanted)), "{wanted} is missing");
    }
    for path in examples {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        let loaded = load(&name, &text).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(
            loaded.warnings.iter().all(|fault| fault.severity == Severity::Warning),
            "{name}: an error among warnings"
        );
        assert!(
            text.contains("# yaml-language-server: $schema="),
            "{name} does not name the schema"
        );
    }
}

#[test]
fn committed_schema_is_the_generated_one() {
    let path = root().join("manifests/reconcile.schema.json");
    assert_no(&golden(&path, &json_schema()).into_iter().collect::<Vec<_>>());
}

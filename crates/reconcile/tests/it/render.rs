//! What `render` writes is committed: `stacks/` and `manifests/` show what reconcile makes of
//! examples/three-servers.yaml, and cannot go stale.

use std::{collections::BTreeMap, fs, path::Path};

use super::{reconcile, root, stdout};

fn tree(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{prefix}{}", path.file_name().expect("a name").to_string_lossy());
        if path.is_dir() {
            tree(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
}

#[test]
fn the_committed_stack_and_manifests_are_what_is_rendered() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let rendered =
        reconcile(&root(), &["render", "-f", "examples/three-servers.yaml", "--dir", out]);
    assert!(rendered.status.success());
    let mut files = BTreeMap::new();
    tree(folder.path(), "", &mut files);
    let mut wanted = BTreeMap::new();
    for (path, text) in files {
        // One server stands for all; content hashes in names would rename files at every change.
        if let Some(rest) = path.strip_prefix("main/node1/") {
            wanted.insert(format!("manifests/node1/{rest}"), text);
        } else if path == "main/stack/compose.yaml" {
            wanted.insert("stacks/db-utils.yaml".to_owned(), text);
        }
    }
    assert!(wanted.len() >= 6, "{:?}", wanted.keys());
    for (path, text) in wanted {
        let path = root().join(path);
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(&path, &text).expect("written");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, committed, "{}: UPDATE_GOLDENS=1 writes it anew", path.display());
    }
}

#[test]
fn render_shows_placeholders_for_secrets_and_all_defaults() {
    let text = stdout(&reconcile(&root(), &["render", "-f", "examples/three-servers.yaml"]));
    assert!(text.contains("<secret:postgres-replication>"), "{text}");
    let spec =
        stdout(&reconcile(&root(), &["render", "--spec", "-f", "examples/three-servers.yaml"]));
    assert!(spec.contains("defaultPoolSize: 25") && spec.contains("stack: db-utils"), "{spec}");
}

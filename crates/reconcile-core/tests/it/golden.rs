//! Goldens: files below `tests/` that hold what is expected. `UPDATE_GOLDENS=1` writes them anew.

use std::{fs, path::PathBuf};

/// Compares text with the golden at this path below the workspace's `tests/`.
pub(crate) fn golden(path: &str, actual: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests").join(path);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, actual).unwrap();
        return;
    }
    let expected = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{path}: {error}; UPDATE_GOLDENS=1 writes it"));
    if expected != actual {
        let diff = similar::TextDiff::from_lines(&expected, actual);
        let diff = diff.unified_diff().header("golden", "now").to_string();
        panic!("{path} differs; UPDATE_GOLDENS=1 writes it anew\n{diff}");
    }
}

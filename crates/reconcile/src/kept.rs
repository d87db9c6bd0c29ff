//! The text of a file or folder that was taken last, kept in the operator's state folder: where the
//! file is broken, whoever looks at the cluster or keeps it goes on with it. For Git its mirror does
//! the same.
//!
//! It holds what the files held and nothing else, is readable by its owner only, and there is one
//! for each path. Of a path that is something else each time, such as a pipe, nothing is kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use reconcile_core::model::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, state};

/// What was taken of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The path, as it is on this machine whoever names it from where.
    source: PathBuf,
    /// The folder where what the files name was looked for; a copy that does not know it is none.
    #[serde(default)]
    pub(crate) base: PathBuf,
    /// When it was taken, in seconds since 1970.
    pub(crate) at: u64,
    /// Name and text.
    pub(crate) files: Vec<(String, String)>,
}

/// A path as it is known by: its folder without links, so that it is the same from everywhere; what
/// is called so in it may be a link that is led to another file with each change.
fn known(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok(fs::canonicalize(folder)?.join(name)),
        _ => fs::canonicalize(&path),
    }
}

/// Where what is in the file or folder is looked for; None of what is neither, or is another thing for
/// each process.
fn base(path: &Path, source: &Path) -> Option<PathBuf> {
    if ["/dev", "/proc"].iter().any(|folder| source.starts_with(folder)) {
        return None;
    }
    let found = fs::metadata(path).ok()?;
    if found.is_dir() {
        return Some(source.to_owned());
    }
    source.parent().filter(|_| found.is_file()).map(Path::to_owned)
}

fn file(folder: &Path, source: &Path) -> PathBuf {
    let key = sha256_hex(source.as_os_str().as_encoded_bytes());
    folder.join(format!("{}.json", &key[..16]))
}

/// Notes in `folder` what is in force of a path. Killed anywhere, it is as it was or as it is to be.
pub(crate) fn keep(folder: &Path, path: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let fail = |error: &std::io::Error| {
        let attempt = format!("note in {} what is in force", folder.display());
        Failure::from_error(attempt, error)
    };
    let source = known(path).map_err(|error| fail(&error))?;
    let Some(base) = base(path, &source) else { return Ok(()) };
    state::make(folder)?;
    // Two operators of two clusters may be of one file.
    let lock = File::create(folder.join("lock")).map_err(|error| fail(&error))?;
    lock.lock().map_err(|error| fail(&error))?;
    let place = file(folder, &source);
    // What cannot be read is written anew.
    if let Ok(Some(before)) = read(&place, &source)
        && (&before.files[..], &before.base) == (files, &base)
    {
        return Ok(());
    }
    let kept = Kept { source, base, at: state::now(), files: files.to_vec() };
    let text = serde_json::to_string(&kept)
        .map_err(|error| Failure::from_error("note what is in force", &error))?;
    let write = || {
        let new = folder.join("new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &place)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| fail(&error))
}

/// What was taken of a path last, if anything was.
pub(crate) fn last(folder: &Path, path: &Path) -> Result<Option<Kept>, Failure> {
    let source = match known(path) {
        Ok(source) => source,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::from_error(format!("look for {}", path.display()), &error));
        }
    };
    read(&file(folder, &source), &source)
}

fn read(place: &Path, source: &Path) -> Result<Option<Kept>, Failure> {
    let attempt = || format!("read {}", place.display());
    let text = match fs::read(place) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::from_error(attempt(), &error)),
    };
    // Its cause may quote what is in it.
    let kept: Kept = serde_json::from_slice(&text)
        .map_err(|_| Failure::new(attempt()).caused_by("it is damaged"))?;
    let whole = kept.source == source && !kept.base.as_os_str().is_empty();
    Ok(whole.then_some(kept))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn texts(text: &str) -> Vec<(String, String)> {
        vec![("cluster.yaml".to_owned(), text.to_owned())]
    }

    #[test]
    fn what_was_taken_is_found_from_wherever_its_path_is_named() {
        let place = tempfile::tempdir().expect("a folder");
        let (state, work) = (place.path().join("state/_files"), place.path().join("files"));
        fs::create_dir(&work).expect("made");
        let path = work.join("cluster.yaml");
        assert_eq!(last(&state, &path).expect("read"), None);
        fs::write(&path, "one").expect("written");
        keep(&state, &path, &texts("one")).expect("kept");
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&work, &link).expect("linked");
        for other in ["files/cluster.yaml", "files/../files/./cluster.yaml", "link/cluster.yaml"] {
            let kept = last(&state, &place.path().join(other)).expect("read").expect("kept");
            assert_eq!(kept.files, texts("one"), "{other}");
        }
        assert_eq!(last(&state, &work.join("other.yaml")).expect("read"), None);
        assert_eq!(last(&state, &place.path().join("none/cluster.yaml")).expect("read"), None);
        let file = file(&state, &known(&path).expect("known"));
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_kill_in_the_middle_leaves_the_one_before_and_the_next_goes_on() {
        let state = tempfile::tempdir().expect("a folder");
        let path = state.path().join("cluster.yaml");
        fs::write(&path, "one").expect("written");
        keep(state.path(), &path, &texts("one")).expect("kept");
        let first = last(state.path(), &path).expect("read").expect("kept");
        fs::write(state.path().join("new"), "{\"source\": \"/and then it was ki").expect("cut off");
        assert_eq!(last(state.path(), &path).expect("read").as_ref(), Some(&first));
        keep(state.path(), &path, &texts("one")).expect("kept");
        let again = last(state.path(), &path).expect("read");
        assert_eq!(again.as_ref(), Some(&first), "it is in force since then");
        keep(state.path(), &path, &texts("two")).expect("kept");
        assert_eq!(last(state.path(), &path).expect("read").expect("kept").files, texts("two"));
    }

    #[test]
    fn a_damaged_one_is_an_error_that_quotes_nothing_and_is_written_anew() {
        let state = tempfile::tempdir().expect("a folder");
        let path = state.path().join("cluster.yaml");
        fs::write(&path, "one").expect("written");
        keep(state.path(), &path, &texts("one")).expect("kept");
        let file = file(state.path(), &known(&path).expect("known"));
        fs::write(&file, "{\"source\": hunter2hunter2").expect("damaged");
        let failure = last(state.path(), &path).expect_err("damaged").text();
        assert!(failure.contains("damaged") && !failure.contains("hunter2"), "{failure}");
        keep(state.path(), &path, &texts("one")).expect("kept");
        assert_eq!(last(state.path(), &path).expect("read").expect("kept").files, texts("one"));
    }

    #[test]
    fn of_what_is_another_thing_each_time_nothing_is_kept() {
        let place = tempfile::tempdir().expect("a folder");
        let state = place.path().join("state");
        let socket = place.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).expect("made");
        let gone = place.path().join("gone.yaml");
        for path in ["/dev/stdin", "/proc/self/fd/0", "/dev/null"].map(Path::new) {
            keep(&state, path, &texts("one")).expect("nothing to do");
            assert_eq!(last(&state, path).expect("read"), None, "{}", path.display());
        }
        for path in [socket, gone] {
            keep(&state, &path, &texts("one")).expect("nothing to do");
            assert_eq!(last(&state, &path).expect("read"), None, "{}", path.display());
        }
        // Where a file's and a folder's secrets are looked for is kept with it.
        let inside = place.path().join("one.yaml");
        fs::write(&inside, "one").expect("written");
        for path in [inside.as_path(), place.path()] {
            keep(&state, path, &texts("one")).expect("kept");
            let kept = last(&state, path).expect("read").expect("kept");
            assert_eq!(kept.base, fs::canonicalize(place.path()).expect("there"));
        }
    }
}

//! Where what a desired-state file names is looked for: on this machine, and, where the file comes
//! from Git, in the same commit.

use std::path::{Path, PathBuf};

use reconcile_core::model::Revision;
use reconcile_git::Mirror;

use crate::{failure::Failure, source::unread};

/// The name of the systemd credential with the age identities.
const CREDENTIAL: &str = "age-identity";

/// What names in a desired-state file start from.
#[derive(Clone)]
pub(crate) struct Base {
    /// The folder of this machine that relative paths start from.
    pub(crate) folder: PathBuf,
    /// The commit that the file is of.
    commit: Option<Commit>,
    /// The file of age identities. It is never named by the desired state.
    identity: Option<PathBuf>,
}

#[derive(Clone)]
struct Commit {
    mirror: Box<Mirror>,
    revision: Revision,
    /// The folder in the repository that the file is in.
    folder: String,
}

impl Base {
    /// For a file of this machine.
    pub(crate) fn local(folder: PathBuf) -> Self {
        Self { folder, commit: None, identity: None }
    }

    /// For a file of a commit. Nothing is checked out, so what is not in the commit starts at the
    /// current folder.
    pub(crate) fn committed(mirror: &Mirror, revision: &Revision, file: &str) -> Self {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let (mirror, revision) = (Box::new(mirror.clone()), revision.clone());
        let commit = Some(Commit { mirror, revision, folder });
        Self { folder: PathBuf::from("."), commit, identity: None }
    }

    /// With the identities that were named on the command line, if any.
    pub(crate) fn with_identity(self, identity: Option<&Path>) -> Self {
        Self { identity: identity.map(Path::to_owned), ..self }
    }

    /// A path of this machine: `~/` is the home folder, anything relative starts at the file's
    /// folder.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        if let (Some(rest), Ok(home)) = (path.strip_prefix("~/"), std::env::var("HOME")) {
            return Path::new(&home).join(rest);
        }
        self.folder.join(path)
    }

    /// A file of the same commit, and its name for people. A relative path starts at the folder
    /// that the desired-state file is in.
    pub(crate) fn read_committed(&self, path: &str) -> Result<Option<(String, Vec<u8>)>, Failure> {
        let Some(Commit { mirror, revision, folder }) = &self.commit else { return Ok(None) };
        let Some(path) = inside(folder, path) else { return Ok(None) };
        let file = mirror.file(revision, &path).map_err(|error| unread(&error))?;
        let short = revision.commit.get(..12).unwrap_or(&revision.commit);
        Ok(file.map(|bytes| (format!("{path} of commit {short}"), bytes)))
    }

    /// The file of age identities, and whether systemd guards it instead of its mode.
    pub(crate) fn identity(&self) -> Option<(PathBuf, bool)> {
        if let Some(path) = &self.identity {
            return Some((path.clone(), false));
        }
        let credentials = PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?);
        let path = credentials.join(CREDENTIAL);
        path.exists().then_some((path, true))
    }
}

/// The path in a repository that a relative path means; none for what leads out of it.
fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with(['/', '~']) {
        return None;
    }
    let mut words: Vec<&str> = folder.split('/').filter(|word| !word.is_empty()).collect();
    for word in path.split('/') {
        match word {
            "" | "." => {}
            ".." => drop(words.pop()?),
            word => words.push(word),
        }
    }
    (!words.is_empty()).then(|| words.join("/"))
}

#[cfg(test)]
mod tests {
    use super::inside;

    #[test]
    fn a_path_stays_in_the_repository() {
        let found = |folder: &str, path: &str| inside(folder, path);
        assert_eq!(found("", "secrets.yaml").as_deref(), Some("secrets.yaml"));
        assert_eq!(found("prod/a", "./b/secrets.yaml").as_deref(), Some("prod/a/b/secrets.yaml"));
        assert_eq!(found("prod/a", "../secrets.yaml").as_deref(), Some("prod/secrets.yaml"));
        assert_eq!(found("prod", "../../etc/passwd"), None);
        assert_eq!(found("prod", "/etc/passwd"), None);
        assert_eq!(found("prod", "~/secrets.yaml"), None);
        assert_eq!(found("prod", ".."), None);
    }
}

//! Reading the desired-state file.

use std::path::{Path, PathBuf};

use reconcile_spec::{ValidSpec, load, report};

use crate::{cli::Cli, failure::Failure, output};

/// A file's clusters.
pub(crate) struct Source {
    /// The folder that relative paths in the file start from.
    pub(crate) base: PathBuf,
    /// The clusters asked for.
    pub(crate) clusters: Vec<ValidSpec>,
}

/// Reads and validates the file that `-f` names.
pub(crate) fn read(cli: &Cli) -> Result<Source, Failure> {
    let Some(path) = &cli.file else {
        return Err(Failure::usage("no desired-state file is named").hint(
            "name one with `-f FILE` or in RECONCILE_FILE; examples/ has some to start from",
        ));
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::from_error(format!("read {}", path.display()), &error))?;
    let name = path.display().to_string();
    let loaded = load(&name, &text).map_err(|faults| Failure::verbatim(faults.to_string()))?;
    if !loaded.warnings.is_empty() {
        let source = reconcile_spec::Source { name: &name, text: &text };
        output::note(report(&loaded.warnings, source).trim_end());
    }
    let clusters: Vec<_> = loaded
        .clusters
        .into_iter()
        .filter(|spec| cli.cluster.as_ref().is_none_or(|name| spec.name.as_str() == name))
        .collect();
    if clusters.is_empty() {
        let wanted = cli.cluster.as_deref().unwrap_or_default();
        return Err(Failure::usage(format!("{name} has no cluster named {wanted}")));
    }
    let base = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(Source { base: base.unwrap_or(Path::new(".")).to_owned(), clusters })
}

/// A path of the file: `~/` is the home folder, anything relative starts at the file's folder.
pub(crate) fn resolve(base: &Path, path: &str) -> PathBuf {
    if let (Some(rest), Ok(home)) = (path.strip_prefix("~/"), std::env::var("HOME")) {
        return Path::new(&home).join(rest);
    }
    base.join(path)
}

//! `reconcile adopt`: what was changed by hand in the cluster goes into the file, as a patch.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use reconcile_core::adopt::{adoption, patch};
use reconcile_engine::look;
use reconcile_spec::edit::set_parameters;

use super::converge::{prepare, unsafe_plan};
use crate::{
    cli::{AdoptArgs, Cli},
    failure::{Failure, Outcome},
    output, source,
};

/// Prints the patch, or writes the file.
pub(super) async fn run(cli: &Cli, arguments: &AdoptArgs) -> Result<Outcome, Failure> {
    let origin = source::origin(cli)?;
    let texts = origin.texts()?;
    let parsed = source::parse(cli, &texts)?;
    let [spec] = parsed.clusters.as_slice() else {
        return Err(Failure::usage("one cluster is adopted").hint("choose it with --cluster"));
    };
    let cluster = spec.name.as_str();
    if arguments.write && texts.revision.is_some() {
        return Err(Failure::usage("a Git source is not written to")
            .hint("without --write the patch is printed, for `git apply` in a working copy"));
    }
    let prepared = prepare(spec, &parsed.base)?;
    let pass =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    let adoption = adoption(&prepared.desired, &pass.observed);
    if let Some(reason) = adoption.unknown {
        return Err(Failure::new("what was changed by hand is not known").caused_by(reason));
    }
    for other in &adoption.others {
        output::note(&format!("not adopted: {other}"));
    }
    if adoption.parameters.is_empty() {
        output::note("no parameter was changed by hand");
        return Ok(Outcome::Done);
    }
    let holds =
        |text: &str| set_parameters(text, cluster, &std::collections::BTreeMap::new()).is_ok();
    let Some((name, before)) = texts.files.iter().find(|(_, text)| holds(text)) else {
        return Err(Failure::new(format!("no file has cluster {cluster}")));
    };
    let after = set_parameters(before, cluster, &adoption.parameters)
        .map_err(|error| Failure::from_error(format!("edit {name}"), &error))?;
    if after == *before {
        output::note("the file says so already; what differs is a default that it does not name");
        return Ok(Outcome::Held);
    }
    if arguments.write {
        write(Path::new(name), before, &after)?;
        let names: Vec<&str> = adoption.parameters.keys().map(String::as_str).collect();
        output::print(&format!("{name} now has {}\n", names.join(", ")))?;
    } else {
        // `git apply` takes names from the folder in which it is called.
        let here = std::env::current_dir().unwrap_or_default();
        let named = Path::new(name).strip_prefix(&here).unwrap_or(Path::new(name));
        output::print(&patch(&named.to_string_lossy(), before, &after))?;
    }
    Ok(Outcome::Done)
}

/// In one step, and not where somebody else has just written.
fn write(path: &Path, before: &str, after: &str) -> Result<(), Failure> {
    let fail =
        |error: &std::io::Error| Failure::from_error(format!("write {}", path.display()), error);
    // A link stays one.
    let path = fs::canonicalize(path).map_err(|error| fail(&error))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder).map_err(|error| fail(&error))?;
    new.write_all(after.as_bytes()).map_err(|error| fail(&error))?;
    let old = fs::metadata(&path).map_err(|error| fail(&error))?;
    let mode = fs::Permissions::from_mode(old.mode() & 0o7777);
    new.as_file().set_permissions(mode).map_err(|error| fail(&error))?;
    std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))
        .map_err(|error| fail(&error))?;
    new.as_file().sync_all().map_err(|error| fail(&error))?;
    if fs::read_to_string(&path).map_err(|error| fail(&error))? != before {
        return Err(Failure::new(format!("{} was changed meanwhile", path.display())));
    }
    new.persist(&path).map_err(|error| fail(&error.error))?;
    Ok(())
}

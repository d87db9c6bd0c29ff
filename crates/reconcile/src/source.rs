//! Reading the desired state: a file, a folder of files, or a commit of a Git repository.

use std::path::{Path, PathBuf};

use reconcile_core::{model::Revision, status::NotTaken, windows::written};
use reconcile_git::{Access, GitError, Location, Mirror, Policy, Snapshot};
use reconcile_sops::Form;
use reconcile_spec::{ValidSpec, load, report, valid::SecretsSource};

use crate::{
    base::Base,
    cli::Cli,
    failure::Failure,
    kept, output,
    secrets::in_clear,
    state,
    still::{Told, told},
};

/// Name below the state folder for mirrors; no cluster may be called so.
const MIRRORS: &str = "_git";
/// The same for what is in force of files and folders.
const KEPT: &str = "_files";

/// The clusters asked for.
pub(crate) struct Source {
    /// Where what the file names is looked for.
    pub(crate) base: Base,
    /// The clusters asked for.
    pub(crate) clusters: Vec<ValidSpec>,
    /// The commit that they come from.
    pub(crate) revision: Option<Revision>,
    /// Why they are not those of the file as it is, or of the newest commit.
    pub(crate) refused: Option<Refused>,
}

/// A newest text that does not serve, while the one before does.
pub(crate) struct Refused {
    /// Why, for people.
    pub(crate) report: String,
    /// The same in a line.
    reason: String,
    /// Whether there is a newer one at all is not known.
    unread: bool,
    /// When the file that is in force was taken.
    since: Option<u64>,
}

impl Refused {
    /// For the condition that says so.
    pub(crate) fn told(&self) -> NotTaken<'_> {
        NotTaken { reason: &self.reason, unread: self.unread }
    }

    /// Why an operator that begins with this only looks, where it does.
    pub(crate) fn only_looks(&self) -> Option<String> {
        self.since.map(only_looks)
    }

    /// A line that says what is in force, for whoever reads the report below it.
    pub(crate) fn title(&self) -> String {
        self.since.map_or_else(
            || {
                if self.unread {
                    "The branch cannot be read; whether there is a newer commit is not known"
                        .to_owned()
                } else {
                    "The newest commit is not in force".to_owned()
                }
            },
            |at| format!("The file is not taken; in force is what was taken of it {}", written(at)),
        )
    }
}

/// Why an operator only looks that begins with what was taken of a file at that time. Somebody may have
/// gone on with newer ones from another machine since, and an older one would undo that.
pub(crate) fn only_looks(since: u64) -> String {
    format!(
        "nothing is changed until the file is good: it was not when this operator began, and what was \
         taken of it {} may be far behind",
        written(since)
    )
}

/// Where the desired state is kept.
pub(crate) enum Origin {
    /// A file or folder, and where what is in force of it is kept, if a place is known.
    Path(PathBuf, Option<PathBuf>),
    /// A Git repository.
    Git(Box<Mirror>),
}

/// Text by name, as it was read and before anything is made of it.
#[derive(Clone)]
pub(crate) struct Texts {
    pub(crate) base: Base,
    pub(crate) files: Vec<(String, String)>,
    pub(crate) revision: Option<Revision>,
}

impl Texts {
    /// The texts of a commit.
    pub(crate) fn committed(mirror: &Mirror, snapshot: Snapshot) -> Self {
        let Snapshot { revision, files } = snapshot;
        let first = files.first().map_or("", |(path, _)| path);
        let base = Base::committed(mirror, &revision, first);
        Self { base, files, revision: Some(revision) }
    }

    /// Whether this is the file that was asked for, and not one of a folder.
    fn alone(&self) -> bool {
        self.files.len() == 1
    }
}

/// What `-f` names.
pub(crate) fn origin(cli: &Cli) -> Result<Origin, Failure> {
    let Some(path) = &cli.file else {
        return Err(Failure::usage("no desired-state file is named").hint(
            "name one with `-f FILE` or in RECONCILE_FILE; examples/ has some to start from",
        ));
    };
    let location = match path.to_str().and_then(Location::parse) {
        None if cli.git.allowed_signers.is_some() => {
            return Err(Failure::usage("`--allowed-signers` needs a Git source")
                .hint("such as -f git+ssh://HOST/REPOSITORY#main:cluster.yaml"));
        }
        None => {
            if let Some(hint) = path.to_str().and_then(as_git) {
                let named = path.display();
                return Err(
                    Failure::usage(format!("`-f {named}` is no file of this machine")).hint(hint)
                );
            }
            return Ok(Origin::Path(path.clone(), state::folder(cli, KEPT).ok()));
        }
        Some(Err(error)) => {
            return Err(Failure::usage(format!("`-f` names no Git source: {error}"))
                .hint("such as git+ssh://git@example.org/team/database.git#main:cluster.yaml"));
        }
        Some(Ok(location)) => location,
    };
    // git runs in another folder than ours.
    let absolute = |path: &Option<PathBuf>| {
        let path = path.as_deref().map(std::path::absolute).transpose();
        path.map_err(|error| Failure::from_error("find the files for Git", &error))
    };
    let policy = Policy {
        allowed_signers: absolute(&cli.git.allowed_signers)?,
        access: Access {
            ssh_key: absolute(&cli.git.git_ssh_key)?,
            known_hosts: absolute(&cli.git.git_known_hosts)?,
            token: absolute(&cli.git.git_token_file)?,
            authority: absolute(&cli.git.git_ca)?,
        },
        allow_rewind: cli.git.allow_rewind,
        ..Policy::default()
    };
    let state = state::folder(cli, MIRRORS)?;
    let state = std::path::absolute(&state)
        .map_err(|error| Failure::from_error("find the state folder", &error))?;
    Ok(Origin::Git(Box::new(Mirror::new(location, policy, &state))))
}

/// What somebody meant who names a repository without saying so.
fn as_git(named: &str) -> Option<String> {
    let url = match named.split_once("://") {
        Some(("https" | "ssh", _)) => named.to_owned(),
        Some(("http", rest)) => format!("https://{rest}"),
        Some(("git", rest)) => format!("ssh://git@{rest}"),
        None => {
            let (host, path) = named.strip_prefix("git@")?.split_once(':')?;
            format!("ssh://git@{host}/{path}")
        }
        Some(_) => return None,
    };
    let place = if url.contains('#') { "" } else { "#BRANCH:PATH" };
    Some(format!("a repository is named as git+{url}{place}"))
}

impl Origin {
    /// The file or folder, as it was named.
    pub(crate) fn file(&self) -> String {
        match self {
            Self::Path(path, _) => path.display().to_string(),
            Self::Git(mirror) => mirror.location().path().to_owned(),
        }
    }

    /// The newest text.
    pub(crate) fn texts(&self) -> Result<Texts, Failure> {
        match self {
            Self::Path(path, _) => read_path(path),
            Self::Git(mirror) => {
                let newest = mirror.newest().map_err(|error| unread(&error))?;
                Ok(Texts::committed(mirror, newest))
            }
        }
    }

    /// Notes that a text is in force: whoever comes while the newest is broken goes on with it, and a
    /// branch may only go on from it.
    pub(crate) fn accept(&self, texts: &Texts) -> Result<(), Failure> {
        match (self, &texts.revision) {
            (Self::Git(mirror), Some(revision)) => {
                mirror.accept(revision).map_err(|error| unread(&error))
            }
            (Self::Path(path, Some(folder)), _) => kept::keep(folder, path, &texts.files),
            _ => Ok(()),
        }
    }

    /// The text that was in force last on this machine, and since when, where that is known.
    pub(crate) fn in_force(&self) -> Result<Option<(Texts, Option<u64>)>, Failure> {
        match self {
            Self::Git(mirror) => {
                let snapshot = mirror.in_force().map_err(|error| unread(&error))?;
                Ok(snapshot.map(|snapshot| (Texts::committed(mirror, snapshot), None)))
            }
            Self::Path(_, None) => Ok(None),
            Self::Path(path, Some(folder)) => {
                let Some(kept) = kept::last(folder, path)? else { return Ok(None) };
                // Its parent may hold the secrets of another cluster.
                if !kept.base.is_dir() {
                    return Err(Failure::new(format!(
                        "the folder {} is gone, where its secrets are looked for",
                        kept.base.display()
                    )));
                }
                let base = Base::local(kept.base);
                Ok(Some((Texts { base, files: kept.files, revision: None }, Some(kept.at))))
            }
        }
    }
}

/// A Git source that gives nothing.
pub(crate) fn unread(error: &GitError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        GitError::NoGit => failure.unread().hint("apt-get install git openssh-client"),
        GitError::Refused { revision, .. } => failure.of(revision.as_deref()),
        _ => failure.unread(),
    }
}

/// Reads and validates what `-f` names.
pub(crate) fn read(cli: &Cli) -> Result<Source, Failure> {
    parse_new(cli, &origin(cli)?.texts()?)
}

/// Makes clusters of the newest text; what is wrong with a commit is told with its name.
pub(crate) fn parse_new(cli: &Cli, texts: &Texts) -> Result<Source, Failure> {
    parse(cli, texts).map_err(|failure| failure.in_commit(texts.revision.as_ref()))
}

/// The same for those who look at a cluster or keep it: where the file is broken, or the newest
/// commit is refused or cannot be read, what is in force serves, if it is known. Of a file only where the
/// broken one still says that it is of the same cluster: the path may be another's by now.
pub(crate) fn read_in_force(cli: &Cli) -> Result<Source, Failure> {
    let origin = origin(cli)?;
    let read =
        |texts: &Texts| parse(cli, texts).map_err(|failure| failure.of(texts.revision.as_ref()));
    let newest = origin.texts();
    let (failure, told) = match newest.map(|texts| (read(&texts), told(&texts.files))) {
        Ok((Ok(source), _)) => return Ok(source),
        Ok((Err(failure), told)) => (failure, told),
        Err(failure) => (failure, Told::default()),
    };
    match origin.in_force() {
        Ok(Some((texts, since))) => match parse(cli, &texts) {
            Ok(source)
                if since.is_some() && !told.still(&source.clusters, cli.cluster.as_deref()) =>
            {
                let names: Vec<_> = source.clusters.iter().map(|spec| spec.name.as_str()).collect();
                let hint = format!(
                    "in force was a file of cluster {}, and this one does not say that it is of the \
                     same; where it is, mend it, or name the cluster with --cluster",
                    names.join(" and ")
                );
                Err(failure.hint(hint))
            }
            Ok(source) => {
                let refused = failure.refusal(origin.file());
                let (report, reason) = (refused.to_string(), refused.reason().to_owned());
                let refused = Refused { report, reason, unread: refused.unread, since };
                Ok(Source { refused: Some(refused), ..source })
            }
            // What was asked for is in neither.
            Err(other) if other.text() == failure.text() => Err(failure),
            Err(other) => Err(failure.caused_by(unserving(&other))),
        },
        Ok(None) => Err(failure),
        Err(other) => Err(failure.caused_by(unserving(&other))),
    }
}

fn unserving(failure: &Failure) -> String {
    format!("nor does what was in force serve: {}", failure.text().trim_end())
}

/// The same for a command that shows no status: it says in a note that it goes on with what is in force.
pub(crate) fn read_in_force_and_say(cli: &Cli) -> Result<Source, Failure> {
    let source = read_in_force(cli)?;
    if let Some(refused) = &source.refused {
        output::note(&format!("note: {}:\n{}", refused.title(), refused.report.trim_end()));
    }
    Ok(source)
}

/// A file, or the files `*.yaml` of a folder in the order of their names.
fn read_path(path: &Path) -> Result<Texts, Failure> {
    let fail = |path: &Path, error: &std::io::Error| {
        Failure::from_error(format!("read {}", path.display()), error)
    };
    let text = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(|error| fail(path, &error))?;
        Ok((path.display().to_string(), text))
    };
    if !path.is_dir() {
        let base = Base::local(folder_of(path));
        return Ok(Texts { base, files: vec![text(path)?], revision: None });
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|error| fail(path, &error))? {
        let entry = entry.map_err(|error| fail(path, &error))?.path();
        if entry.extension().is_some_and(|extension| extension == "yaml") && !is_secrets(&entry) {
            paths.push(entry);
        }
    }
    paths.sort();
    let files = paths.iter().map(|path| text(path)).collect::<Result<Vec<_>, Failure>>()?;
    Ok(Texts { base: Base::local(folder_of(path)), files, revision: None })
}

/// Where the secrets of a file or folder are looked for.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).to_owned()
}

/// A folder may hold the secrets beside the clusters.
fn is_secrets(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("secrets"))
}

/// Makes clusters of texts.
pub(crate) fn parse(cli: &Cli, texts: &Texts) -> Result<Source, Failure> {
    let mut clusters: Vec<ValidSpec> = Vec::new();
    let mut names = Vec::new();
    for (name, text) in &texts.files {
        if texts.revision.is_some() && !texts.alone() && is_secrets(Path::new(name)) {
            match Form::of(text.as_bytes()) {
                Form::Plain => return Err(in_clear(name)),
                Form::Age | Form::Sops => continue,
            }
        }
        // Of a file that is none of ours nothing may be quoted: it may hold secrets.
        if texts.files.len() > 1 && !text.lines().any(|line| line.starts_with("apiVersion:")) {
            return Err(Failure::new(format!("{name} has no `apiVersion:`")).hint(
                "a folder holds clusters only; files with `secrets` in their names are passed over",
            ));
        }
        let loaded = load(name, text).map_err(|faults| Failure::verbatim(faults.to_string()))?;
        if !loaded.warnings.is_empty() {
            let source = reconcile_spec::Source { name, text };
            output::note(report(&loaded.warnings, source).trim_end());
        }
        for spec in loaded.clusters {
            if let Some(other) = clusters.iter().position(|other| other.name == spec.name) {
                let (first, second) = (&names[other], name);
                let which = spec.name.as_str();
                return Err(Failure::new(format!(
                    "cluster {which} is in both {first} and {second}"
                )));
            }
            if texts.revision.is_some() && matches!(spec.secrets, SecretsSource::Exec(_)) {
                return Err(Failure::new(format!(
                    "{name}: `secrets.exec` is not taken from Git, for it runs a program on this machine"
                ))
                .hint("use `secrets: { file: … }` or `secrets: { env: … }`"));
            }
            names.push(name.clone());
            clusters.push(spec);
        }
    }
    let wanted =
        |spec: &ValidSpec| cli.cluster.as_ref().is_none_or(|name| spec.name.as_str() == name);
    clusters.retain(wanted);
    if clusters.is_empty() {
        let place = cli.file.as_deref().unwrap_or(Path::new("")).display();
        return Err(Failure::usage(match &cli.cluster {
            Some(wanted) => format!("{place} has no cluster named {wanted}"),
            None => format!("{place} holds no file *.yaml"),
        }));
    }
    let revision = texts.revision.clone();
    let base = texts.base.clone().with_identity(cli.identity.as_deref());
    Ok(Source { base, clusters, revision, refused: None })
}

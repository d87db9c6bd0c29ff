//! `reconcile report`: a bundle for whoever is to help, without secrets.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use reconcile_core::{plan, status::status};
use reconcile_engine::look;

use super::{
    converge::{prepare, unsafe_plan},
    logs::{Reach, ask, collect, components, redact},
};
use crate::{
    cli::{Cli, ReportArgs},
    failure::{Failure, Outcome},
    output, source, state,
};

/// Entries of the journal.
const ENTRIES: usize = 1000;
/// Lines of each log.
const REACH: Reach = Reach { lines: 500, seconds: None };
/// What a server says about itself; nothing of it can hold a secret of ours, and all of it is
/// looked through all the same.
const SERVER: &str = "uname -a; head -4 /etc/os-release; uptime; free -m; df -h -x tmpfs -x overlay
systemctl --no-pager --plain list-units --all 'etcd*' 'patroni*' 'postgresql*' 'docker*' 'containerd*'
systemctl --no-pager --failed --plain
timedatectl show 2>/dev/null
dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n' 'etcd*' 'patroni*' 'postgresql*' 'docker*' 2>/dev/null
docker node ls 2>/dev/null; docker service ls 2>/dev/null; docker ps -a 2>/dev/null
true
";

pub(super) async fn run(cli: &Cli, arguments: &ReportArgs) -> Result<Outcome, Failure> {
    let source = source::read_in_force_and_say(cli)?;
    let [spec] = source.clusters.as_slice() else {
        return Err(Failure::usage("a report is of one cluster").hint("choose it with --cluster"));
    };
    let name = format!("reconcile-report-{}", spec.name);
    let path = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar")));
    // Said before the servers are asked for all that, and not after.
    if std::fs::symlink_metadata(&path).is_ok() {
        return Err(there_already(&path));
    }
    let prepared = prepare(spec, &source.base)?;
    let mut files = BTreeMap::new();
    let mut add = |name: String, text: &str| files.insert(name, redact(text, &prepared.secrets));
    let version = env!("CARGO_PKG_VERSION");
    let commit = source.revision.as_ref().map_or_else(String::new, |commit| format!("{commit}\n"));
    let refused = source.refused.as_ref().map_or("", |refused| refused.report.as_str());
    add("versions.txt".to_owned(), &format!("reconcile {version}\n{commit}{refused}"));
    add("spec.yaml".to_owned(), &reconcile_spec::to_yaml(spec));
    let folder = state::folder(cli, spec.name.as_str())?;
    let entries = reconcile_engine::journal::read_all(&folder)
        .map(|read| read.entries)
        .map_err(|error| Failure::from_error("read the journal", &error))?;
    let tail = &entries[entries.len().saturating_sub(ENTRIES)..];
    let mut journal = String::new();
    for entry in tail {
        journal.push_str(&format!("{entry}\n"));
    }
    add("journal.jsonl".to_owned(), &journal);
    let pass =
        look(&prepared.fleet, &prepared.desired, &()).await.map_err(|error| unsafe_plan(&error))?;
    let json = |value: serde_json::Result<String>| {
        value.map_err(|error| Failure::from_error("write JSON", &error))
    };
    let status = status(&prepared.desired, &pass.observed, &pass.plan, None);
    add("status.json".to_owned(), &json(serde_json::to_string_pretty(&status))?);
    let sent = plan::sent(&pass.plan);
    add("plan.txt".to_owned(), &plan::text(&sent, true));
    add("plan.json".to_owned(), &json(serde_json::to_string_pretty(&sent))?);
    let hosts: Vec<_> = prepared.desired.servers.keys().collect();
    let looks = hosts.iter().map(|host| ask(&prepared, host, "the server", SERVER));
    for (host, answer) in hosts.iter().zip(futures::future::join_all(looks).await) {
        add(format!("servers/{host}.txt"), &answer.unwrap_or_else(|fault| fault));
    }
    for component in components(&prepared) {
        let (text, faults) = collect(&prepared, &component, None, REACH).await;
        add(format!("logs/{component}.txt"), &(text + &faults.join("\n")));
    }
    let fail = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => there_already(&path),
        _ => Failure::from_error(format!("write the report {}", path.display()), &error),
    };
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(&fail)?;
    file.write_all(&tar(&name, &files, state::now()))
        .and_then(|()| file.sync_all())
        .map_err(&fail)?;
    output::print(&format!(
        "{} holds {} files; look at it before you send it\n",
        path.display(),
        files.len()
    ))?;
    Ok(Outcome::Done)
}

/// A bundle that is there is not written over: it may be the one that was looked at.
fn there_already(path: &Path) -> Failure {
    Failure::new(format!("{} is there already and is not written over", path.display()))
        .hint("name another with `--out FILE`, or move that one away")
}

/// A tar archive (ustar) of texts. The names are our own and short.
fn tar(folder: &str, files: &BTreeMap<String, String>, at: u64) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, text) in files {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let path = format!("{folder}/{name}");
        // A name has 100 bytes, and 155 more for the folders before it.
        let cut = path.match_indices('/').map(|(at, _)| at).find(|at| path.len() - at <= 100);
        match cut {
            Some(at) if path.len() > 100 => {
                put(345, &path.as_bytes()[..at.min(155)]);
                put(0, &path.as_bytes()[at + 1..]);
            }
            _ => put(0, &path.as_bytes()[..path.len().min(100)]),
        }
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", text.len()).as_bytes());
        put(136, format!("{at:011o}\0").as_bytes());
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(text.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

//! The server itself: system, packages, files, units, directories, disks, manifest.

use std::collections::{BTreeMap, BTreeSet};

use reconcile_core::{
    action::UnitVerb,
    model::{
        AccessNote, Changed, Claim, ClaimKind, DataDirFact, DiskFact, FileFact, FileKind, Manifest,
        OsFact, Owed, PackageFact, PauseNote, UnitFact,
    },
    probe::ProbeRequest,
};

use super::{RoundTrip, script::TEXT_LIMIT, sections::Sections};
use crate::fault::{one_line, tail};

/// Server's clock minus ours, taken at the middle of the script on both sides.
pub(super) fn clock_offset(sections: &Sections, ours: RoundTrip) -> Result<i64, String> {
    let read = |name: &str| -> Result<i64, String> {
        let text = sections.line(name)?;
        text.parse().map_err(|_| format!("`date` printed `{}`", one_line(text)))
    };
    let (begin, end) = (read("begin")?, read("end")?);
    let middle = |a: i64, b: i64| a.saturating_add(b.saturating_sub(a) / 2);
    Ok(middle(begin, end).saturating_sub(middle(ours.sent, ours.received)))
}

pub(super) fn os(sections: &Sections) -> Result<OsFact, String> {
    let release = sections.text("os");
    let value = |key: &str| -> String {
        let lines = release.lines().filter_map(|line| line.split_once('='));
        let found = lines.filter(|(name, _)| *name == key).map(|(_, value)| value).next_back();
        found.map_or_else(String::new, |value| value.trim_matches(['"', '\'']).to_owned())
    };
    let packages = sections.text("packages");
    let dpkg = package_rows(&packages).find(|row| row.name == "dpkg");
    let architecture = dpkg.map_or_else(String::new, |row| row.architecture.to_owned());
    Ok(OsFact {
        id: value("ID"),
        version: value("VERSION_ID"),
        architecture,
        hostname: sections.line("hostname")?.to_owned(),
    })
}

struct PackageRow<'a> {
    name: &'a str,
    version: &'a str,
    status: &'a str,
    architecture: &'a str,
}

fn package_rows(text: &str) -> impl Iterator<Item = PackageRow<'_>> {
    text.lines().filter_map(|line| {
        let mut columns = line.split('\t');
        Some(PackageRow {
            name: columns.next()?,
            version: columns.next()?,
            status: columns.next()?,
            architecture: columns.next()?,
        })
    })
}

/// Installed packages. Without dpkg's own row nothing can be said, least of all "not installed".
pub(super) fn packages(
    request: &ProbeRequest,
    sections: &Sections,
) -> Result<BTreeMap<String, PackageFact>, String> {
    let text = sections.required("packages")?;
    if !package_rows(&text).any(|row| row.name == "dpkg") {
        let said = tail(&sections.errors("packages"), 1);
        return Err(format!(
            "dpkg-query cannot tell which packages are installed ({}): is this Debian or Ubuntu?",
            one_line(&said)
        ));
    }
    let mut facts = BTreeMap::new();
    for row in package_rows(&text) {
        // `want flag state`, such as `install ok installed` or `deinstall ok config-files`
        let mut words = row.status.split(' ').skip(1);
        let (flag, state) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let asked = request.packages.contains(row.name);
        if !asked || matches!(state, "not-installed" | "config-files" | "") {
            continue;
        }
        let complete = flag == "ok" && state == "installed";
        // Of two architectures the complete one speaks.
        if complete || !facts.contains_key(row.name) {
            let fact = PackageFact { version: row.version.to_owned(), complete };
            facts.insert(row.name.to_owned(), fact);
        }
    }
    Ok(facts)
}

/// An error of a tool that was given many names, unless all it says is that some are absent.
fn only_absent(errors: &str) -> Result<(), String> {
    let absent = ["No such file or directory", "Not a directory"];
    match errors.lines().find(|line| !absent.iter().any(|text| line.ends_with(text))) {
        None => Ok(()),
        Some(line) => Err(one_line(line)),
    }
}

pub(super) fn files(
    request: &ProbeRequest,
    sections: &Sections,
) -> Result<BTreeMap<String, FileFact>, String> {
    if request.files.is_empty() {
        return Ok(BTreeMap::new());
    }
    let stat = sections.required("stat")?;
    only_absent(&sections.errors("stat"))?;
    let digests = digests(&sections.text("sums"));
    let index: BTreeMap<&str, usize> =
        request.files.iter().enumerate().map(|(i, file)| (file.path.as_str(), i)).collect();
    let mut facts = BTreeMap::new();
    for line in stat.lines() {
        let broken = || format!("stat printed `{}`", one_line(line));
        let mut columns = line.splitn(4, '\t');
        let mut next = || columns.next().ok_or_else(broken);
        let mode = u32::from_str_radix(next()?, 16).map_err(|_| broken())?;
        let (owner, group, path) = (next()?.to_owned(), next()?.to_owned(), next()?.to_owned());
        let kind = match mode & 0o170_000 {
            0o100_000 => FileKind::File,
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Link,
            _ => FileKind::Other,
        };
        let digest = match (kind, digests.get(&path)) {
            (FileKind::File, Some(digest)) => digest.clone(),
            (FileKind::File, None) => {
                let said = one_line(&tail(&sections.errors("sums"), 1));
                return Err(format!("{path} is there but cannot be read: {said}"));
            }
            _ => String::new(),
        };
        let wanted = index.get(path.as_str()).and_then(|i| Some((*i, request.files.get(*i)?)));
        let text = wanted
            .filter(|(_, file)| kind == FileKind::File && !file.secret && file.expect != digest)
            .and_then(|(i, _)| sections.bytes(&format!("text.{i}")))
            .filter(|bytes| bytes.len() <= TEXT_LIMIT)
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        let changed = wanted.and_then(|(i, _)| changed(&sections.text(&format!("changed.{i}"))));
        let mode = mode & 0o7777;
        facts.insert(path, FileFact { kind, digest, mode, owner, group, text, changed });
    }
    Ok(facts)
}

/// Seconds since 1970, then lines `NAME [HOST]` of who was there.
fn changed(text: &str) -> Option<Changed> {
    let mut lines = text.lines();
    let at = lines.next()?.parse().ok()?;
    let person = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let plain = |word: &str| word.bytes().all(|b| b.is_ascii_graphic()) && word.len() <= 64;
        plain(name).then(|| match words.next().filter(|host| plain(host)) {
            Some(host) => format!("{name} ({host})"),
            None => name.to_owned(),
        })
    };
    let present: BTreeSet<String> = lines.filter_map(person).collect();
    Some(Changed { at, present: present.into_iter().collect() })
}

/// `digest  path` lines by path. Names with a backslash or line break are escaped and left out.
fn digests(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().filter_map(|line| line.split_once("  "));
    rows.filter(|(digest, _)| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(|(digest, path)| (path.to_owned(), digest.to_owned()))
        .collect()
}

/// Units, in the order they were asked for: an alias answers under its unit's own name.
pub(super) fn units(
    request: &ProbeRequest,
    sections: &Sections,
) -> Result<BTreeMap<String, UnitFact>, String> {
    if request.units.is_empty() {
        return Ok(BTreeMap::new());
    }
    let text = sections.required("units")?;
    let blocks: Vec<&str> = text.split("\n\n").filter(|block| !block.trim().is_empty()).collect();
    if sections.status("units") != Some(0) || blocks.len() != request.units.len() {
        let said = one_line(&tail(&sections.errors("units"), 1));
        return Err(format!("systemctl does not tell the units' state: {said}"));
    }
    let notes = sections.text("owed");
    let owed: BTreeMap<&str, Owed> = notes.lines().filter_map(owed).collect();
    let notes = sections.text("outdated");
    let outdated: BTreeMap<&str, &str> =
        notes.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut facts = BTreeMap::new();
    for (name, block) in request.units.iter().zip(blocks) {
        let run = block.lines().find_map(|line| line.strip_prefix("InvocationID="));
        let of_unit = unit(block);
        let fact = UnitFact {
            owed: owed.get(name.as_str()).cloned(),
            outdated: run
                .is_some_and(|run| !run.is_empty() && outdated.get(name.as_str()) == Some(&run))
                && of_unit.main_pid != 0,
            ..of_unit
        };
        // A unit whose file was removed under it may still run, which is a fact worth having.
        if fact.load == "not-found" && matches!(fact.active.as_str(), "inactive" | "") {
            continue;
        }
        facts.insert(name.clone(), fact);
    }
    Ok(facts)
}

/// `UNIT VERB SECONDS`. Anything else was not written by us.
fn owed(line: &str) -> Option<(&str, Owed)> {
    let mut words = line.split(' ');
    let (unit, verb, since) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    let verb = match verb {
        "reload" => UnitVerb::Reload,
        "restart" => UnitVerb::Restart,
        _ => return None,
    };
    Some((unit, Owed { verb, since }))
}

fn unit(block: &str) -> UnitFact {
    let values: BTreeMap<&str, &str> =
        block.lines().filter_map(|line| line.split_once('=')).collect();
    let text = |key: &str| values.get(key).copied().unwrap_or("").to_owned();
    let number = |key: &str| values.get(key).and_then(|v| v.parse().ok()).unwrap_or(0);
    let started = values.get("ExecMainStartTimestamp").and_then(|v| v.strip_prefix('@'));
    UnitFact {
        owed: None,
        outdated: false,
        load: text("LoadState"),
        active: text("ActiveState"),
        sub: text("SubState"),
        enabled: text("UnitFileState"),
        needs_daemon_reload: values.get("NeedDaemonReload") == Some(&"yes"),
        restarts: number("NRestarts"),
        main_pid: number("MainPID"),
        fragment: text("FragmentPath"),
        started_at: started.and_then(|v| v.parse().ok()).unwrap_or(0),
    }
}

pub(super) fn data_dirs(
    request: &ProbeRequest,
    sections: &Sections,
) -> Result<BTreeMap<String, DataDirFact>, String> {
    if request.data_dirs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let dirs = sections.required("dirs")?;
    let entries = sections.required("entries")?;
    // A directory that cannot be listed is not an empty one.
    only_absent(&sections.errors("entries"))?;
    only_absent(&sections.errors("dirs"))?;
    let populated: BTreeSet<&str> = entries.lines().collect();
    let mut facts: BTreeMap<String, DataDirFact> = BTreeMap::new();
    for line in dirs.lines() {
        let mut columns = line.split('\t');
        match (columns.next(), columns.next(), columns.next()) {
            (Some(kind @ ("dir" | "other")), Some(path), None) => {
                // Something else than a directory stands in the way: certainly not an empty one.
                let populated = kind == "other" || populated.contains(path);
                facts.insert(path.to_owned(), DataDirFact { populated, system_identifier: None });
            }
            (Some("id"), Some(path), Some(id)) => {
                if let Some(fact) = facts.get_mut(path) {
                    fact.system_identifier = Some(id.trim().to_owned());
                }
            }
            _ => return Err(format!("the data directories' section holds `{}`", one_line(line))),
        }
    }
    Ok(facts)
}

/// Free space; a path whose file system cannot be measured is left out.
pub(super) fn disks(sections: &Sections) -> Result<BTreeMap<String, DiskFact>, String> {
    let Some(paths) = sections.bytes("disks") else { return Ok(BTreeMap::new()) };
    let paths = String::from_utf8_lossy(paths).into_owned();
    let table = sections.required("df")?;
    let mut measured = BTreeMap::new();
    for line in table.lines() {
        let mut columns = line.split_ascii_whitespace();
        let numbers = (columns.next(), columns.next());
        let (Some(total), Some(free)) = numbers else { continue };
        let (Ok(total_bytes), Ok(free_bytes)) = (total.parse(), free.parse()) else { continue };
        // The path is the rest of the line and may hold spaces.
        if let Some(start) = line.find('/') {
            measured.insert(line[start..].to_owned(), DiskFact { free_bytes, total_bytes });
        }
    }
    let rows = paths.lines().filter_map(|line| line.split_once('\t'));
    Ok(rows
        .filter_map(|(path, existing)| Some((path.to_owned(), measured.get(existing)?.clone())))
        .collect())
}

/// The manifest. A line that is not whole (a crash while appending) says nothing.
pub(super) fn manifest(sections: &Sections) -> Result<Manifest, String> {
    if sections.status("manifest").is_some_and(|status| status != 0) {
        let said = one_line(&tail(&sections.errors("manifest"), 1));
        return Err(format!("/var/lib/reconcile/manifest cannot be read: {said}"));
    }
    Ok(parse_manifest(&sections.text("manifest")))
}

/// An empty section is a note that cannot be read.
pub(super) fn pause(request: &ProbeRequest, sections: &Sections) -> Option<PauseNote> {
    sections.bytes("pause")?;
    Some(PauseNote::parse(&sections.text("pause"), &request.pause))
}

/// The note of the last trial of access rules.
pub(super) fn access(sections: &Sections) -> Option<AccessNote> {
    sections.bytes("access")?;
    AccessNote::parse(&sections.text("access"))
}

pub(super) fn parse_manifest(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            ["cluster", name] => manifest.cluster = Some((*name).to_owned()),
            ["claim", kind, name, ..] => {
                manifest.claims.extend(claim(kind, name));
            }
            ["release", kind, name, ..] => {
                if let Some(claim) = claim(kind, name) {
                    manifest.claims.remove(&claim);
                }
            }
            _ => {}
        }
    }
    manifest
}

fn claim(kind: &str, name: &str) -> Option<Claim> {
    let kind = ClaimKind::ALL.into_iter().find(|known| known.word() == kind)?;
    Some(Claim { kind, name: name.to_owned() })
}

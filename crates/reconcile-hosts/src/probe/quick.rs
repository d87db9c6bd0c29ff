//! The question to `quick.pl`, which reads what a probe asks for without a process for each part. It
//! answers only where all is well; whatever else there is, the shell script finds out.

use std::fmt::Write as _;

use reconcile_core::{model::AccessNote, probe::ProbeRequest};

use super::script::{DOCKER_PATH, MARKED, transfers};
use crate::{
    apply::{OUTDATED, OWED, pooler::path as guard_path},
    shell::quote,
};

const PROGRAM: &str = include_str!("quick.pl");
/// Takes the program from the input, so that it is in no argument and in no file there.
const LOADER: &str = r#"$| = 1; print "$ARGV[0]\n";
my $text = do { local $/ = "\0"; <STDIN> } // exit;
chop($text) eq "\0" or exit; eval $text; die $@ if $@"#;

/// What starts the loader, which prints `end`.
pub(crate) fn start(end: &str) -> String {
    format!("exec perl -e {} {} 2>/dev/null\n", quote(LOADER), quote(end))
}

/// What the loader reads.
pub(crate) fn program() -> String {
    format!("{PROGRAM}\0")
}

/// The question, for which an answer to all of `request` but its SQL comes, then `end`. None: it has
/// names that a line cannot hold.
pub(crate) fn question(request: &ProbeRequest, end: &str) -> Option<String> {
    let mut text = String::new();
    let mut line = |words: &[&str]| {
        // A digest's line has a backslash for names with one.
        let plain = |word: &&str| !word.contains(['\t', '\n', '\0', '\\']);
        let _infallible = writeln!(text, "{}", words.join("\t"));
        words.iter().all(plain).then_some(())
    };
    for file in &request.files {
        let keep = |(mode, owner, group): &(u32, String, String)| {
            format!("{:x} {owner} {group}", 0o100_000 | mode)
        };
        let keep = file.keep.as_ref().map_or_else(String::new, keep);
        // Only a text that must not travel is of a file whose digest may be any.
        if file.expect == "-" && file.secret {
            return None;
        }
        line(&["file", &file.expect, &keep, &file.path])?;
    }
    for (name, url, data) in transfers(request) {
        let url = url.replace(DOCKER_PATH, "_ping");
        line(&["http", name, &url, data.unwrap_or_default()])?;
    }
    if request.docker {
        line(&["docker"])?;
    }
    for (what, names) in
        [("unit", &request.units), ("dir", &request.data_dirs), ("disk", &request.disks)]
    {
        for name in names {
            line(&[what, name])?;
        }
    }
    for path in MARKED {
        line(&["mark", path])?;
    }
    if let Some(bin_dir) = &request.postgres_bin_dir {
        line(&["postgres", &format!("{}/postgres", bin_dir.trim_end_matches('/'))])?;
    }
    if let Some(cluster) = &request.pooler_of {
        line(&["guard", &guard_path(cluster)])?;
    }
    line(&["owed", OWED])?;
    line(&["outdated", OUTDATED])?;
    line(&["pause", &request.pause])?;
    line(&["access", AccessNote::PATH])?;
    line(&["end", end])?;
    Some(text)
}

//! Reading secrets from their source, and making new ones. Values stay out of every message.

mod file;
mod init;

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reconcile_core::{desired::Secrets, model::SecretText};
use reconcile_sops::Form;
use reconcile_spec::{ClusterSpec, secrets::required_secrets, valid::SecretsSource};
use zeroize::Zeroizing;

pub(crate) use file::in_clear;
pub(crate) use init::init;

use crate::{base::Base, failure::Failure};

/// Anything shorter is guessed.
const MIN_LENGTH: usize = 12;

/// A program that gives secrets may take so long.
const PROGRAM: Duration = Duration::from_secs(60);
/// Between two looks at one that has printed all.
const POLL: Duration = Duration::from_millis(20);

/// The values of all secrets that the cluster needs.
pub(crate) fn read(spec: &ClusterSpec, base: &Base) -> Result<Secrets, Failure> {
    let (mut unfit, mut encrypted) = (BTreeMap::new(), false);
    let values = match &spec.secrets {
        SecretsSource::File(path) => {
            let found = file::read(base, path)?;
            (unfit, encrypted) = (found.unfit, found.form != Form::Plain);
            found.values
        }
        SecretsSource::Env(prefix) => read_environment(spec, prefix),
        SecretsSource::Exec(argv) => read_program(argv, base, PROGRAM)?,
    };
    let mut faults = Vec::new();
    for need in required_secrets(spec) {
        let name = need.name.as_str();
        match values.get(name).map(|value| weakness(value.expose())) {
            None => {
                let why = unfit.get(name).unwrap_or(&"is missing");
                faults.push(format!("`{name}` {why}; used by {}", need.used_by.join(", ")));
            }
            Some(Some(weakness)) => faults.push(format!("`{name}` {weakness}")),
            Some(None) => {}
        }
    }
    if faults.is_empty() {
        return Ok(values);
    }
    let mut failure = Failure::new(format!("secrets of cluster {} are not usable", spec.name));
    for fault in faults {
        failure = failure.caused_by(fault);
    }
    Err(failure.hint(match &spec.secrets {
        SecretsSource::File(_) if encrypted => {
            "change it with the program that encrypted it, such as `sops edit`"
        }
        SecretsSource::File(_) => "`reconcile secrets init -f FILE` writes what is missing",
        SecretsSource::Env(_) => {
            "set the environment variables that `reconcile secrets list` names"
        }
        SecretsSource::Exec(_) => "the program must print a YAML map of names and values",
    }))
}

/// Checks the secrets as far as they are given here; says why they are not checked otherwise.
pub(crate) fn check(spec: &ClusterSpec, base: &Base) -> Result<Result<usize, String>, Failure> {
    let ungiven = match &spec.secrets {
        SecretsSource::File(path) => file::ungiven(base, path)?,
        SecretsSource::Env(prefix) => read_environment(spec, prefix)
            .is_empty()
            .then(|| format!("no environment variable {prefix}… of theirs is set")),
        SecretsSource::Exec(_) => Some("`exec` is not run for this".to_owned()),
    };
    match ungiven {
        Some(why) => Ok(Err(why)),
        None => read(spec, base).map(|_| Ok(required_secrets(spec).len())),
    }
}

/// Why a value cannot be used: it lands in YAML, SQL and PgBouncer's userlist.txt.
fn weakness(value: &str) -> Option<&'static str> {
    if value.len() < MIN_LENGTH {
        return Some("is shorter than 12 characters");
    }
    let unfit = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\'' | '\\');
    value.contains(unfit).then_some(
        "holds a character other than printable ASCII without quotes, backslash and space",
    )
}

fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.to_uppercase().replace('-', "_"))
}

fn read_environment(spec: &ClusterSpec, prefix: &str) -> Secrets {
    required_secrets(spec)
        .into_iter()
        .filter_map(|need| {
            let value = std::env::var(variable(prefix, need.name.as_str())).ok()?;
            Some((need.name.to_string(), SecretText::new(value)))
        })
        .collect()
}

fn read_program(argv: &[String], base: &Base, limit: Duration) -> Result<Secrets, Failure> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Failure::new("secrets.exec names no program"));
    };
    let failed =
        |error: &std::io::Error| Failure::from_error(format!("run {program} for secrets"), error);
    let until = Instant::now() + limit;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(&base.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(&error))?;
    let (sender, printed) = std::sync::mpsc::sync_channel(1);
    if let Some(mut out) = child.stdout.take() {
        // On a thread of its own: the program, or one that it started, may keep it open for ever.
        let read = move || {
            let mut printed = Zeroizing::new(Vec::new());
            // Closed: it took too long, and nobody listens.
            let _heard = sender.send(out.read_to_end(&mut printed).map(|_| printed));
        };
        std::thread::Builder::new().spawn(read).map_err(|error| failed(&error))?;
    }
    let printed = printed.recv_timeout(limit);
    // One that has printed all may go on for ever, too.
    let mut ended = child.try_wait().map_err(|error| failed(&error))?;
    while ended.is_none() && printed.is_ok() && Instant::now() < until {
        std::thread::sleep(POLL);
        ended = child.try_wait().map_err(|error| failed(&error))?;
    }
    let (Ok(printed), Some(status)) = (printed, ended) else {
        stop(child).map_err(|error| failed(&error))?;
        let seconds = limit.as_secs();
        return Err(Failure::new(format!(
            "{program}, asked for secrets, was stopped after {seconds} s"
        )));
    };
    let printed = printed.map_err(|error| failed(&error))?;
    if !status.success() {
        return Err(Failure::new(format!("{program}, asked for secrets, ended with {status}")));
    }
    let text = std::str::from_utf8(&printed)
        .map_err(|_| Failure::new(format!("{program} printed secrets that are not UTF-8")))?;
    file::parse(text, program)
}

/// Ends a program and what it started: one that lives on would keep a thread of ours that reads.
/// The children are looked up, since a group of its own could not ask at the terminal.
fn stop(mut child: Child) -> std::io::Result<()> {
    let mut found = vec![child.id()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let path = format!("/proc/{parent}/task/{parent}/children");
        // Gone already: it has none.
        let children = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    for pid in found.iter().skip(1) {
        let pid = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    child.kill()?;
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::read_program;
    use crate::base::Base;

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let base = Base::local(".".into());
        let within = |script: &str, seconds| {
            let argv = ["sh", "-c", script].map(str::to_owned);
            read_program(&argv, &base, Duration::from_secs(seconds))
        };
        let run = |script: &str| within(script, 30);
        let given = run("echo 'pgbouncer-admin: abcdefghijkl'");
        assert!(given.is_ok_and(|given| given["pgbouncer-admin"].expose() == "abcdefghijkl"));
        assert!(run("echo 'a: b'; exit 3").is_err_and(|error| error.text().contains("ended with")));
        // By itself, with a child that keeps the pipe, and one that has printed all.
        for hangs in ["exec sleep 20", "sleep 20; :", "echo 'a: b'; exec >&-; sleep 20; :"] {
            let began = Instant::now();
            let hung = within(hangs, 2);
            assert!(hung.is_err_and(|error| error.text().contains("was stopped after 2 s")));
            assert!(began.elapsed() < Duration::from_secs(10), "{hangs}: {:?}", began.elapsed());
        }
    }
}

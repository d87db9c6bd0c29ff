//! Effects on a server: each action is one script, sent over one channel, that does everything and
//! waits for what it caused. What it finds is judged there, so no second look is needed.
//!
//! A script ends its work with `fail RETRY CAUSE`, which becomes the error, or with status 0.

mod access;
mod etcd;
mod files;
mod packages;
mod patroni;
pub(crate) mod pooler;
mod units;

use std::time::Duration;

use reconcile_core::{
    action::{DesiredFile, EtcdChange, HostAction},
    model::{Claim, HostName},
    ports::{EffectError, Retry},
};

pub use patroni::patroni_script;
pub use pooler::guard_script;
pub(crate) use units::{OUTDATED, OWED};

use crate::{
    Output, Ssh,
    fault::{Fault, one_line, tail},
    limits,
    shell::{base64_lines, quote, script, words},
};

/// A script gives up this much before the deadline of its channel, so that it can say what it saw.
const MARGIN: Duration = Duration::from_secs(3);

impl Ssh {
    /// Carries out one action on a server and waits until it took effect, at most for `deadline`.
    ///
    /// # Errors
    /// With the cause in plain words and the last lines of what the failing command said. It does
    /// not say that nothing happened: observe again before deciding.
    ///
    /// # Guarantees
    /// Idempotent. Claims are written and synced before what they announce.
    pub async fn apply(
        &self,
        host: &HostName,
        action: &HostAction,
        deadline: Duration,
    ) -> Result<(), EffectError> {
        let attempt = format!("{} on {host}", describe(action));
        let text = action_script(action, deadline);
        let text = text.map_err(|cause| Fault::after_change(cause).at(host, attempt.clone()))?;
        let result = self.run_inner(host, &self.fenced(text), deadline).await;
        self.count_effect();
        let secrets = secrets(action);
        let judged = match result {
            Ok(output) => judge(&output, &secrets),
            Err(fault) => Err(Fault { stderr: redact(&fault.stderr, &secrets), ..fault }),
        };
        judged.map_err(|fault| fault.at(host, attempt))
    }
}

/// What an action is, for people, without the server's name.
fn describe(action: &HostAction) -> String {
    match action {
        HostAction::Claim { .. } => "write the manifest".to_owned(),
        HostAction::InstallPackages { packages, .. } => {
            let names: Vec<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
            format!("install packages {}", names.join(", "))
        }
        HostAction::UpgradePackages { packages, .. } => {
            let names: Vec<String> =
                packages.iter().map(|(name, version)| format!("{name} to {version}")).collect();
            format!("upgrade {}", names.join(", "))
        }
        HostAction::WriteFile { file, .. } => format!("write {}", file.path),
        HostAction::TryAccess { .. } => "try the access rules".to_owned(),
        HostAction::RemoveFile { path, .. } => format!("remove {path}"),
        HostAction::EnsureDirectory { path, .. } => format!("make directory {path}"),
        HostAction::Unit { unit, verb, .. } => format!("{} {unit}", units::word(*verb)),
        HostAction::Notify { unit, verb, .. } => {
            format!("{} {unit} for its new file", units::word(*verb))
        }
        HostAction::ResumePooler { .. } => "resume the pooler".to_owned(),
        HostAction::StartEtcd { .. } => "start etcd for the first time".to_owned(),
        HostAction::EtcdMembership { change, .. } => match change {
            EtcdChange::Add { .. } => "add the etcd member".to_owned(),
            EtcdChange::Promote { id } => format!("give the etcd learner {id} a vote"),
            EtcdChange::Leave { id } => format!("remove the etcd member {id}"),
            EtcdChange::Forget { id } => format!("remove the etcd member {id} that stood"),
        },
        HostAction::AwaitEtcd { endpoint, .. } => format!("wait for etcd at {endpoint}"),
        HostAction::StartPatroni { endpoint, .. } => format!("start Patroni at {endpoint}"),
        HostAction::StopPatroni { .. } => "stop Patroni for good".to_owned(),
        HostAction::RestartPatroni { .. } => "restart Patroni".to_owned(),
        HostAction::Sql { database, .. } => format!("run SQL in database {database}"),
    }
}

/// The script that carries out `action`. It may hold secrets and belongs on a standard input only.
///
/// # Errors
/// Where the action holds something that cannot be put into a script, in plain words.
pub fn action_script(action: &HostAction, deadline: Duration) -> Result<String, String> {
    let seconds = deadline.saturating_sub(MARGIN).as_secs().max(1);
    let body = match action {
        HostAction::Claim { cluster, claims } => claim_lines(Some(cluster), claims),
        HostAction::InstallPackages { packages, cluster, claims, silence, start, replica } => {
            let ask = |endpoint| patroni::no_primary(endpoint, "nothing was installed");
            let ask = replica.as_deref().map(ask).unwrap_or_default();
            packages::install(packages, cluster, claims, (silence, start), &ask)?
        }
        HostAction::UpgradePackages { packages, outdates, replica } => {
            let ask = |endpoint| patroni::no_primary(endpoint, "nothing was upgraded");
            let ask = replica.as_deref().map(ask).unwrap_or_default();
            packages::upgrade(packages, outdates, &ask)?
        }
        HostAction::WriteFile { file, before, claim, notify, quorum, cluster } => {
            let notify = notify.as_ref().map(|(unit, verb)| (unit.as_str(), *verb));
            files::write(file, before.as_deref(), *claim, notify, quorum.as_ref(), cluster)
        }
        HostAction::TryAccess { file, before, trial } => {
            access::try_rules(file, before.as_deref(), trial)
        }
        HostAction::RemoveFile { path, digest } => files::remove(path, digest),
        HostAction::EnsureDirectory { path, mode, owner, group } => {
            files::directory(path, *mode, owner, group)
        }
        HostAction::Unit { unit, verb, enable } => units::unit(unit, *verb, *enable),
        HostAction::Notify { unit, verb, quorum } => {
            let ask = quorum.as_ref().map(files::ask_quorum).unwrap_or_default();
            let mut body = format!("{ask}{}", units::notify(unit, *verb));
            if let Some(quorum) = quorum {
                body.push_str(&units::healthy_again(&quorum.member));
            }
            body
        }
        HostAction::ResumePooler { cluster, port } => pooler::resume(cluster, *port),
        HostAction::StartEtcd { data_dir, initial_cluster_state, initial_cluster, claims } => {
            let list = initial_cluster.as_deref();
            units::start_etcd(data_dir, initial_cluster_state, list, claims)
        }
        HostAction::EtcdMembership { change, via, data_dir, token } => {
            etcd::membership(change, via, data_dir, token)?
        }
        HostAction::AwaitEtcd { endpoint, claims } => units::await_etcd(endpoint, claims),
        HostAction::StartPatroni { endpoint, data_dir, claims, until } => {
            patroni::start(endpoint, data_dir, claims, *until)
        }
        HostAction::StopPatroni { endpoint } => patroni::stop(endpoint),
        HostAction::RestartPatroni { endpoint, data_dir, max_lag_bytes } => {
            patroni::restart(endpoint, data_dir, *max_lag_bytes)
        }
        HostAction::Sql { socket_dir, port, database, sql } => {
            run_sql(socket_dir, *port, database, sql.bytes())
        }
    };
    Ok(script(&format!("END=$(($(date +%s) + {seconds}))\n{HEAD}{MANIFEST}{body}")))
}

/// What all actions use: a private directory, time, and the journal.
const HEAD: &str = r#"T=$(umask 077; mktemp -d /run/reconcile.XXXXXX 2>/dev/null || mktemp -d /tmp/reconcile.XXXXXX) ||
  fail later 'no temporary directory can be made in /run or /tmp'
trap 'rm -rf "$T"' EXIT
trap 'exit 129' HUP INT PIPE TERM
# left: seconds that are left, at least 1.
left() { l=$((END - $(date +%s))); [ "$l" -gt 0 ] || l=1; printf '%s\n' "$l"; }
# in_time: true until the deadline. The empty marker finds out whether anybody listens any more: what
# only waits for nobody ends by SIGPIPE, so that the next operator need not wait for it.
in_time() { printf '@@\n' >&2; [ "$(date +%s)" -lt "$END" ]; }
# journal UNIT: its last words, for the error.
journal() { journalctl --no-pager -q -o cat -n 15 -u "$1" >&2 2>/dev/null || :; }
# show UNIT PROPERTY
show() { systemctl show -p "$2" --value -- "$1"; }
"#;

/// `manifest LINE…` appends the lines that are not in force yet, under a lock, and syncs.
/// `claimed KIND NAME` tells whether a claim is in force.
const MANIFEST: &str = r#"M=/var/lib/reconcile/manifest
manifest() {
  [ $# -gt 0 ] || return 0
  at 'writing the manifest'
  mkdir -p /var/lib/reconcile && chmod 0755 /var/lib/reconcile || fail later 'cannot make /var/lib/reconcile'
  (
    flock -w 20 9 || fail soon 'the manifest is locked by another process'
    # A line that a crash cut off must not run into the next.
    [ ! -s "$M" ] || [ -z "$(tail -c 1 "$M")" ] || printf '\n' >&9
    new=$(printf '%s\n' "$@" | awk '
      phase == 1 { if ($1 == "cluster") owner = $2
        else if ($1 == "claim" || $1 == "release") last[$2 " " $3] = $1; next }
      $1 == "cluster" { if (owner == "") print; else if (owner != $2) print "!" owner; owner = $2; next }
      $1 == "claim" && last[$2 " " $3] == "claim" { next }
      $1 == "release" && last[$2 " " $3] != "claim" { next }
      { print; last[$2 " " $3] = $1 }' phase=1 "$M" phase=2 -) || fail later 'the manifest cannot be read'
    case $new in
      '') exit 0 ;;
      !*) new=${new#!}; fail after-change "this server belongs to cluster ${new%%[!A-Za-z0-9._-]*}, says $M" ;;
    esac
    printf '%s\n' "$new" >&9 && chmod 0644 "$M" && sync "$M" /var/lib/reconcile || fail later "cannot write $M"
  ) 9>>"$M" || { s=$?; [ "$s" = 90 ] || printf '@@fail later cannot write %s\n' "$M" >&2; exit 90; }
}
claimed() {
  [ -e "$M" ] || return 1
  awk '($1 == "claim" || $1 == "release") && $2 == ARGV[2] && $3 == ARGV[3] { last = $1 }
    BEGIN { ARGC = 2 } END { exit last != "claim" }' "$M" "$1" "$2"
}
"#;

/// The call that writes claims, and the cluster's name where given.
fn claim_lines(cluster: Option<&str>, claims: &[Claim]) -> String {
    let cluster = cluster.map(|name| format!("cluster {name}"));
    let claims = claims.iter().map(|claim| format!("claim {} {}", claim.kind.word(), claim.name));
    let lines: Vec<String> = cluster.into_iter().chain(claims).collect();
    if lines.is_empty() { String::new() } else { format!("manifest{}\n", words(&lines)) }
}

/// SQL as the operating-system user `postgres`. Errors are terse: the longer form quotes the
/// statement, which may hold a verifier.
/// Verifiers in statements must not reach the server's own log.
const QUIET: &[u8] = b"SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_duration_statement = -1;\n";

fn run_sql(socket_dir: &str, port: u16, database: &str, sql: &[u8]) -> String {
    format!(
        "at 'running SQL'\n\
         id -u postgres >/dev/null 2>&1 || fail after-change 'there is no user postgres on this server'\n\
         (umask 077; base64 -d >\"$T/sql\") <<'@@SQL' || fail later 'cannot write a temporary file'\n\
         {sql}@@SQL\n\
         timeout -k 5 \"$(left)\" setpriv --reuid=postgres --regid=postgres --init-groups \
         env -i PATH=\"$PATH\" LC_ALL=C PGAPPNAME=reconcile PGCONNECT_TIMEOUT=5 PGCLIENTENCODING=UTF8 \
         psql -XAtq -v ON_ERROR_STOP=1 -v VERBOSITY=terse -v SHOW_CONTEXT=never \
         -h {dir} -p {port} -U postgres -d {database} <\"$T/sql\" >/dev/null 2>\"$T/err\"\n\
         s=$?\n[ \"$s\" != 0 ] || exit 0\ncat \"$T/err\" >&2\n\
         why=$(grep -m 1 -E 'ERROR|FATAL|error' \"$T/err\" || tail -n 1 \"$T/err\")\n\
         case $s in 124|137) fail later 'PostgreSQL did not finish the statements in time' ;; esac\n\
         case $why in\n\
         *read-only*) fail soon \"this server is not the primary (any more): $why\" ;;\n\
         *'onnection refused'*|*'No such file'*|*'starting up'*|*'shutting down'*|*'not yet accepting'*|*terminat*)\n\
         fail later \"PostgreSQL does not take connections: $why\" ;;\n\
         *) fail after-change \"$why\" ;;\nesac\n",
        sql = base64_lines(&[QUIET, sql].concat()),
        dir = quote(socket_dir),
        database =
            quote(&format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))),
    )
}

/// A finished script's error, if it failed: its own `@@fail` line, else its last words.
pub(crate) fn judge(output: &Output, secrets: &[String]) -> Result<(), Fault> {
    if output.status == 0 {
        return Ok(());
    }
    let failed = output.stderr.lines().rev().find_map(|line| line.strip_prefix("@@fail "));
    let (retry, cause) = match failed.and_then(|line| line.split_once(' ')) {
        Some(("soon", cause)) => (Retry::Soon, cause.to_owned()),
        Some(("after-change", cause)) => (Retry::AfterChange, cause.to_owned()),
        Some((_, cause)) => (Retry::Later, cause.to_owned()),
        None => {
            let last = tail(&output.stderr, 1);
            let said = if last.is_empty() { "it said nothing" } else { last.as_str() };
            (Retry::Later, format!("the script ended with status {}: {said}", output.status))
        }
    };
    Err(Fault {
        retry,
        cause: redact(&one_line(&cause), secrets),
        stderr: redact(&tail(&output.stderr, limits::STDERR_LINES), secrets),
    })
}

/// Words of an action that must not stand in an error: what is quoted in secret SQL, and the values
/// in a secret file, which a service that is told of it might print.
fn secrets(action: &HostAction) -> Vec<String> {
    let (text, words): (_, fn(&str) -> Vec<&str>) = match action {
        HostAction::Sql { sql, .. } if sql.is_secret() => {
            (sql.bytes(), |text| text.split('\'').skip(1).step_by(2).collect())
        }
        HostAction::WriteFile { file: DesiredFile { content, .. }, .. }
        | HostAction::TryAccess { file: DesiredFile { content, .. }, .. }
            if content.is_secret() =>
        {
            (content.bytes(), words_of)
        }
        _ => return Vec::new(),
    };
    // The lines of pg_hba.conf are no secret, and an error about one must name it.
    let open = match action {
        HostAction::TryAccess { trial, .. } => trial.lines.join(" "),
        _ => String::new(),
    };
    let open: Vec<&str> = words_of(&open);
    let text = String::from_utf8_lossy(text).into_owned();
    let words = words(&text).into_iter().filter(|word| word.len() >= 6 && !open.contains(word));
    words.map(str::to_owned).collect()
}

/// The values among the words of a file.
fn words_of(text: &str) -> Vec<&str> {
    let words = text.split_whitespace().filter(|word| !word.ends_with([':', '=']));
    let values = words.map(|word| word.split_once('=').map_or(word, |pair| pair.1));
    values.map(|value| value.trim_matches(|c: char| "'\",{}[]".contains(c))).collect()
}

/// The text without `secrets`, and without anything that looks like a SCRAM verifier.
fn redact(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), "<secret>");
    }
    while let Some(start) = text.find("SCRAM-SHA-256$") {
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '\'' || c == '"');
        text.replace_range(start..end.map_or(text.len(), |end| start + end), "<secret>");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(status: u32, stderr: &str) -> Output {
        Output { status, stdout: Vec::new(), stderr: stderr.to_owned() }
    }

    #[test]
    fn a_failure_is_told_by_its_own_line() {
        let text = "noise\n@@at installing\n@@fail after-change package x is nowhere\n";
        let fault = judge(&output(90, text), &[]).expect_err("it failed");
        assert_eq!(fault.retry, Retry::AfterChange);
        assert_eq!(fault.cause, "package x is nowhere");
        assert_eq!(fault.stderr, "noise");
        let fault = judge(&output(1, "first\nlast\n"), &[]).expect_err("it failed");
        assert_eq!(fault.cause, "the script ended with status 1: last");
    }

    #[test]
    fn secrets_do_not_stay_in_errors() {
        let text = "ERROR: near \"'SCRAM-SHA-256$4096:abc=$x:y'\" and hunter22\n";
        let fault = judge(&output(3, text), &["hunter22".to_owned()]).expect_err("it failed");
        assert!(!fault.stderr.contains("4096") && !fault.stderr.contains("hunter22"), "{fault:?}");
        assert!(fault.cause.contains("<secret>"));
    }
}

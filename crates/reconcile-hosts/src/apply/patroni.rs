//! Patroni: its first start, and requests to its REST interface from the server itself.

use std::{collections::BTreeMap, time::Duration};

use reconcile_core::{
    action::{PatroniAction, PatroniGoal, UnitVerb},
    desired::patroni::UNIT,
    model::{Claim, ClaimKind, HostName, SecretText},
    ports::EffectError,
};

use super::{
    HEAD, MARGIN, claim_lines, judge,
    units::{self, POPULATED},
};
use crate::{
    Ssh,
    fault::Fault,
    shell::{quote, script},
};

/// How long a primary's Patroni may take to notice what it is to be restarted for.
const NOTICE_SECONDS: u64 = 20;

/// `ask PATH` sets `code` and leaves the answer's body in `$T/body`.
/// `streams` is true where the replica here streams: by its own word, or, with Patroni before 3.1, by
/// PostgreSQL's, or where the cluster lists it as running on the leader's timeline.
const ASK: &str = r#"ask() {
  : >"$T/body"
  code=$(curl -q -s -k --noproxy '*' --max-time 3 -o "$T/body" -w '%{http_code}' -- "$E$1") || code=000
}
streams() {
  case $(cat "$T/body") in
    *'"replication_state": "streaming"'*) return 0 ;;
    *'"replication_state":'*) return 1 ;;
  esac
  # Where PostgreSQL says where it listens, its WAL receiver knows; the probe asks the same.
  if [ -r "$D/postmaster.pid" ] && command -v psql >/dev/null; then
    receiver=$(cd / && timeout 5 setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtq \
      -h "$(sed -n 5p "$D/postmaster.pid")" -p "$(sed -n 4p "$D/postmaster.pid")" -U postgres -d postgres \
      -c 'select status from pg_stat_wal_receiver' 2>/dev/null) || return 1
    [ "$receiver" = streaming ]
    return
  fi
  ask /cluster
  tr '{' '\n' <"$T/body" >"$T/rows"
  own=$(grep -F "\"api_url\": \"$E/" "$T/rows") || return 1
  case $own in
    *'"state": "streaming"'*) return 0 ;;
    *'"state": "running"'*) ;;
    *) return 1 ;;
  esac
  lead=$(sed -n '/"role": "\(standby_\)\{0,1\}leader"/s/.*"timeline": \([0-9]*\).*/\1/p' "$T/rows")
  mine=$(printf '%s\n' "$own" | sed -n 's/.*"timeline": \([0-9]*\).*/\1/p')
  [ "$lead" ] && [ "$lead" = "$mine" ]
}
"#;

/// Starts Patroni; see [`reconcile_core::action::HostAction::StartPatroni`].
pub(super) fn start(
    endpoint: &str,
    data_dir: &str,
    claims: &[Claim],
    until: PatroniGoal,
) -> String {
    let (of_dir, others): (Vec<Claim>, Vec<Claim>) =
        claims.iter().cloned().partition(|claim| claim.kind == ClaimKind::DataDir);
    let (goal, words) = match until {
        PatroniGoal::Primary => ("ask /primary; [ \"$code\" = 200 ]", "a running primary"),
        PatroniGoal::Replica => {
            ("ask /replica; [ \"$code\" = 200 ] && streams", "a replica that streams")
        }
        // As the plan judges it: a replica that does not stream does not serve.
        PatroniGoal::Either => (
            "ask /primary; [ \"$code\" = 200 ] || { ask /replica; [ \"$code\" = 200 ] && streams; }",
            "a primary, or a replica that streams",
        ),
    };
    let of_dir = if of_dir.is_empty() {
        String::new()
    } else {
        // Data that came there since the plan was made is somebody else's.
        format!(
            "if populated {dir}; then\n  claimed data-dir {dir} || fail after-change {foreign}\nelse\n{claims}fi\n",
            dir = quote(data_dir),
            foreign = quote(&format!("{data_dir} holds data that reconcile did not put there")),
            claims = claim_lines(None, &of_dir),
        )
    };
    format!(
        r#"{ASK}{POPULATED}E={endpoint} D={directory}
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
[ "$(show {UNIT} NeedDaemonReload)" != yes ] && [ "$(show {UNIT} LoadState)" != not-found ] || systemctl daemon-reload
[ "$(show {UNIT} LoadState)" != not-found ] || fail after-change '{UNIT} does not exist on this server'
{of_dir}{others}at 'starting {UNIT}'
[ "$(show {UNIT} ActiveState)" != failed ] || systemctl reset-failed {UNIT}
timeout -k 5 "$(left)" systemctl enable -q --now {UNIT} || {{
  journal {UNIT}
  fail later "{UNIT} does not start: it is $(show {UNIT} ActiveState) ($(show {UNIT} SubState))"
}}
until {goal}; do
  state=$(show {UNIT} ActiveState)
  ask /patroni
  seen=$(sed -n 's/.*"state": "\([^"]*\)".*"role": "\([^"]*\)".*/\2, \1/p' "$T/body")
  at "waiting for {words} (seen: ${{seen:-no answer}})"
  if [ "$state" = failed ] || ! in_time; then
    journal {UNIT}
    fail later "Patroni did not become {words}: {UNIT} is $state, Patroni says: ${{seen:-nothing (HTTP $code)}}"
  fi
  sleep 0.3
done
"#,
        endpoint = quote(endpoint.trim_end_matches('/')),
        directory = quote(data_dir),
        others = claim_lines(None, &others),
    )
}

/// Stops Patroni for good; see [`reconcile_core::action::HostAction::StopPatroni`].
pub(super) fn stop(endpoint: &str) -> String {
    format!(
        r"{ASK}E={endpoint} D=
case $(show {UNIT} ActiveState) in active|reloading)
  command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
  {primary} ;;
esac
{stop}",
        endpoint = quote(endpoint.trim_end_matches('/')),
        primary = refuse_primary("nothing was stopped"),
        stop = units::unit(UNIT, UnitVerb::Stop, false),
    )
}

/// Refuses to go on where Patroni leads. Silence is no answer: a primary under load may be slow to give
/// one.
fn refuse_primary(instead: &str) -> String {
    format!("ask /primary\n  {}", refuse_answer(instead))
}

/// The same of an answer that is there.
fn refuse_answer(instead: &str) -> String {
    format!(
        r#"case $code in
    503) ;;
    200) fail soon 'it is the primary by now; {instead}' ;;
    *) fail soon "Patroni does not say that it is no primary (HTTP $code); {instead}" ;;
  esac"#
    )
}

/// `unled` tells whether PostgreSQL itself is certain that no primary runs here: no process lives in a
/// claimed data directory, or the one that does says that it is in recovery.
const UNLED: &str = r#"unled() {
  unled=1
  for dir in $(awk '($1 == "claim" || $1 == "release") && $2 == "data-dir" { last[$3] = $1 }
    END { for (dir in last) if (last[dir] == "claim") print dir }' "$M" 2>/dev/null); do
    [ -e "$dir/PG_VERSION" ] || continue
    unled=0
    [ -e "$dir/postmaster.pid" ] || continue
    pid=$(sed -n 1p "$dir/postmaster.pid")
    case $pid in ''|*[!0-9]*) return 1 ;; esac
    [ -d "/proc/$pid" ] || continue
    # Another process may have the number since the power came back. PostgreSQL lives in its directory.
    readlink "/proc/$pid/cwd" >"$T/cwd" || return 1
    [ "/proc/$pid/cwd" -ef "$dir" ] || continue
    recovers=$(cd / && timeout 5 setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtq \
      -h "$(sed -n 5p "$dir/postmaster.pid")" -p "$(sed -n 4p "$dir/postmaster.pid")" -U postgres -d postgres \
      -c 'select pg_is_in_recovery()' 2>/dev/null) && [ "$recovers" = t ] || return 1
  done
  return "$unled"
}
"#;

/// The same for the inside of another script; one that does not run leads nobody. Where Patroni gives no
/// answer at all, its own files may be what is half installed: then PostgreSQL is asked instead.
pub(super) fn no_primary(endpoint: &str, instead: &str) -> String {
    format!(
        r#"{ASK}{UNLED}E={endpoint}
case $(show {UNIT} ActiveState) in active|reloading|activating|deactivating)
  ask /primary
  [ "$code" = 000 ] && unled || {answer} ;;
esac
"#,
        endpoint = quote(endpoint.trim_end_matches('/')),
        answer = refuse_answer(instead),
    )
}

/// Restarts a replica's Patroni; see [`reconcile_core::action::HostAction::RestartPatroni`].
pub(super) fn restart(endpoint: &str, data_dir: &str, max_lag_bytes: u64) -> String {
    format!(
        r#"{ASK}{settled}E={endpoint} D={data_dir} SEEN=
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
if [ "$(cat {note} 2>/dev/null)" = "$(show {UNIT} InvocationID)" ]; then
  {primary}
  act restart -- {UNIT}
  settled {UNIT} active
fi
{after}"#,
        settled = units::SETTLED,
        endpoint = quote(endpoint.trim_end_matches('/')),
        data_dir = quote(data_dir),
        primary = refuse_primary("nothing was restarted"),
        note = quote(&format!("{}{UNIT}", units::OUTDATED)),
        after = after_restart(max_lag_bytes, false),
    )
}

impl Ssh {
    /// Asks the Patroni at `base_url` from the server itself. Credentials travel on a standard
    /// input, never in an argument.
    ///
    /// # Errors
    /// Where Patroni cannot be reached or refuses, with its own words.
    pub async fn perform_patroni(
        &self,
        host: &HostName,
        base_url: &str,
        credentials: Option<(&str, &SecretText)>,
        action: &PatroniAction,
        deadline: Duration,
    ) -> Result<(), EffectError> {
        let attempt = match action {
            PatroniAction::PatchConfig { .. } => {
                format!("patch Patroni's dynamic configuration through {host}")
            }
            PatroniAction::RestartReplica { .. } => {
                format!("restart PostgreSQL through Patroni on {host}")
            }
            PatroniAction::RestartPrimary { .. } => {
                format!("restart the primary through Patroni on {host}")
            }
            PatroniAction::HandOver { .. } => format!("move the primary on {host}"),
        };
        let Some(text) = patroni_script(base_url, credentials, action, deadline) else {
            let fault = Fault::after_change("a transaction is no single effect".to_owned());
            return Err(fault.at(host, attempt));
        };
        let text = self.fenced(text);
        let result = self.run_inner(host, &text, deadline).await;
        self.count_effect();
        let secrets: Vec<String> =
            credentials.iter().map(|(_, password)| password.expose().to_owned()).collect();
        let judged: Result<(), Fault> = result.and_then(|output| judge(&output, &secrets));
        judged.map_err(|fault| fault.at(host, attempt))
    }

    /// Waits until the Patroni at `base_url` has noticed that its PostgreSQL needs a restart, or has
    /// had time enough for it.
    ///
    /// # Errors
    /// Where Patroni cannot be reached.
    pub async fn await_notice(&self, host: &HostName, base_url: &str) -> Result<(), EffectError> {
        let deadline = Duration::from_secs(NOTICE_SECONDS) + 2 * MARGIN;
        let endpoint = quote(base_url.trim_end_matches('/'));
        let text = script(&format!("{HEAD}{ASK}{NOTICE}E={endpoint}\nnotice {NOTICE_SECONDS}\n"));
        let result = self.run_inner(host, &text, deadline).await;
        let judged: Result<(), Fault> = result.and_then(|output| judge(&output, &[]));
        judged.map_err(|fault| fault.at(host, format!("wait for Patroni's round on {host}")))
    }
}

/// `notice SECONDS` waits until Patroni has noticed that a restart is needed. It forgets that where
/// it started a standby with more than is configured, so waiting longer would be in vain.
const NOTICE: &str = r#"notice() {
  noticed=$(($(date +%s) + $1))
  while :; do
    ask /patroni
    case $(cat "$T/body") in *'"pending_restart": true'*) return 0 ;; esac
    at 'waiting for Patroni to notice that a restart is needed'
    [ "$code" != 000 ] || fail later 'Patroni does not answer'
    [ "$(date +%s)" -lt "$noticed" ] || return 0
    sleep 0.5
  done
}
"#;

/// `runs` prints what PostgreSQL runs with of what is to change, and `SEEN` is what the plan saw: a
/// restart that has happened meanwhile is not repeated.
fn as_seen(data_dir: &str, runs: &BTreeMap<String, String>) -> String {
    let literal = |name: &String| format!("'{}'", name.replace('\'', "''"));
    let names: Vec<String> = runs.keys().map(literal).collect();
    let seen: Vec<String> = runs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let sql = format!(
        "select name || '=' || setting from pg_settings where name in ({}) order by name collate \"C\"",
        names.join(", ")
    );
    format!(
        r#"D={data_dir} SEEN={seen}
runs() {{
  [ -r "$D/postmaster.pid" ] || fail later 'PostgreSQL does not run'
  (cd / && timeout 5 setpriv --reuid=postgres --regid=postgres --init-groups psql -XAtq \
    -h "$(sed -n 5p "$D/postmaster.pid")" -p "$(sed -n 4p "$D/postmaster.pid")" -U postgres -d postgres \
    -c {sql} 2>&1) || fail later 'PostgreSQL does not tell what it runs with'
}}
if [ "$SEEN" ]; then
  now=$(runs) || exit 90
  [ "$now" = "$SEEN" ] || fail soon 'PostgreSQL does not run any more with what the plan saw'
fi
"#,
        data_dir = quote(data_dir),
        seen = quote(&seen.join("\n")),
        sql = quote(&sql),
    )
}

/// The process that the plan saw still runs, with a program that was replaced.
fn still_replaced(replaced: Option<u32>) -> String {
    replaced.map_or_else(String::new, |pid| {
        format!(
            "postmaster() {{ IFS= read -r pid <\"$D/postmaster.pid\" && printf '%s\\n' \"$pid\"; }}\n\
             [ \"$(postmaster)\" = {pid} ] || fail soon 'PostgreSQL was restarted since the plan'\n"
        )
    })
}

/// After: waits until the replica is back, streams and lags little; with `for_settings` it must run
/// with something else than before.
fn after_restart(max_lag_bytes: u64, for_settings: bool) -> String {
    let changed = if for_settings { CHANGED } else { "" };
    format!(
        r#"until ask '/replica?lag={max_lag_bytes}' && [ "$code" = 200 ] && streams; do
  ask /patroni
  seen=$(sed -n 's/.*"state": "\([^"]*\)".*"role": "\([^"]*\)".*/\2, \1/p' "$T/body")
  at "waiting for the replica to stream again (seen: ${{seen:-no answer}})"
  in_time || fail later "restarted, but it does not stream, or lags by more than {max_lag_bytes} bytes: ${{seen:-Patroni does not answer}}"
  sleep 0.3
done
{changed}"#
    )
}

/// It runs with something else now.
const CHANGED: &str = r#"if [ "$SEEN" ]; then
  now=$(runs) || exit 90
  [ "$now" != "$SEEN" ] || fail after-change 'the restart changed nothing: Patroni starts PostgreSQL with what it ran with before'
fi
"#;

/// The role stands in the place of `@ROLE@` when the request is made.
fn restart_body(runs: &BTreeMap<String, String>, replaced: Option<u32>) -> String {
    // Where Patroni's own word counts, it must still hold.
    let pending =
        if runs.is_empty() && replaced.is_none() { r#","restart_pending":true"# } else { "" };
    format!(r#"{{"role":"@ROLE@"{pending}}}"#)
}

/// The script of one request to Patroni. It holds the credentials and belongs on a standard input.
/// None for a transaction, which is no single request.
pub fn patroni_script(
    base_url: &str,
    credentials: Option<(&str, &SecretText)>,
    action: &PatroniAction,
    deadline: Duration,
) -> Option<String> {
    let seconds = deadline.saturating_sub(MARGIN).as_secs().max(1);
    let (before, method, path, body, after) = match action {
        PatroniAction::PatchConfig { patch, settle_seconds } => {
            let after = format!("sleep {settle_seconds}\n");
            (String::new(), "PATCH", "/config", patch.clone(), after)
        }
        PatroniAction::RestartReplica {
            runs,
            replaced,
            notice_seconds,
            data_dir,
            max_lag_bytes,
        } => {
            let seen = as_seen(data_dir, runs) + &still_replaced(*replaced);
            let notice = match notice_seconds {
                0 => String::new(),
                seconds => format!("notice {seconds}\n"),
            };
            let before = format!(
                "{ASK}{NOTICE}{seen}{notice}ask /replica\n[ \"$code\" = 200 ] || \
                 fail soon \"this member is no replica that runs (HTTP $code)\"\nROLE=replica\n"
            );
            let body = restart_body(runs, *replaced);
            // For a program that was replaced it was not in vain, whatever Patroni starts it with.
            let after = after_restart(*max_lag_bytes, replaced.is_none());
            (before, "POST", "/restart", body, after)
        }
        PatroniAction::RestartPrimary { runs, replaced, data_dir, .. } => {
            // Patroni 3 compares with its own word for the role, which later versions refuse.
            let before = format!(
                "{ASK}{seen}ask /patroni\nROLE=$(sed -n 's/.*\"role\": \"\\([a-z]*\\)\".*/\\1/p' \"$T/body\")\n\
                 case $ROLE in master|primary) ;; *) fail soon \"it is no primary but ${{ROLE:-silent}}\" ;; esac\n",
                seen = as_seen(data_dir, runs) + &still_replaced(*replaced),
            );
            (before, "POST", "/restart", restart_body(runs, *replaced), String::new())
        }
        PatroniAction::HandOver { .. } => return None,
    };
    let mut config = format!(
        "url = {}\nrequest = {method}\nheader = \"Content-Type: application/json\"\ndata-binary = {}\n\
         max-time = {seconds}\nnoproxy = \"*\"\ninsecure\nsilent\nshow-error\n",
        config_word(&format!("{}{path}", base_url.trim_end_matches('/'))),
        config_word(&body),
    );
    if let Some((user, password)) = credentials {
        config.push_str("user = ");
        config.push_str(&config_word(&format!("{user}:{}", password.expose())));
        config.push('\n');
    }
    let body = format!(
        r#"END=$(($(date +%s) + {seconds}))
{HEAD}E={endpoint}
{before}at 'asking Patroni: {method} {path}'
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
code=$(base64 -d <<'@@CURL' | {role}curl -q -K - -o "$T/body" -w '%{{http_code}}' 2>"$T/err"
{config}@@CURL
) || {{ cat "$T/err" >&2; fail later "Patroni does not answer: $(head -n 1 "$T/err")"; }}
said=$(head -c 400 "$T/body" 2>/dev/null | tr '\n' ' ')
case $code in
  200) ;;
  401|403) fail after-change "Patroni refuses the credentials (HTTP $code)" ;;
  400|404|405|422) fail after-change "Patroni refuses (HTTP $code): $said" ;;
  409|412) fail soon "Patroni refuses (HTTP $code): $said" ;;
  *) fail later "Patroni answers HTTP $code: $said" ;;
esac
{after}"#,
        role = if body.contains("@ROLE@") && path == "/restart" {
            "sed \"s/@ROLE@/$ROLE/\" | "
        } else {
            ""
        },
        endpoint = quote(base_url.trim_end_matches('/')),
        config = crate::shell::base64_lines(config.as_bytes()),
    );
    Some(script(&body))
}

/// A value in curl's configuration file.
fn config_word(text: &str) -> String {
    let mut word = String::with_capacity(text.len() + 2);
    word.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            '\n' => word.push_str("\\n"),
            '\r' => word.push_str("\\r"),
            '\t' => word.push_str("\\t"),
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

//! Patroni: its first start, and requests to its REST interface from the server itself.

use std::time::Duration;

use reconcile_core::{
    action::{PatroniAction, PatroniGoal},
    desired::patroni::UNIT,
    model::{Claim, ClaimKind, HostName, SecretText},
    ports::EffectError,
};

use super::{HEAD, MARGIN, claim_lines, judge, units::POPULATED};
use crate::{
    Ssh,
    fault::Fault,
    shell::{quote, script},
};

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
            PatroniAction::RestartMember => format!("restart PostgreSQL through Patroni on {host}"),
        };
        let text = patroni_script(base_url, credentials, action, deadline);
        let result = self.run_inner(host, &text, deadline).await;
        let secrets: Vec<String> =
            credentials.iter().map(|(_, password)| password.expose().to_owned()).collect();
        let judged: Result<(), Fault> = result.and_then(|output| judge(&output, &secrets));
        judged.map_err(|fault| fault.at(host, attempt))
    }
}

/// The script of one request to Patroni. It holds the credentials and belongs on a standard input.
pub fn patroni_script(
    base_url: &str,
    credentials: Option<(&str, &SecretText)>,
    action: &PatroniAction,
    deadline: Duration,
) -> String {
    let seconds = deadline.saturating_sub(MARGIN).as_secs().max(1);
    let (method, path, body) = match action {
        PatroniAction::PatchConfig { patch } => ("PATCH", "/config", patch.as_str()),
        PatroniAction::RestartMember => ("POST", "/restart", "{}"),
    };
    let mut config = format!(
        "url = {}\nrequest = {method}\nheader = \"Content-Type: application/json\"\ndata-binary = {}\n\
         max-time = {seconds}\nnoproxy = \"*\"\ninsecure\nsilent\nshow-error\n",
        config_word(&format!("{}{path}", base_url.trim_end_matches('/'))),
        config_word(body),
    );
    if let Some((user, password)) = credentials {
        config.push_str("user = ");
        config.push_str(&config_word(&format!("{user}:{}", password.expose())));
        config.push('\n');
    }
    let body = format!(
        r#"END=$(($(date +%s) + {seconds}))
{HEAD}at 'asking Patroni: {method} {path}'
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
code=$(base64 -d <<'@@CURL' | curl -q -K - -o "$T/body" -w '%{{http_code}}' 2>"$T/err"
{config}@@CURL
) || {{ cat "$T/err" >&2; fail later "Patroni does not answer: $(head -n 1 "$T/err")"; }}
said=$(head -c 400 "$T/body" 2>/dev/null | tr '\n' ' ')
case $code in
  200) exit 0 ;;
  401|403) fail after-change "Patroni refuses the credentials (HTTP $code)" ;;
  400|404|405|422) fail after-change "Patroni refuses (HTTP $code): $said" ;;
  409|412) fail soon "Patroni refuses (HTTP $code): $said" ;;
  *) fail later "Patroni answers HTTP $code: $said" ;;
esac
"#,
        config = crate::shell::base64_lines(config.as_bytes()),
    );
    script(&body)
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

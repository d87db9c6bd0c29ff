//! systemd units, and etcd's first start.

use std::fmt::Write as _;

use reconcile_core::{
    action::UnitVerb,
    desired::etcd::{BOOTSTRAP_ENV, UNIT as ETCD_UNIT},
    model::{Claim, ClaimKind},
};

use super::claim_lines;
use crate::shell::{quote, words};

/// `settled UNIT active|inactive` waits for the state, and once more for it to last: a service that
/// dies at once is active for a moment.
pub(super) const SETTLED: &str = r#"settled() {
  twice=
  while :; do
    state=$(show "$1" ActiveState)
    if [ "$state" = "$2" ]; then
      if [ "$twice" ] || [ "$2" != active ]; then return 0; fi
      twice=1
    else
      twice=
      case $state/$2 in failed/inactive) return 0 ;; failed/active) break ;; esac
    fi
    in_time || break
    sleep 0.4
  done
  journal "$1"
  fail later "$1 is $state ($(show "$1" SubState), result $(show "$1" Result)) instead of $2"
}
# systemctl, bounded; its words are kept for the error.
act() {
  at "systemctl $*"
  timeout -k 5 "$(left)" systemctl "$@" 2>"$T/err" && return 0
  s=$?
  cat "$T/err" >&2
  for u; do :; done
  journal "$u"
  case $s in 124|137) fail later "systemctl $* did not finish in time; $u is $(show "$u" ActiveState)" ;; esac
  fail later "systemctl $* failed; $u is $(show "$u" ActiveState) ($(show "$u" SubState))"
}
# loaded UNIT: reloads systemd where it must, and tells whether it knows the unit.
loaded() {
  if [ "$(show "$1" NeedDaemonReload)" = yes ] || [ "$(show "$1" LoadState)" = not-found ]; then
    systemctl daemon-reload || fail later 'systemctl daemon-reload failed'
  fi
  [ "$(show "$1" LoadState)" != not-found ]
}
# boot UNIT: enables it.
boot() {
  # It may be masked both ways, and only the stronger one shows.
  [ "$(show "$1" UnitFileState)" != masked ] || act unmask -- "$1"
  [ "$(show "$1" UnitFileState)" != masked-runtime ] || act unmask --runtime -- "$1"
  if [ "$2" ] && [ "$(show "$1" UnitFileState)" != enabled ]; then act -q enable -- "$1"; fi
}
"#;

/// The verb for people.
pub(super) fn word(verb: UnitVerb) -> &'static str {
    match verb {
        UnitVerb::Start => "start",
        UnitVerb::Stop => "stop",
        UnitVerb::Restart => "restart",
        UnitVerb::Reload => "reload",
        UnitVerb::Keep => "enable or disable",
    }
}

/// Starts, stops, restarts or reloads; see [`reconcile_core::action::HostAction::Unit`].
pub(super) fn unit(unit: &str, verb: UnitVerb, enable: bool) -> String {
    let mut body = format!("{SETTLED}U={}\n", quote(unit));
    if verb == UnitVerb::Stop {
        body.push_str(
            "loaded \"$U\" || [ \"$(show \"$U\" ActiveState)\" != inactive ] || exit 0\n\
             act stop -- \"$U\"\nsettled \"$U\" inactive\n\
             case $(show \"$U\" UnitFileState) in enabled|enabled-runtime) act -q disable -- \"$U\" ;; esac\n",
        );
        return body;
    }
    body.push_str("loaded \"$U\" || fail after-change \"$U does not exist on this server\"\n");
    let _infallible = writeln!(body, "boot \"$U\" {}", if enable { "1" } else { "''" });
    body.push_str(match verb {
        UnitVerb::Start => {
            "[ \"$(show \"$U\" ActiveState)\" != failed ] || systemctl reset-failed -- \"$U\"\n\
             [ \"$(show \"$U\" ActiveState)\" != active ] || exit 0\nact start -- \"$U\"\nsettled \"$U\" active\n"
        }
        UnitVerb::Restart => {
            "[ \"$(show \"$U\" ActiveState)\" != failed ] || systemctl reset-failed -- \"$U\"\n\
             act restart -- \"$U\"\nsettled \"$U\" active\n"
        }
        UnitVerb::Reload => {
            "if [ \"$(show \"$U\" ActiveState)\" = active ]; then\n\
             [ \"$(show \"$U\" CanReload)\" = yes ] || fail after-change \"$U has no way to reload\"\n\
             act reload -- \"$U\"\nelse\nact start -- \"$U\"\nfi\nsettled \"$U\" active\n"
        }
        UnitVerb::Keep if enable => "",
        UnitVerb::Keep | UnitVerb::Stop => {
            "case $(show \"$U\" UnitFileState) in enabled|enabled-runtime) act -q disable -- \"$U\" ;; esac\n"
        }
    });
    body
}

/// What a unit is to be told, noted before its file is replaced: whoever is cut off after that leaves
/// the note. It is in memory, for after a boot every unit has read its files.
pub(crate) const OWED: &str = "/run/reconcile/owed-";

/// Which run of a unit an upgrade has outdated, by its invocation: the note says nothing any more when
/// the unit was started anew.
pub(crate) const OUTDATED: &str = "/run/reconcile/outdated-";

fn verb_word(verb: UnitVerb) -> Option<&'static str> {
    match verb {
        UnitVerb::Reload => Some("reload"),
        UnitVerb::Restart | UnitVerb::Start => Some("restart"),
        UnitVerb::Stop | UnitVerb::Keep => None,
    }
}

/// Notes what a unit is owed; for the inside of a script that is about to replace the file.
pub(super) fn owe(unit: &str, verb: UnitVerb) -> String {
    let Some(word) = verb_word(verb) else { return String::new() };
    format!(
        "  mkdir -p -m 0755 /run/reconcile && printf '{word} %s\\n' \"$(date +%s)\" >/run/reconcile/.owed.$$ &&\n\
         \x20   mv -fT /run/reconcile/.owed.$$ {} || fail later 'cannot write in /run/reconcile'\n",
        quote(&format!("{OWED}{unit}"))
    )
}

/// Tells a running unit of its new file, and removes the note that it is owed that. One that does not
/// run reads the file when it starts; one that is only starting is restarted without waiting for it,
/// and told of what it can reload when it is up.
pub(super) fn notify(unit: &str, verb: UnitVerb) -> String {
    let act = match verb {
        UnitVerb::Reload => "reload",
        UnitVerb::Restart | UnitVerb::Start => "restart",
        UnitVerb::Stop => return format!("{SETTLED}U={}\nact stop -- \"$U\"\n", quote(unit)),
        UnitVerb::Keep => return ":\n".to_owned(),
    };
    let starting =
        if act == "restart" { "act --no-block restart -- \"$U\"\n    told" } else { ":" };
    format!(
        r#"{SETTLED}U={unit}
told() {{ rm -f -- {note}; }}
case $(show "$U" ActiveState) in
  active)
    act {act} -- "$U"
    settled "$U" active
    told ;;
  inactive|failed) told ;;
  *)
    {starting} ;;
esac
"#,
        unit = quote(unit),
        note = quote(&format!("{OWED}{unit}")),
    )
}

/// After a restart of etcd: the next member's turn comes only when this one is back in the quorum.
pub(super) fn healthy_again(member: &str) -> String {
    format!(
        r#"while [ "$(show {ETCD_UNIT} ActiveState)" = active ]; do
  seen=$(curl -q -s -S -k --noproxy '*' --max-time 2 -- {health} 2>&1)
  case $seen in *'"health":"true"'*|*'"health":true'*) break ;; esac
  at "waiting for etcd to be healthy again (it says: $seen)"
  in_time || fail later "etcd was restarted and is not healthy: ${{seen:-it says nothing}}"
  sleep 0.3
done
"#,
        health = quote(&format!("{}/health", member.trim_end_matches('/'))),
    )
}

/// `populated DIR` is true where the directory holds anything. One that cannot be listed is not
/// taken for empty.
pub(super) const POPULATED: &str = r#"populated() {
  [ -e "$1" ] || [ -L "$1" ] || return 1
  [ -d "$1" ] || fail after-change "$1 is there and is no directory"
  found=$(find -H "$1" -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit) || fail later "cannot list $1"
  [ "$found" ]
}
"#;

/// First start of an etcd member; see [`reconcile_core::action::HostAction::StartEtcd`].
pub(super) fn start_etcd(
    data_dir: &str,
    state: &str,
    list: Option<&str>,
    claims: &[Claim],
) -> String {
    let mut lines = vec![format!("ETCD_INITIAL_CLUSTER_STATE={state}")];
    lines.extend(list.map(|list| format!("ETCD_INITIAL_CLUSTER={list}")));
    // A member that was let in and did not get in has no more than empty directories.
    let again = if state == "existing" {
        format!("claimed {} \"$D\" && ! formed", ClaimKind::DataDir.word())
    } else {
        "false".to_owned()
    };
    format!(
        r#"{SETTLED}{POPULATED}D={data_dir} E={BOOTSTRAP_ENV}
at 'starting etcd'
formed() {{ [ -e "$M" ] && awk '$2 == "{formed}" {{ last[$3] = $1 }}
  END {{ for (name in last) if (last[name] == "claim") exit 0; exit 1 }}' "$M"; }}
! populated "$D" || {{ {again}; }} || fail soon "$D holds data by now: this member was started before"
loaded {ETCD_UNIT} || fail after-change '{ETCD_UNIT} does not exist on this server'
{claims}# An empty directory that somebody else left would let the member fail without a word.
if id -u etcd >/dev/null 2>&1; then
  mkdir -p -m 0700 -- "$D" && chown etcd:etcd -- "$D" || fail later "cannot make $D the member's own"
fi
mkdir -p -m 0755 "${{E%/*}}" && printf '%s\n'{lines} >"$E" || fail later "cannot write $E"
boot {ETCD_UNIT} 1
systemctl reset-failed {ETCD_UNIT} 2>/dev/null || :
case $(show {ETCD_UNIT} ActiveState) in
  inactive|failed) act --no-block start -- {ETCD_UNIT} ;;
  *) act --no-block restart -- {ETCD_UNIT} ;;
esac
"#,
        formed = ClaimKind::EtcdFormed.word(),
        data_dir = quote(data_dir),
        claims = claim_lines(None, claims),
        lines = words(&lines),
    )
}

/// Waits for a healthy member; see [`reconcile_core::action::HostAction::AwaitEtcd`].
pub(super) fn await_etcd(endpoint: &str, claims: &[Claim]) -> String {
    format!(
        r#"H={health}
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
while :; do
  seen=$(curl -q -s -S -k --noproxy '*' --max-time 3 -- "$H" 2>&1)
  case $seen in *'"health":"true"'*|*'"health":true'*) break ;; esac
  state=$(show {ETCD_UNIT} ActiveState)
  at "waiting for $H (the unit is $state, the answer: $seen)"
  if [ "$state" = failed ] || ! in_time; then
    journal {ETCD_UNIT}
    fail later "etcd is not healthy: {ETCD_UNIT} is $state, $H says: ${{seen:-nothing}}"
  fi
  sleep 0.3
done
rm -f {BOOTSTRAP_ENV}
{claims}"#,
        health = quote(&format!("{}/health", endpoint.trim_end_matches('/'))),
        claims = claim_lines(None, claims),
    )
}

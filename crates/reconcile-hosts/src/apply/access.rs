//! A trial of access rules: loaded, proven by real connections, and kept or taken back, all by the
//! server's own script.
//!
//! No password is sent. A client that is asked for one has been let in by a line of pg_hba.conf, and a
//! line that refuses does so before.

use std::fmt::Write as _;

use reconcile_core::{
    action::{AccessTrial, DesiredFile, UnitVerb},
    desired::{Login, patroni::UNIT},
    model::{AccessNote, AccessState},
};

use super::{files::HELPERS, units};
use crate::shell::{base64_lines, quote};

/// `note STATE DIGEST [REASON]` outlives a power cut. `pg SQL` asks as the operator would.
/// `put FILE` replaces the file of the rules whole.
const STEPS: &str = r#"note() {
  mkdir -p -m 0755 "${A%/*}" && printf '%s\n' "$*" >"$A.new" && sync -- "$A.new" &&
    mv -fT -- "$A.new" "$A" && sync -- "${A%/*}" || fail later "cannot write $A"
}
forget() { rm -f -- "$A" && sync -- "${A%/*}" || fail later "cannot remove $A"; }
as_postgres() {
  (cd / && timeout 10 setpriv --reuid=postgres --regid=postgres --init-groups env -i PATH="$PATH" LC_ALL=C \
    PGAPPNAME=reconcile PGCONNECT_TIMEOUT=5 PGPASSFILE=/nonexistent/pgpass "$PSQL" -w -XAtq "$@")
}
pg() { as_postgres -h "$S" -p "$PORT" -U postgres -d postgres -c "$1" 2>"$T/err"; }
put() {
  [ "$(digest "$1")" != "$(digest "$P")" ] || return 0
  # What a crash left of an earlier try.
  rm -f -- "$D/.$B.reconcile-"??????
  N=$(umask 077; mktemp -- "$D/.$B.reconcile-XXXXXX") && cat -- "$1" >"$N" || fail later "cannot write in $D"
  owned "$N" "$MODE" "$OWNER" "$GROUP"
  sync -- "$N" || fail later "cannot sync $N"
  owe
  mv -fT -- "$N" "$P" && sync -- "$D" || fail later "cannot replace $P"
}
# rules FILE: its lines without what is no rule.
rules() { sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' -- "$1" 2>/dev/null; }
tried() { [ "$(rules "$H")" = "$(rules "$T/lines")" ]; }
# reread: PostgreSQL has read its files since the rules were written.
reread() {
  m=$(stat -c %.6Y -- "$H" 2>/dev/null) &&
    [ "$(pg "select extract(epoch from pg_conf_load_time()) > $m")" = t ]
}
# Patroni notices its file when its round is over.
in_force() {
  limit=$(($(date +%s) + NOTICE))
  until "$@" && reread; do
    at 'waiting for Patroni and PostgreSQL to load the access rules'
    [ "$(date +%s)" -lt "$limit" ] || return 1
    sleep 0.3
  done
}
untried() { ! tried; }
# Patroni has written the rules since its file changed.
rewritten() { [ "$H" -nt "$P" ]; }
# section FILE: the lines of its rules, and how many there are; somebody may have written it by hand.
section() { awk "$SECTION"' inside { print } END { print found + 0 }' "$1" 2>/dev/null; }
SECTION='/^[^[:space:]#-]/ { top = $0 }
  inside && !/^[[:space:]]*(#|-|$)/ && !/^   / { inside = 0 }
  $0 == "  pg_hba:" && top == "postgresql:" { inside = 1; found++ }'
# The old file with the new rules: what else is new in the file has its own time.
splice() {
  section "$T/new" | sed '$d' >"$T/section"
  awk "$SECTION"' !inside { print; next }
    $0 == "  pg_hba:" { while ((getline line <PART) > 0) print line }' PART="$T/section" "$K" >"$T/tried" &&
    [ "$(section "$K" | sed -n '$p')" = 1 ] && [ "$(section "$T/tried")" = "$(section "$T/new")" ] ||
    cat -- "$T/new" >"$T/tried"
}
# judge: what psql said in $T/err, as a verdict. Refused is only what a rule can refuse, for that is
# noted; who is told of a role or a database has been let in by the rules.
judge() {
  said=$(tr '\n' ' ' <"$T/err" | cut -c1-400)
  fatal=$(grep -o 'FATAL:.*' "$T/err" | tail -n 1)
  fatal=${fatal:-$said}
  verdict=unknown
  case $said in *'no password supplied'*) verdict=proven; return ;; esac
  case $fatal in
    *'role "'*'" does not exist'*|*'database "'*'" does not exist'*) verdict=proven ;;
    *pg_hba.conf*|*'authentication failed for user'*|*'requires a valid client certificate'*|\
    *'authentication not supported'*|*'authentication method '*' not supported'*|\
    *'could not initiate GSSAPI security context'*|*'GSSAPI continuation error'*) verdict=refused ;;
  esac
}
# take_back: what a trial that was cut off replaced.
take_back() {
  trap '' PIPE HUP INT TERM
  loaded=0 back=1
  if [ -f "$K" ]; then
    known "$OWNER" "$GROUP"
    [ "$(section "$P")" = "$(section "$K")" ] || ! rewritten || ! pg 'select 1' >/dev/null || loaded=1
    put "$K"
    tell
    [ $loaded = 0 ] || in_force rewritten || back=0
  fi
  forget
  rm -f -- "$K"
  [ $back = 1 ] || fail later "a trial of access rules that was cut off was taken back, but the old rules were not loaded within $NOTICE s"
}
# login WHO CONNINFO…: who must get in by one of them.
login() {
  [ "$verdict" = proven ] || return 0
  who=$1; shift
  at "connecting as $who"
  for where; do
    tries=0
    while :; do
      as_postgres -d "$where" -c '' >/dev/null 2>"$T/err" && return 0
      judge
      [ "$verdict" != proven ] || return 0
      tries=$((tries + 1))
      [ "$verdict" = unknown ] && [ $tries -lt 3 ] && [ "$(date +%s)" -lt "$PROOF" ] || break
      verdict=proven
      sleep 1
    done
    why="$who does not get in: $(printf '%s' "$fatal" | tr -s ' ')"
    [ "$verdict" = refused ] || return 0
    verdict=proven last=$why
  done
  verdict=refused why=$last
}
"#;

/// Tries access rules; see [`reconcile_core::action::HostAction::TryAccess`].
pub(super) fn try_rules(file: &DesiredFile, before: Option<&str>, trial: &AccessTrial) -> String {
    let mut lines = trial.lines.join("\n");
    lines.push('\n');
    let mut body = format!(
        "{HELPERS}P={path} MODE={mode:04o} OWNER={owner} GROUP={group}\nBEFORE={before}\nD=${{P%/*}} B=${{P##*/}}\n\
         K=$D/.$B.before A={note} H={data_dir}/pg_hba.conf S={socket} PORT={port}\n\
         ACCESS={digest} NOTICE={notice} PRIMARY={primary} BACK={back}\n\
         PSQL={bin_dir}/psql; [ -x \"$PSQL\" ] || PSQL=psql\nPROOF=$((END - NOTICE - 20))\n{STEPS}\
         owe() {{\n{owe}}}\ntell() {{\n{tell}}}\n",
        path = quote(&file.path),
        mode = file.mode,
        owner = quote(&file.owner),
        group = quote(&file.group),
        before = quote(before.unwrap_or("absent")),
        note = quote(AccessNote::PATH),
        data_dir = quote(&trial.data_dir),
        bin_dir = quote(trial.bin_dir.trim_end_matches('/')),
        socket = quote(&trial.socket_dir),
        port = trial.port,
        digest = quote(&trial.digest),
        notice = trial.notice_seconds,
        primary = u8::from(trial.primary),
        back = u8::from(trial.back),
        owe = units::owe(UNIT, UnitVerb::Reload),
        tell = units::notify(UNIT, UnitVerb::Reload),
    );
    let _infallible = write!(
        body,
        r#"at 'trying access rules'
mkdir -p -m 0755 /run/reconcile && exec 8>/run/reconcile/access.lock || fail later 'cannot write in /run/reconcile'
# An operator that was cut off may have left a trial under way.
flock -w "$(left)" 8 || fail soon 'access rules are being tried here'
(umask 077; base64 -d >"$T/new") <<'@@FILE' || fail later 'cannot write a temporary file'
{content}@@FILE
base64 -d >"$T/lines" <<'@@LINES' || fail later 'cannot write a temporary file'
{lines}@@LINES
stage='' of='' why=''
[ ! -e "$A" ] || read -r stage of why <"$A"
if [ $BACK = 1 ]; then
  [ "$stage" != {trying} ] || take_back
  exit 0
fi
case $stage/$of in
  {proven}/"$ACCESS") ! tried || exit 0 ;;
  {refused}/"$ACCESS") fail soon "they were tried and taken back: $why" ;;
esac
known "$OWNER" "$GROUP"
if [ "$stage" != {trying} ] || [ ! -f "$K" ]; then
  now=$(digest "$P") || fail later "cannot read $P"
  [ "$now" = "$BEFORE" ] && [ "$now" != absent ] ||
    fail after-change "$P was changed by somebody else since the plan (it is $now, the plan saw $BEFORE)"
  standby=$(pg 'select pg_is_in_recovery()') || fail soon "PostgreSQL does not answer: $(tail -n 1 "$T/err")"
  [ "$standby" = t ] || [ $PRIMARY = 1 ] || fail soon 'it is the primary by now; nothing was tried'
  (umask 077; rm -f -- "$K" && cat -- "$P" >"$K") && sync -- "$K" "$D" || fail later "cannot keep $P"
fi
# From here on the work is finished even if nobody listens any more.
trap '' PIPE HUP INT TERM
note {trying} "$ACCESS"
here=0
verdict=proven why=
if ! pg 'select 1' >/dev/null; then
  verdict=unknown why="PostgreSQL does not answer: $(tail -n 1 "$T/err")"
else
  splice
  # In force here before, there is nothing else to go back to.
  [ "$(digest "$T/tried")" != "$(digest "$K")" ] || ! tried || here=1
  put "$T/tried"
  tell
  if ! in_force tried; then
    verdict=unknown why="they were not loaded within $NOTICE s"
  elif ! bad=$(pg 'select line_number, error from pg_hba_file_rules where error is not null and type is null order by 1 limit 1'); then
    verdict=unknown why="PostgreSQL does not tell its rules: $(tail -n 1 "$T/err")"
  elif [ "$bad" ]; then
    verdict=refused why="PostgreSQL does not take \`$(sed -n "${{bad%%|*}}p" "$H")\`: ${{bad#*|}}"
  else
    :
{logins}  fi
fi
if [ "$verdict" = proven ]; then
  note {proven} "$ACCESS"
  rm -f -- "$K"
  exit 0
fi
why=$(printf '%s' "$why" | tr '\n' ' ' | cut -c1-400)
put "$K"
tell
if [ $here = 1 ]; then why="$why (they were in force here before)"
else in_force untried || why="$why (and the old rules were not loaded within $NOTICE s)"; fi
if [ "$verdict" = refused ]; then note {refused} "$ACCESS" "$why"; else forget; fi
rm -f -- "$K"
[ "$verdict" = unknown ] || fail soon "the access rules were taken back: $why"
fail later "the access rules could not be tried and were taken back: $why"
"#,
        content = base64_lines(file.content.bytes()),
        lines = base64_lines(lines.as_bytes()),
        proven = AccessState::Proven.word(),
        refused = AccessState::Refused.word(),
        trying = AccessState::Trying.word(),
        logins = logins(trial),
    );
    body
}

/// A call for each login.
fn logins(trial: &AccessTrial) -> String {
    let mut text = String::new();
    for login in &trial.logins {
        let Login { address, user, databases, replication } = login;
        let from = address.as_deref().unwrap_or("the Unix socket");
        let host = address.as_deref().unwrap_or(&trial.socket_dir);
        let info = |rest: &str| {
            let (host, user) = (value(host), value(user));
            format!("host={host} port={} user={user} {rest}", trial.port)
        };
        let (what, infos) = if *replication {
            ("for replication".to_owned(), vec![info("replication=true")])
        } else {
            let infos = databases.iter().map(|name| info(&format!("dbname={}", value(name))));
            (format!("to database {}", databases.join(" or ")), infos.collect())
        };
        let who = quote(&format!("{user} {what} from {from}"));
        let _infallible = writeln!(text, "    login {who}{}", crate::shell::words(infos));
    }
    text
}

/// A value in a connection string.
fn value(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

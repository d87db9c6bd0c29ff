//! Packages: `apt-get install` that starts nothing, keeps configuration files, survives having been
//! killed before, and says which package is missing.

use std::fmt::Write as _;

use reconcile_core::{
    desired::server::{POLICY, POLICY_TEXT},
    model::{Claim, ClaimKind},
};

use super::{OUTDATED, claim_lines};
use crate::shell::{quote, words};

/// `want NAME VERSION` notes what is not installed (as asked). An installed package without a pin
/// stays as it is: installing must not upgrade behind the plan's back.
const WANT: &str = r#"need=
want() {
  got=$(dpkg-query -W -f '${db:Status-Status} ${Version}' -- "$1" 2>/dev/null) || got=
  case $got in
    "installed $2") return 0 ;;
    'installed '*) [ "$2" ] || return 0 ;;
  esac
  need="$need $1${2:+=$2}"
}
"#;

/// Keeps packages from starting their services, and cleans up on every way out. A policy that
/// somebody else put there stays and is honoured.
const GUARD: &str = r#"unguard() { if [ -f "$R" ] && [ ! -L "$R" ] && printf '%s' "$POLICY" | cmp -s - "$R"; then rm -f "$R"; fi; }
guard() {
  unguard
  [ ! -e "$R" ] && [ ! -L "$R" ] || return 0
  printf '%s' "$POLICY" >"$T/policy" && chmod 0755 "$T/policy" &&
    cp "$T/policy" "$R.reconcile" && mv -f "$R.reconcile" "$R" || fail later "cannot write $R"
}
trap 'unguard; rm -rf "$T"' EXIT
# What a power cut left of an earlier try would keep every package of this server from starting.
unguard
rm -f "$R.reconcile"
"#;

/// apt, bounded and without questions. needrestart must not restart services on its own.
const APT: &str = r#"export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none
apt() {
  # A lock that stays is apt's to tell, with its holder, before the deadline cuts it off.
  lock=$(($(left) - 5)); [ "$lock" -le 120 ] || lock=120; [ "$lock" -ge 1 ] || lock=1
  timeout -k 30 "$(left)" apt-get -q -o DPkg::Lock::Timeout="$lock" -o Dpkg::Use-Pty=0 \
    -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-confdef "$@" >"$T/apt" 2>&1
}
# why: ends with apt's own words.
why() {
  s=$1; tail -n 20 "$T/apt" >&2
  case $s in 124|137) fail later "$2 did not finish in time" ;; esac
  line=$(grep -m 1 '^E: ' "$T/apt" || tail -n 1 "$T/apt")
  case $line in
    *'Unable to locate package'*|*'was not found'*|*'has no installation candidate'*|*'unmet dependencies'*|*'held broken packages'*|*'Held packages'*|*'Packages were downgraded'*)
      fail after-change "$2: $line" ;;
    *'ould not get lock'*|*'nable to acquire'*) fail later "another package manager holds the lock: $line" ;;
  esac
  fail later "$2: ${line:-apt-get ended with status $s}"
}
# missing: those of $need that no package source has.
missing() {
  lacks=
  for p in $need; do
    # An unknown version of a known package prints nothing and yet ends with 0.
    [ "$(apt-cache show --no-all-versions -- "$p" 2>/dev/null | head -c 1)" ] || lacks="$lacks $p"
  done
}
update() { at 'apt-get update'; apt update; }
"#;

/// The work itself, with what is known to go wrong and to be mended by doing it again.
const INSTALL: &str = r#"if [ "$need" ]; then
  at "looking for$need"
  missing
  if [ "$lacks" ]; then
    update; updated=$?
    missing
    if [ "$lacks" ]; then
      [ "$updated" = 0 ] || why "$updated" 'apt-get update'
      fail after-change "no package source of this server has:$lacks"
    fi
  fi
  late
  # From here on the work is finished even if nobody listens any more.
  trap '' PIPE HUP INT TERM
  guard
  begin
  at "apt-get install$need"
  tries=0
  # shellcheck disable=SC2086 # names and versions, checked before
  until apt install -y --no-install-recommends $only -- $need; do
    s=$?
    tries=$((tries + 1))
    [ "$tries" -lt 3 ] && in_time || why "$s" 'apt-get install'
    if grep -q 'dpkg --configure -a' "$T/apt"; then
      at 'dpkg --configure -a'
      timeout -k 30 "$(left)" dpkg --force-confold --force-confdef --configure -a >"$T/apt" 2>&1 ||
        why "$?" 'dpkg --configure -a'
    elif grep -q -e '^E: Failed to fetch' -e '^E: Unable to fetch' "$T/apt"; then
      update || why "$?" 'apt-get update'
    else
      why "$s" 'apt-get install'
    fi
  done
  unguard
fi
"#;

/// `quiet UNIT HAD` stops and disables a unit that a package brought, unless it ran before the
/// package was ours.
const QUIET: &str = r#"lively() {
  case $(show "$1" UnitFileState) in enabled|enabled-runtime) return 0 ;; esac
  case $(show "$1" ActiveState) in active|activating|reloading) return 0 ;; esac
  return 1
}
quiet() {
  lively "$1" || return 0
  [ "$2" = 0 ] || [ "$resumed" = 1 ] || return 0
  at "silencing $1"
  timeout -k 5 "$(left)" systemctl disable --now -- "$1" >"$T/apt" 2>&1 || why "$?" "systemctl disable --now $1"
}
"#;

/// `begin` notes, before anything is replaced, by its invocation which run of a unit is about to be
/// outdated. Where nothing was replaced after all, what it noted goes again.
const OUTDATE: &str = r#"made=
held() { dpkg-query -W -f '${Package} ${Version} ${Status}\n' --$names 2>/dev/null; }
outdate() {
  [ "$(show "$1" MainPID)" != 0 ] || return 0
  run=$(show "$1" InvocationID) && [ "$run" ] || return 0
  N=$OUTDATED$1
  [ "$(cat "$N" 2>/dev/null)" != "$run" ] || return 0
  mkdir -p -m 0755 /run/reconcile && printf '%s\n' "$run" >/run/reconcile/.outdated.$$ &&
    mv -fT /run/reconcile/.outdated.$$ "$N" || fail later 'cannot write in /run/reconcile'
  made="$made $N"
}
begin() { for u in $units; do outdate "$u"; done; }
as_before() { unguard; [ "$(held)" != "$before" ] || [ -z "$made" ] || rm -f -- $made; rm -rf "$T"; }
trap as_before EXIT
before=$(held)
"#;

/// Upgrades packages; see [`reconcile_core::action::HostAction::UpgradePackages`].
/// `ask` is asked as late as can be.
pub(super) fn upgrade(
    packages: &[(String, String)],
    outdates: &[String],
    ask: &str,
) -> Result<String, String> {
    let mut wants = String::new();
    for (name, version) in packages {
        check(name, Some(version))?;
        let _infallible = writeln!(wants, "want {} {}", quote(name), quote(version));
    }
    for unit in outdates {
        check(unit, None)?;
    }
    Ok(format!(
        "R={} POLICY={} OUTDATED={OUTDATED}\nnames={} units={}\n\
         {WANT}{GUARD}{APT}{OUTDATE}only=--no-remove\n\
         late() {{ :\n{ask}}}\n{wants}{INSTALL}\
         # What was started while packages were being replaced may have read the old ones.\n\
         [ -z \"$need\" ] || begin\n",
        quote(POLICY),
        quote(POLICY_TEXT),
        quote(&words(packages.iter().map(|(name, _)| name))),
        quote(&words(outdates)),
    ))
}

/// Installs packages; see [`reconcile_core::action::HostAction::InstallPackages`].
/// `ask` is asked as late as can be.
pub(super) fn install(
    packages: &[(String, Option<String>)],
    cluster: &str,
    claims: &[Claim],
    (silence, start): (&[String], &[String]),
    ask: &str,
) -> Result<String, String> {
    let mut body =
        format!("R={} POLICY={}\n{WANT}{GUARD}{APT}{QUIET}", quote(POLICY), quote(POLICY_TEXT));
    for (name, version) in packages {
        check(name, version.as_deref())?;
        let _infallible =
            writeln!(body, "want {} {}", quote(name), quote(version.as_deref().unwrap_or("")));
    }
    // Where all of them are claimed already, an earlier try of ours was cut off: units that live
    // now were brought by it, not by somebody else before.
    let own: Vec<&Claim> = claims.iter().filter(|claim| claim.kind == ClaimKind::Package).collect();
    body.push_str("resumed=0\n");
    if !own.is_empty() {
        let all: Vec<String> =
            own.iter().map(|claim| format!("claimed package {}", quote(&claim.name))).collect();
        let _infallible = writeln!(body, "if {}; then resumed=1; fi", all.join(" && "));
    }
    for (index, unit) in silence.iter().enumerate() {
        let _infallible =
            writeln!(body, "had{index}=0; if lively {}; then had{index}=1; fi", quote(unit));
    }
    body.push_str(&claim_lines(Some(cluster), claims));
    let _infallible = write!(body, "only=\nlate() {{ :\n{ask}}}\nbegin() {{ :; }}\n");
    body.push_str(INSTALL);
    for (index, unit) in silence.iter().enumerate() {
        let _infallible = writeln!(body, "quiet {} \"$had{index}\"", quote(unit));
    }
    if !start.is_empty() {
        let _infallible = write!(
            body,
            "for u in{}; do\n  at \"starting $u\"\n\
             \x20 # Enabling again costs seconds where a unit has a SysV script.\n\
             \x20 [ \"$(show \"$u\" UnitFileState) $(show \"$u\" ActiveState)\" != 'enabled active' ] || continue\n\
             \x20 timeout -k 5 \"$(left)\" systemctl enable --now -- \"$u\" >\"$T/apt\" 2>&1 || {{\n\
             \x20   s=$?; journal \"$u\"; why \"$s\" \"systemctl enable --now $u\"; }}\ndone\n",
            words(start)
        );
    }
    Ok(body)
}

/// apt takes `name-` as "remove" and patterns as many: only plain names and versions pass.
fn check(name: &str, version: Option<&str>) -> Result<(), String> {
    let plain = |text: &str, extra: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
    };
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts || name.ends_with('-') || !plain(name, "+-.:") {
        return Err(format!("`{name}` is not the name of a package"));
    }
    match version {
        Some(version) if version.is_empty() || !plain(version, "+-.:~") => {
            Err(format!("`{version}` is not a version of package {name}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn apts_own_signs_do_not_pass() {
        assert!(check("libstdc++6", None).is_ok());
        assert!(check("postgresql-15", Some("15.14-0+deb12u1")).is_ok());
        assert!(check("g++", Some("4:12.2.0-3")).is_ok());
        for name in ["etcd-", "-y", "a b", "a*", "", "a;b"] {
            assert!(check(name, None).is_err(), "{name}");
        }
        assert!(check("etcd", Some("")).is_err());
        assert!(check("etcd", Some("1 2")).is_err());
    }
}

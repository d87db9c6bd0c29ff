//! Files and directories. A file is replaced whole or not at all, and only if it still is what the
//! plan saw.

use std::fmt::Write as _;

use reconcile_core::{
    action::{DesiredFile, EtcdQuorum, UnitVerb},
    model::{Claim, ClaimKind},
};

use super::{claim_lines, units};
use crate::shell::{base64_lines, quote, words};

/// `digest PATH` prints the digest of a regular file, `absent`, or what else stands there.
/// `known OWNER GROUP` tells who is missing: before anything is claimed that cannot be made.
/// `owned PATH MODE OWNER GROUP` sets mode and owner.
pub(super) const HELPERS: &str = r#"digest() {
  if [ -L "$1" ]; then printf 'a symbolic link\n'
  elif [ -f "$1" ]; then d=$(sha256sum <"$1") && printf '%s\n' "${d%% *}"
  elif [ -d "$1" ]; then printf 'a directory\n'
  elif [ -e "$1" ]; then printf 'no regular file\n'
  else printf 'absent\n'; fi
}
known() {
  getent passwd "$1" >/dev/null || fail after-change "user $1 does not exist on this server"
  getent group "$2" >/dev/null || fail after-change "group $2 does not exist on this server"
}
owned() {
  chown "$3:$4" -- "$1" && chmod "$2" -- "$1" || fail later "cannot set owner and mode of $1"
}
"#;

/// Writes a file; see [`reconcile_core::action::HostAction::WriteFile`].
pub(super) fn write(
    file: &DesiredFile,
    before: Option<&str>,
    claim: bool,
    notify: Option<(&str, UnitVerb)>,
    quorum: Option<&EtcdQuorum>,
    cluster: &str,
) -> String {
    let claims = if claim {
        let own = Claim { kind: ClaimKind::File, name: file.path.clone() };
        claim_lines(Some(cluster), &[own])
    } else {
        String::new()
    };
    let mut body = format!(
        "{HELPERS}P={path} MODE={mode:04o} OWNER={owner} GROUP={group}\n\
         WANT={want} BEFORE={before}\nD=${{P%/*}} B=${{P##*/}}\n",
        path = quote(&file.path),
        mode = file.mode,
        owner = quote(&file.owner),
        group = quote(&file.group),
        want = file.content.digest(),
        before = quote(before.unwrap_or("absent")),
    );
    let _infallible = write!(
        body,
        r#"at "writing $P"
now=$(digest "$P") || fail later "cannot read $P"
if [ "$now" != "$WANT" ] && [ "$now" != "$BEFORE" ]; then
  fail after-change "$P was changed by somebody else since the plan (it is $now, the plan saw $BEFORE)"
fi
known "$OWNER" "$GROUP"
{claims}mkdir -p -m 0755 -- "$D" || fail later "cannot make directory $D"
{ask}if [ "$now" = "$WANT" ]; then
  [ "$(stat -c '%04a %U %G' -- "$P")" = "$MODE $OWNER $GROUP" ] || owned "$P" "$MODE" "$OWNER" "$GROUP"
else
  # What a crash left of an earlier try.
  rm -f -- "$D/.$B.reconcile-"??????
  N=$(umask 077; mktemp -- "$D/.$B.reconcile-XXXXXX") || fail later "cannot write in $D"
  trap 'rm -rf "$T"; rm -f -- "$N"' EXIT
  base64 -d >"$N" <<'@@FILE' || fail later "cannot write in $D (is the disk full?)"
{content}@@FILE
  [ "$(digest "$N")" = "$WANT" ] || fail soon "$P did not arrive whole"
  owned "$N" "$MODE" "$OWNER" "$GROUP"
  sync -- "$N" || fail later "cannot sync $N"
  # Once more, as late as can be.
  [ "$(digest "$P")" = "$now" ] || fail after-change "$P is being changed by somebody else right now"
  # From here on the work is finished even if nobody listens any more: a service must not be left
  # on the old file.
  trap '' PIPE HUP INT TERM
{owe}  mv -fT -- "$N" "$P" && sync -- "$D" || fail later "cannot replace $P"
fi
"#,
        content = base64_lines(file.content.bytes()),
        ask = quorum
            .map(|quorum| {
                format!("if [ \"$WANT\" != \"$BEFORE\" ]; then\n{}fi\n", ask_quorum(quorum))
            })
            .unwrap_or_default(),
        owe = notify.map(|(unit, verb)| units::owe(unit, verb)).unwrap_or_default(),
    );
    if is_unit_file(&file.path) {
        body.push_str("systemctl daemon-reload || fail later 'systemctl daemon-reload failed'\n");
    }
    if let Some((unit, verb)) = notify {
        // Not where the plan itself saw the file as it should be: then only its owner was wrong.
        let _infallible =
            write!(body, "[ \"$WANT\" = \"$BEFORE\" ] || {{\n{}}}\n", units::notify(unit, verb));
    }
    if let Some(quorum) = quorum {
        body.push_str(&units::healthy_again(&quorum.member));
    }
    body
}

/// The plan counted the others when it was made; a member may have failed since. Nothing has been
/// changed yet where they are too few.
pub(super) fn ask_quorum(quorum: &EtcdQuorum) -> String {
    let urls = quorum.peers.iter().map(|url| format!("{}/health", url.trim_end_matches('/')));
    format!(
        r#"at 'asking the other members of etcd'
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
well=0
for h in{urls}; do
  case $(curl -q -s -k --noproxy '*' --max-time 2 -- "$h" 2>/dev/null) in
    *'"health":"true"'*|*'"health":true'*) well=$((well + 1)) ;;
  esac
done
[ "$well" -ge {needed} ] || fail later "a restart would cost etcd its quorum: $well other members are healthy, {needed} are needed"
"#,
        urls = words(urls.collect::<Vec<_>>()),
        needed = quorum.needed,
    )
}

/// Removes a file of ours; see [`reconcile_core::action::HostAction::RemoveFile`].
pub(super) fn remove(path: &str, digest: &str) -> String {
    let mut body = format!(
        r#"{HELPERS}P={path} WANT={want}
at "removing $P"
now=$(digest "$P") || fail later "cannot read $P"
if [ "$now" != absent ]; then
  claimed file "$P" || fail after-change "$P is not claimed in $M: somebody else made it"
  [ "$now" = "$WANT" ] || fail after-change "$P was changed by somebody else (it is $now, the plan saw $WANT)"
  rm -f -- "$P" && sync -- "${{P%/*}}/" || fail later "cannot remove $P"
fi
manifest "release file $P"
"#,
        path = quote(path),
        want = quote(digest),
    );
    if is_unit_file(path) {
        body.push_str("systemctl daemon-reload || fail later 'systemctl daemon-reload failed'\n");
    }
    body
}

/// Makes a directory; see [`reconcile_core::action::HostAction::EnsureDirectory`].
pub(super) fn directory(path: &str, mode: u32, owner: &str, group: &str) -> String {
    format!(
        r#"{HELPERS}P={path}
at "making directory $P"
[ -d "$P" ] || {{ [ ! -e "$P" ] && [ ! -L "$P" ]; }} || fail after-change "$P is there and is no directory"
known {owner} {group}
[ -d "$P" ] || mkdir -p -- "$P" || fail later "cannot make directory $P"
[ "$(stat -L -c '%04a %U %G' -- "$P")" = {now} ] || owned "$P" {mode:04o} {owner} {group}
"#,
        path = quote(path),
        now = quote(&format!("{mode:04o} {owner} {group}")),
        owner = quote(owner),
        group = quote(group),
    )
}

fn is_unit_file(path: &str) -> bool {
    path.starts_with("/etc/systemd/system/") || path.starts_with("/run/systemd/system/")
}

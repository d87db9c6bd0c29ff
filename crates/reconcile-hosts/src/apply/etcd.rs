//! Changes of etcd's membership, through the JSON gateway of its members, from the server that each
//! is about: there what speaks for it is seen once more in the same script.

use reconcile_core::{
    action::EtcdChange,
    desired::{etcd::UNIT, patroni::UNIT as PATRONI},
    model::ClaimKind,
};
use serde_json::json;

use super::units::POPULATED;
use crate::shell::{quote, words};

/// `ask PATH BODY` sets `code` and leaves the answer in `$T/answer`. `list` leaves a member a row in
/// `$T/rows`. `anew` ends the script unless nothing of etcd is on this server.
const ASK: &str = r#"ask() {
  : >"$T/answer"
  code=$(curl -q -s -S -k --noproxy '*' --max-time 5 -o "$T/answer" -w '%{http_code}' -d "$2" -- "$V$1" 2>"$T/err") || code=000
}
refused() {
  said=$(sed -n 's/.*"error":"\([^"]*\)".*/\1/p' "$T/answer")
  fail later "the member at $V refuses to $1: ${said:-HTTP $code $(cat "$T/err")}"
}
list() {
  ask /v3/cluster/member/list '{"linearizable":true}'
  [ "$code" = 200 ] || refused 'list the members'
  tr -d ' \n' <"$T/answer" | tr '{' '\n' | grep -F '"ID":' >"$T/rows" || fail later "the member at $V lists no members"
}
anew() {
  ! populated "$D" || fail soon "$D holds data by now: the member here is not gone"
  ! claimed FORMED "$N" || fail after-change 'this server has been part of the cluster: are the data of etcd not mounted?'
  case $(show UNIT ActiveState) in active|activating|reloading) fail soon 'etcd runs here by now: the member is not gone' ;; esac
}
"#;

/// See [`reconcile_core::action::HostAction::EtcdMembership`].
pub(super) fn membership(
    change: &EtcdChange,
    via: &[String],
    data_dir: &str,
    token: &str,
) -> Result<String, String> {
    let via: Vec<&str> = via.iter().map(|url| url.trim_end_matches('/')).collect();
    let Some(first) = via.first() else { return Err("no member is named to ask".to_owned()) };
    let ask = ASK.replace("FORMED", ClaimKind::EtcdFormed.word()).replace("UNIT", UNIT);
    let head = format!(
        r#"{POPULATED}{ask}D={dir} N={token} V={first}
command -v curl >/dev/null || fail after-change 'curl is not installed on this server'
at 'asking whether every member is healthy'
for u in{via}; do
  seen=$(curl -q -s -S -k --noproxy '*' --max-time 3 -- "$u/health" 2>&1)
  case $seen in *'"health":"true"'*|*'"health":true'*) ;;
    *) fail later "the membership stays as it is: the member at $u is not healthy (${{seen:-it says nothing}})" ;; esac
done
at 'listing the members'
list
"#,
        dir = quote(data_dir),
        token = quote(token),
        first = quote(first),
        via = words(&via),
    );
    let body = match change {
        EtcdChange::Add { peer_url } => format!(
            r#"! grep -qF {word} "$T/rows" || exit 0
anew
! grep -qF '"isLearner":true' "$T/rows" || fail later 'another learner has not caught up yet'
at 'adding this server as a learner'
ask /v3/cluster/member/add {request}
[ "$code" = 200 ] || refused 'add a learner'
"#,
            word = quote(&format!("\"{peer_url}\"")),
            request = quote(&json!({ "peerURLs": [peer_url], "isLearner": true }).to_string()),
        ),
        EtcdChange::Promote { id } => format!(
            r#"while :; do
  list
  own=$(grep -F {word} "$T/rows") || fail soon 'the learner is not listed any more'
  case $own in *'"isLearner":true'*) ;; *) exit 0 ;; esac
  ask /v3/cluster/member/promote {request}
  [ "$code" != 200 ] || exit 0
  at 'waiting for the learner to catch up'
  in_time || refused 'give the learner a vote'
  sleep 0.5
done
"#,
            word = quote(&format!("\"ID\":\"{id}\"")),
            request = quote(&json!({ "ID": id }).to_string()),
        ),
        EtcdChange::Leave { id } => format!(
            r#"grep -qF {word} "$T/rows" || exit 0
case $(show {PATRONI} ActiveState) in active|activating|reloading)
  fail later 'Patroni runs here by now' ;; esac
at 'removing the member of this server'
ask /v3/cluster/member/remove {request}
[ "$code" = 200 ] || refused 'remove the member'
"#,
            word = quote(&format!("\"ID\":\"{id}\"")),
            request = quote(&json!({ "ID": id }).to_string()),
        ),
        EtcdChange::Forget { id } => format!(
            r#"grep -qF {word} "$T/rows" || exit 0
anew
at 'removing the member that stood here'
ask /v3/cluster/member/remove {request}
[ "$code" = 200 ] || refused 'remove the member'
"#,
            word = quote(&format!("\"ID\":\"{id}\"")),
            request = quote(&json!({ "ID": id }).to_string()),
        ),
    };
    Ok(head + &body)
}

//! A server as a voter on the operators' lease, and the fence in front of every effect.
//!
//! The rule is [`reconcile_core::lease::Voter`]'s. The highest token stays on disk, beside the
//! manifest; how long a grant lasts counts by the server's uptime and lives in memory. After a boot
//! a voter that remembers a token counts it as granted for one more term.
//!
//! An effect holds a shared lock as long as its script runs, whatever becomes of the connection; a
//! newer token is taken only while nobody holds it.

use std::time::Duration;

use reconcile_core::{
    lease::{ASKED, Ballot, Claimant, TTL, Vote},
    model::HostName,
    ports::EffectError,
};

use crate::{
    Ssh,
    apply::judge,
    fault::Fault,
    shell::{quote, script},
};

/// A ballot is a few milliseconds of work, unless an effect is just beginning.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where it is kept.
const PLACES: &str = r#"F=/var/lib/reconcile/fence.$CLUSTER R=/run/reconcile/lease.$CLUSTER A=/run/reconcile/asked.$CLUSTER
refuse() { printf '@@fail %s %s\n' "$1" "$2" >&2; exit 90; }
"#;

/// How it is read: `TOKEN` and `HOLDER`.
const REMEMBERED: &str = r#"TOKEN=0 HOLDER=-
[ ! -e "$F" ] || read -r TOKEN HOLDER <"$F"
case $TOKEN in ''|*[!0-9]*) refuse after-change "$F is damaged: its first word must be a number" ;; esac
"#;

/// How long the grant lasts: `left`, by the uptime `now`.
fn lasting() -> String {
    format!(
        r#"read -r up rest </proc/uptime
now=${{up%.*}}000
until=0 t=
if [ -e "$R" ]; then
  read -r t until <"$R"
  [ "$t" = "$TOKEN" ] || until=0
elif [ "$TOKEN" != 0 ]; then
  until={ttl}
fi
left=$((until - now))
[ $left -gt 0 ] || left=0
"#,
        ttl = TTL.as_millis(),
    )
}

/// Reads it under the lock, so that it can be changed.
fn memory() -> String {
    format!(
        r#"{PLACES}for d in /var/lib/reconcile /run/reconcile; do
  [ -d "$d" ] || {{ mkdir -p "$d" && chmod 0755 "$d"; }} || refuse later "cannot make $d"
done
exec 6>>"$R.lock" 7>>"$R.effects" || refuse later 'cannot write in /run/reconcile'
flock -w 5 6 || refuse soon 'another ballot or effect is just beginning'
{REMEMBERED}# remember TOKEN HOLDER: for good.
remember() {{
  printf '%s %s\n' "$1" "$2" >"$F.new" && sync "$F.new" && mv -f "$F.new" "$F" && sync /var/lib/reconcile ||
    refuse later "cannot write $F"
  TOKEN=$1 HOLDER=$2
}}
"#
    )
}

/// Who holds it, for those who only look: nothing is made, written or locked. Each file is replaced
/// as a whole; one that is replaced between the two counts as no grant.
fn seen_script(cluster: &str) -> String {
    script(&format!(
        r#"CLUSTER={cluster}
{PLACES}{REMEMBERED}{lasting}printf '@@vote 1 %s %s 0 %s -\n' "$TOKEN" "$left" "$HOLDER"
"#,
        cluster = quote(cluster),
        lasting = lasting(),
    ))
}

/// A script that is carried out only under a token that is not older than what the server has seen.
pub(crate) fn fenced(text: &str, cluster: &str, claimant: &Claimant) -> String {
    let fence = format!(
        r#"fence() {{
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
[ "$(id -u)" = 0 ] || return 0
CLUSTER={cluster}
{memory}if [ "$TOKEN" -gt {token} ] || {{ [ "$TOKEN" -eq {token} ] && [ "$HOLDER" != {holder} ]; }}; then
  refuse soon "refused: $HOLDER holds the lease of this cluster by now (token $TOKEN, this is {token})"
fi
if [ "$TOKEN" -lt {token} ]; then
  flock -w 30 -x 7 || refuse later 'an effect of an earlier holder of the lease is still under way here'
  remember {token} {holder}
fi
flock -s 7
exec 6>&-
}}
"#,
        cluster = quote(cluster),
        memory = memory(),
        token = claimant.token,
        holder = quote(&claimant.holder),
    );
    // No process that the script leaves behind may keep the lock.
    let call = "fence && main </dev/null 7>&-\nexit $?\n";
    fence + &text.replace("main </dev/null\nexit $?\n", call)
}

/// What grants a claim, also while `over` has the lease.
fn claim_rule(who: &Claimant, over: &str) -> String {
    format!(
        r#"T={token} H={holder} OVER={over}
if [ "$T" -eq "$TOKEN" ]; then
  [ "$H" != "$HOLDER" ] || [ -n "$OVER" ] || granted=1
elif [ "$T" -gt "$TOKEN" ] && [ $busy = 0 ] &&
    {{ [ $left = 0 ] || [ "$H" = "$HOLDER" ] || [ "$OVER" = "$HOLDER" ]; }}; then
  remember "$T" "$H"
  granted=1
fi
[ $granted = 0 ] || {{ left={ttl}; lasts $((now + left)); answered "$H"; }}
"#,
        token = who.token,
        holder = quote(&who.holder),
        over = quote(over),
        ttl = TTL.as_millis(),
    )
}

/// The script of a ballot.
fn ballot_script(cluster: &str, ballot: &Ballot) -> String {
    let rule = match ballot {
        Ballot::Look => "granted=1\n".to_owned(),
        Ballot::Ask(who) => format!(
            r#"granted=1
printf '%s %s\n' $((now + {lasts})) {who} >"$A.new" && mv -f "$A.new" "$A" || refuse later "cannot write $A"
"#,
            lasts = ASKED.as_millis(),
            who = quote(who),
        ),
        Ballot::Claim(who) => claim_rule(who, ""),
        Ballot::TakeOver { by, of } => claim_rule(by, of),
        Ballot::Release(who) => format!(
            r#"if [ {token} -eq "$TOKEN" ] && [ {holder} = "$HOLDER" ]; then
  granted=1 left=0
  lasts 0
  answered {holder}
fi
"#,
            token = who.token,
            holder = quote(&who.holder),
        ),
    };
    script(&format!(
        r#"CLUSTER={cluster}
{memory}# answered HOLDER: it has what it asked for, or needs it no longer.
answered() {{
  by=
  [ ! -e "$A" ] || read -r t by <"$A"
  [ "$by" != "$1" ] || rm -f "$A"
}}
lasts() {{ printf '%s %s\n' "$TOKEN" "$1" >"$R.new" && mv -f "$R.new" "$R" || refuse later "cannot write $R"; }}
{lasting}busy=0 granted=0
flock -n -x 7 || busy=1
{rule}t=0 asked=-
[ ! -e "$A" ] || read -r t asked <"$A"
[ "$t" -gt $now ] || asked=-
printf '@@vote %s %s %s %s %s %s\n' $granted "$TOKEN" $left $busy "$HOLDER" "$asked"
"#,
        cluster = quote(cluster),
        memory = memory(),
        lasting = lasting(),
    ))
}

impl Ssh {
    /// Brings a ballot on the lease of a cluster to a server.
    pub async fn vote(
        &self,
        host: &HostName,
        cluster: &str,
        ballot: &Ballot,
    ) -> Result<Vote, EffectError> {
        let attempt = format!("ask {host} for the lease");
        self.voted(host, &ballot_script(cluster, ballot), attempt).await
    }

    async fn voted(
        &self,
        host: &HostName,
        script: &str,
        attempt: String,
    ) -> Result<Vote, EffectError> {
        let output = self.run_inner(host, script, DEADLINE).await;
        let judged = output.and_then(|output| judge(&output, &[]).map(|()| output));
        let output = judged.map_err(|fault| fault.at(host, &attempt))?;
        vote(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| Fault::later("its answer is no vote").at(host, &attempt))
    }

    /// Who holds the lease of a cluster as far as a server knows. It only reads.
    pub async fn lease_seen(&self, host: &HostName, cluster: &str) -> Result<Vote, EffectError> {
        self.voted(host, &seen_script(cluster), format!("ask {host} who holds the lease")).await
    }

    /// Does nothing on a server, under the token that effects carry: an error where that is too old.
    pub async fn guard(&self, host: &HostName) -> Result<(), EffectError> {
        let text = self.fenced(script(":\n"));
        let output = self.run_inner(host, &text, DEADLINE).await;
        output
            .and_then(|output| judge(&output, &[]))
            .map_err(|fault| fault.at(host, format!("check the lease on {host}")))
    }
}

/// The answer to a ballot.
fn vote(stdout: &str) -> Option<Vote> {
    let line = stdout.lines().find_map(|line| line.strip_prefix("@@vote "))?;
    let mut words = line.splitn(6, ' ');
    Some(Vote {
        granted: words.next()? == "1",
        token: words.next()?.parse().ok()?,
        left_ms: words.next()?.parse().ok()?,
        busy: words.next()? == "1",
        holder: words.next()?.to_owned(),
        asked: Some(words.next()?).filter(|by| *by != "-").map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_is_read_whole_or_not_at_all() {
        let read = vote("noise\n@@vote 1 7 15000 0 root@ops1/4711 -\n");
        let holder = "root@ops1/4711".to_owned();
        assert_eq!(
            read,
            Some(Vote {
                granted: true,
                token: 7,
                holder,
                left_ms: 15_000,
                busy: false,
                asked: None
            })
        );
        let read = vote("@@vote 0 7 15000 0 ops1/4711 ops2/12\n");
        assert_eq!(read.and_then(|vote| vote.asked).as_deref(), Some("ops2/12"));
        assert_eq!(vote("@@vote 1 7\n"), None);
        assert_eq!(vote(""), None);
    }

    /// In a real shell, on a folder of its own.
    #[test]
    fn who_only_looks_reads_what_a_ballot_wrote_and_makes_nothing() {
        let server = tempfile::tempdir().expect("a folder");
        let (disk, memory) = (server.path().join("disk"), server.path().join("run"));
        let look = || {
            let text = seen_script("main")
                .replace("/var/lib/reconcile", &disk.display().to_string())
                .replace("/run/reconcile", &memory.display().to_string());
            let output = std::process::Command::new("sh").args(["-c", &text]).output();
            vote(&String::from_utf8_lossy(&output.expect("a shell").stdout)).expect("a vote")
        };
        let bare = look();
        assert_eq!((bare.token, bare.left_ms, bare.holder.as_str()), (0, 0, "-"));
        assert!(!disk.exists() && !memory.exists(), "a look leaves no trace");
        std::fs::create_dir(&disk).expect("made");
        std::fs::write(disk.join("fence.main"), "7 ada@ops1/4711/0\n").expect("written");
        std::fs::create_dir(&memory).expect("made");
        let lasts = |token: u64, until: &str| {
            std::fs::write(memory.join("lease.main"), format!("{token} {until}\n"))
                .expect("written");
            let seen = look();
            assert_eq!((seen.token, seen.holder.as_str()), (7, "ada@ops1/4711/0"));
            seen.left_ms
        };
        let uptime = std::fs::read_to_string("/proc/uptime").expect("read");
        let now: u64 = uptime.split('.').next().and_then(|s| s.parse().ok()).expect("a number");
        let left = lasts(7, &(now * 1000 + 12_000).to_string());
        assert!((5_000..=12_000).contains(&left), "{left}");
        assert_eq!(lasts(7, &(now * 1000).to_string()), 0, "it ran out");
        assert_eq!(lasts(6, &(now * 1000 + 12_000).to_string()), 0, "that was another's");
        assert_eq!(std::fs::read_dir(&disk).expect("read").count(), 1);
        assert_eq!(std::fs::read_dir(&memory).expect("read").count(), 1);
    }

    /// In a real shell, beside the rule that it follows.
    #[test]
    fn the_script_grants_what_the_rule_grants() {
        let server = tempfile::tempdir().expect("a folder");
        let mut rule = reconcile_core::lease::Voter::default();
        let who = |token, holder: &str| Claimant { token, holder: holder.to_owned() };
        let over =
            |token, by: &str, of: &str| Ballot::TakeOver { by: who(token, by), of: of.to_owned() };
        for (ballot, granted) in [
            (Ballot::Claim(who(1, "a")), true),
            (Ballot::Claim(who(2, "b")), false),
            (over(2, "b", "c"), false),
            (over(1, "b", "a"), false),
            (over(2, "b", "a"), true),
            (Ballot::Claim(who(1, "a")), false),
            (Ballot::Claim(who(2, "b")), true),
            (over(3, "c", "a"), false),
            (Ballot::Ask("d".to_owned()), true),
            (over(3, "c", "b"), true),
            (Ballot::Release(who(3, "c")), true),
            (over(4, "e", "a"), true),
        ] {
            let text = ballot_script("main", &ballot)
                .replace("/var/lib/reconcile", &server.path().join("disk").display().to_string())
                .replace("/run/reconcile", &server.path().join("run").display().to_string());
            let output = std::process::Command::new("sh").args(["-c", &text]).output();
            let output = output.expect("a shell");
            let seen = vote(&String::from_utf8_lossy(&output.stdout));
            let seen = seen.unwrap_or_else(|| panic!("{ballot:?}: {output:?}"));
            let wanted = rule.vote(&ballot, 0);
            assert_eq!(seen.granted, granted, "{ballot:?}: {seen:?}");
            assert_eq!(wanted.granted, granted, "{ballot:?}: {wanted:?}");
            assert_eq!((seen.token, &seen.holder), (wanted.token, &wanted.holder), "{ballot:?}");
            assert_eq!((seen.left_ms == 0, seen.asked), (wanted.left_ms == 0, wanted.asked));
        }
    }

    #[test]
    fn every_script_can_be_fenced() {
        let claimant = Claimant { token: 7, holder: "a".to_owned() };
        let text = fenced(&script(":\n"), "main", &claimant);
        assert!(text.ends_with("fence && main </dev/null 7>&-\nexit $?\n"), "{text}");
    }
}

//! The pooler for writes on a server: a guard that resumes it when its operator does not, and the
//! RESUME that any operator makes good.
//!
//! Both go by signal to the process that listens on the pooler's port, so neither needs a password,
//! Docker or the operator. SIGUSR2 is PgBouncer's RESUME; one that is not paused passes it over.

use std::time::Duration;

use reconcile_core::{model::HostName, ports::EffectError};

use super::{HEAD, judge};
use crate::{
    Ssh,
    shell::{quote, script},
};

/// A guard is a few milliseconds of work.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where a guard's end stands, in seconds of the server's uptime. It is there from before PAUSE
/// until after RESUME, so that whoever looks sees that clients may wait.
pub(crate) fn path(cluster: &str) -> String {
    format!("/run/reconcile/resume.{cluster}")
}

/// `resume PORT`: RESUME of the pooler that listens there.
const RESUME: &str = r#"resume() {
  for p in $(ss -Hltnp "sport = :$1" | grep -o '"pgbouncer",pid=[0-9]*' | sed 's/.*=//' | sort -u); do
    kill -USR2 "$p"
  done
}
"#;

/// The guard itself: `$1` is the file, `$2` the port. A file that is gone is the word that all is well.
const WATCH: &str = r#"while read -r end rest <"$1"; do
  read -r up rest </proc/uptime
  if [ "${up%.*}" -ge "$end" ]; then
    resume "$2"
    echo "the operator that paused the pooler on port $2 is gone; it is resumed"
    rm -f -- "$1" "$1.sh"
  else
    sleep 1
  fi
done 2>/dev/null
"#;

fn unit(cluster: &str) -> String {
    format!("reconcile-resume-{cluster}.service")
}

/// Names of the guard's file and unit, and how it is ended.
fn head(cluster: &str) -> String {
    format!(
        "{HEAD}{RESUME}F={} U={}\nrelease() {{ rm -f -- \"$F\" \"$F.sh\"; systemctl stop -- \"$U\" 2>/dev/null || :; }}\n",
        quote(&path(cluster)),
        quote(&unit(cluster))
    )
}

/// The script that has a server resume its pooler by itself after `bound`.
pub fn guard_script(cluster: &str, port: u16, bound: Duration) -> String {
    let bound = bound.as_secs();
    let watch = quote(&format!("{RESUME}{WATCH}"));
    script(&format!(
        r#"END=$(($(date +%s) + 8))
{head}at 'guarding the pooler'
command -v systemd-run >/dev/null || fail after-change 'systemd-run is not installed on this server'
mkdir -p -m 0755 /run/reconcile || fail later 'cannot make /run/reconcile'
# From here on it is finished even if nobody listens any more.
trap '' PIPE HUP INT TERM
read -r up rest </proc/uptime
printf '%s\n' $((${{up%.*}} + {bound})) >"$F.new" && mv -f -- "$F.new" "$F" || fail later "cannot write $F"
# A file of its own: systemd would take what the shell expands for its own variables.
printf '%s' {watch} >"$F.sh.new" && mv -f -- "$F.sh.new" "$F.sh" || fail later "cannot write $F.sh"
# Anew each time: one that was about to end would end.
systemctl stop -- "$U" 2>/dev/null
systemctl reset-failed -- "$U" 2>/dev/null
systemd-run --quiet --collect --unit="$U" -- /bin/sh "$F.sh" "$F" {port} ||
  fail later "the pooler's guard $U does not start"
"#,
        head = head(cluster),
    ))
}

/// See [`reconcile_core::action::HostAction::ResumePooler`].
pub(super) fn resume(cluster: &str, port: u16) -> String {
    // The caller's frame has the head already.
    let head = head(cluster);
    let own = head.strip_prefix(HEAD).unwrap_or(&head);
    format!("{own}at 'resuming the pooler'\nresume {port}\nrelease\n")
}

impl Ssh {
    /// Has the server resume its pooler for writes by itself after `bound`, counted from now.
    pub async fn guard_pooler(
        &self,
        host: &HostName,
        cluster: &str,
        port: u16,
        bound: Duration,
    ) -> Result<(), EffectError> {
        let text = self.fenced(guard_script(cluster, port, bound));
        self.told(host, &text, "guard the pooler").await
    }

    /// Ends the guard. It needs no lease: clients do not wait any more.
    pub async fn unguard_pooler(&self, host: &HostName, cluster: &str) -> Result<(), EffectError> {
        let text = script(&format!("END=$(($(date +%s) + 8))\n{}release\n", head(cluster)));
        self.told(host, &text, "end the guard of the pooler").await
    }

    async fn told(&self, host: &HostName, text: &str, attempt: &str) -> Result<(), EffectError> {
        let output = self.run_inner(host, text, DEADLINE).await;
        output
            .and_then(|output| judge(&output, &[]))
            .map_err(|fault| fault.at(host, format!("{attempt} on {host}")))
    }
}

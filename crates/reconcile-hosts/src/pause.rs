//! The note of a pause on a server. It is written without the lease: whoever pauses wants to stop
//! the operator that holds it.

use std::time::Duration;

use reconcile_core::{
    model::{HostName, PauseNote},
    ports::EffectError,
};

use crate::{
    Ssh,
    apply::judge,
    shell::{quote, script},
};

/// Reading or writing one line.
const DEADLINE: Duration = Duration::from_secs(10);

/// Under a lock, so that of two notes with one number only the first is taken.
fn noting(cluster: &str, note: Option<&PauseNote>) -> String {
    let path = PauseNote::path(cluster);
    let write = note.map_or_else(String::new, |note| {
        format!(
            r#"if [ "$number" -ge {number} ] && [ "$line" != {line} ]; then
  fail soon 'somebody else has just paused or resumed this cluster'
fi
if [ "$line" != {line} ]; then
  printf '%s\n' {line} >"$P.new" && sync "$P.new" && mv -f "$P.new" "$P" && sync {folder} ||
    fail later "cannot write $P"
  line={line}
fi
"#,
            number = note.number,
            line = quote(&note.line()),
            folder = PauseNote::FOLDER,
        )
    });
    script(&format!(
        r#"P={path}
for d in {folder} /run/reconcile; do
  [ -d "$d" ] || {{ mkdir -p "$d" && chmod 0755 "$d"; }} || fail later "cannot make $d"
done
exec 8>>/run/reconcile/pause.lock || fail later 'cannot write in /run/reconcile'
flock -w 5 8 || fail soon 'another note is just being written'
line= number=0
if [ -e "$P" ]; then
  IFS= read -r line <"$P"
  number=${{line%% *}}
  case $number in ''|*[!0-9]*) number=0 ;; esac
fi
{write}[ ! -e "$P" ] || printf '@@pause %s\n' "$line"
"#,
        path = quote(&path),
        folder = PauseNote::FOLDER,
    ))
}

impl Ssh {
    /// What a server has noted of a pause of the cluster.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub async fn pause_note(
        &self,
        host: &HostName,
        cluster: &str,
    ) -> Result<Option<PauseNote>, EffectError> {
        self.note(host, cluster, None, format!("read the pause on {host}")).await
    }

    /// Notes a pause, or its end, on a server; durable when it returns.
    ///
    /// # Errors
    /// Where it cannot be reached or written, or has another note with as high a number.
    pub async fn note_pause(
        &self,
        host: &HostName,
        cluster: &str,
        note: &PauseNote,
    ) -> Result<(), EffectError> {
        self.note(host, cluster, Some(note), format!("note the pause on {host}")).await.map(|_| ())
    }

    async fn note(
        &self,
        host: &HostName,
        cluster: &str,
        note: Option<&PauseNote>,
        attempt: String,
    ) -> Result<Option<PauseNote>, EffectError> {
        let output = self.run_inner(host, &noting(cluster, note), DEADLINE).await;
        let judged = output.and_then(|output| judge(&output, &[]).map(|()| output));
        let output = judged.map_err(|fault| fault.at(host, &attempt))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("@@pause "));
        Ok(line.map(|line| PauseNote::parse(line, &PauseNote::path(cluster))))
    }
}

//! A command on a server that writes for as long as somebody reads, line by line; `follow.pl`
//! beside this file sees to it that it ends with the reader.

use bytes::BytesMut;
use reconcile_core::{
    model::HostName,
    ports::{EffectError, Retry},
};
use reconcile_dial::BoxStream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf},
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{Ssh, limits};

/// The program, sent on its own standard input.
const PROGRAM: &str = include_str!("follow.pl");
/// What of a line is kept.
const LINE: usize = 16 * 1024;

/// The lines of a command; dropped, the command ends.
pub struct Following {
    host: HostName,
    attempt: String,
    from: ReadHalf<BoxStream>,
    to: WriteHalf<BoxStream>,
    ping: Interval,
    buffer: BytesMut,
    /// The rest of a line that is too long is passed over.
    overlong: bool,
}

impl Ssh {
    /// Runs a command as root and follows what it writes. No word may hold a line break.
    ///
    /// # Errors
    /// Where the server cannot be reached, or perl does not run there.
    pub async fn follow(
        &self,
        host: &HostName,
        attempt: &str,
        words: &[String],
    ) -> Result<Following, EffectError> {
        let stream = self.perl(host).await.map_err(|fault| fault.at(host, attempt))?;
        let (from, to) = tokio::io::split(stream);
        let mut ping = interval(limits::PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut following = Following {
            host: host.clone(),
            attempt: attempt.to_owned(),
            from,
            to,
            ping,
            buffer: BytesMut::new(),
            overlong: false,
        };
        let mut input = PROGRAM.to_owned();
        for word in words {
            input.push_str(&format!("word {}\n", word.replace('\n', " ")));
        }
        input.push_str("go\n");
        following.send(&input).await?;
        Ok(following)
    }
}

impl Following {
    /// The next line. Cancelled, nothing is lost.
    ///
    /// # Errors
    /// When it ends, whatever the reason.
    pub async fn next(&mut self) -> Result<String, EffectError> {
        loop {
            if let Some(line) = self.line() {
                return Ok(line);
            }
            tokio::select! {
                read = self.from.read_buf(&mut self.buffer) => match read {
                    Ok(0) => return Err(self.ended("it ended")),
                    Ok(_) => {}
                    Err(error) => return Err(self.ended(&error.to_string())),
                },
                _ = self.ping.tick() => self.send("\n").await?,
            }
        }
    }

    /// A whole line that is there already.
    fn line(&mut self) -> Option<String> {
        loop {
            let end = self.buffer.iter().position(|byte| *byte == b'\n');
            let Some(end) = end else {
                if self.buffer.len() <= LINE {
                    return None;
                }
                let start = self.buffer.split_to(LINE);
                self.buffer.clear();
                if !std::mem::replace(&mut self.overlong, true) {
                    return Some(String::from_utf8_lossy(&start).into_owned());
                }
                return None;
            };
            let line = self.buffer.split_to(end + 1);
            if std::mem::replace(&mut self.overlong, false) {
                continue;
            }
            return Some(String::from_utf8_lossy(&line[..end.min(LINE)]).into_owned());
        }
    }

    async fn send(&mut self, text: &str) -> Result<(), EffectError> {
        let sent = self.to.write_all(text.as_bytes()).await;
        sent.map_err(|error| self.ended(&error.to_string()))
    }

    fn ended(&self, cause: &str) -> EffectError {
        EffectError::new(Some(&self.host), self.attempt.clone(), cause, Retry::Soon)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        path::Path,
        process::{Child, Command, Stdio},
        time::{Duration, Instant},
    };

    use super::PROGRAM;

    fn start(script: &str) -> Child {
        let mut perl = Command::new("perl");
        perl.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut perl = perl.spawn().unwrap();
        let input = format!("{PROGRAM}word sh\nword -c\nword {script}\ngo\n");
        perl.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
        perl
    }

    #[test]
    fn both_outputs_of_a_command_and_its_status_come_back() {
        let mut perl = start("echo one; echo two >&2; exit 3");
        // Else waiting would close it.
        let _open = perl.stdin.take();
        let mut text = String::new();
        perl.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
        // Its input is still open: it ended because the command did.
        assert_eq!(perl.wait().unwrap().code(), Some(3));
        assert_eq!(text, "one\ntwo\n");
    }

    #[test]
    fn a_command_ends_with_whoever_reads_it() {
        // The one is told to end, the other does not listen.
        for script in
            ["echo $$; exec sleep 1000", "trap '' TERM; echo $$; while :; do sleep 1; done"]
        {
            let mut perl = start(script);
            let mut pid = String::new();
            BufReader::new(perl.stdout.as_mut().unwrap()).read_line(&mut pid).unwrap();
            let process = Path::new("/proc").join(pid.trim());
            assert!(process.exists());
            let ended = Instant::now();
            drop(perl.stdin.take());
            assert_eq!(perl.wait().unwrap().code(), Some(0));
            assert!(!process.exists(), "{script}");
            assert!(ended.elapsed() < Duration::from_secs(10), "{script}");
        }
    }
}

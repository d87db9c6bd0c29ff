//! `reconcile status --watch`: the same again and again. In a terminal it is painted over itself,
//! elsewhere each block has a stamp.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use super::{Round, round};
use crate::{
    cli::{Cli, Format, StatusArgs},
    commands::converge::{Prepared, prepare},
    failure::{Failure, Outcome},
    output,
    source::{self, Origin, Source, Texts},
    terminal,
};

/// Another screen, the cursor away; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Looks until Ctrl-C, SIGTERM, or until nobody reads any more.
pub(super) async fn watch(cli: &Cli, arguments: &StatusArgs) -> Result<Outcome, Failure> {
    let mut followed = Followed::start(cli)?;
    let painted =
        matches!(arguments.output, Format::Text | Format::Wide) && std::io::stdout().is_terminal();
    let screen = painted.then(Screen::enter).transpose()?;
    let mut stop = std::pin::pin!(super::super::signal());
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| Failure::from_error("listen for signals", &error))?;
    let interval = Duration::from_secs(arguments.interval);
    let mut last = String::new();
    let ended = loop {
        let next = Instant::now() + interval;
        let text = tokio::select! {
            () = &mut stop => break Ok(()),
            text = block(&mut followed, arguments) => match text {
                Ok(text) => text,
                Err(failure) => break Err(failure),
            },
        };
        last = text;
        if let Some(screen) = &screen {
            if screen.paint(&last).is_err() {
                break Ok(());
            }
            tokio::select! {
                () = &mut stop => break Ok(()),
                () = repaint(screen, &last, &mut resized, next) => {}
            }
        } else {
            match output::print_open(&last) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(failure) => break Err(failure),
            }
            tokio::select! {
                () = &mut stop => break Ok(()),
                () = sleep_until(next) => {}
            }
        }
    };
    if screen.is_some() {
        drop(screen);
        // What was seen last stays.
        output::print(&last)?;
    }
    ended.map(|()| Outcome::Done)
}

/// Paints anew when the terminal gets another size.
async fn repaint(screen: &Screen, text: &str, resized: &mut Signal, until: Instant) {
    loop {
        tokio::select! {
            () = sleep_until(until) => return,
            _ = resized.recv() => drop(screen.paint(text)),
        }
    }
}

/// All clusters once.
async fn block(followed: &mut Followed<'_>, arguments: &StatusArgs) -> Result<String, Failure> {
    followed.refresh();
    let stamp = Timestamp::now();
    let mut text = String::new();
    for prepared in &followed.prepared {
        let source = &followed.source;
        let Round { status, .. } = round(followed.cli, prepared, source, arguments).await?;
        match arguments.output {
            Format::Text | Format::Wide => {
                text.push_str(&format!("{stamp:.0}, every {} s\n", arguments.interval));
                if let Some(fault) = &followed.fault {
                    text.push_str(&format!("The file as it was; now it is no good:\n{fault}\n"));
                }
                text.push_str(&status);
                text.push('\n');
            }
            Format::Json => text.push_str(&status),
            Format::Yaml => {
                text.push_str("---\n");
                text.push_str(&status);
            }
        }
    }
    Ok(text)
}

/// The clusters of the file, which may change meanwhile.
struct Followed<'a> {
    cli: &'a Cli,
    origin: Origin,
    texts: Option<Texts>,
    source: Source,
    prepared: Vec<Prepared>,
    fault: Option<String>,
    looked: Instant,
}

impl<'a> Followed<'a> {
    fn start(cli: &'a Cli) -> Result<Self, Failure> {
        let origin = source::origin(cli)?;
        let source = source::read_in_force(cli)?;
        let prepared = all(&source)?;
        let texts = match &origin {
            Origin::Path(..) => origin.texts().ok(),
            Origin::Git(_) => None,
        };
        Ok(Self { cli, origin, texts, source, prepared, fault: None, looked: Instant::now() })
    }

    /// Takes the file as it is now. The connections of before serve on where nothing has changed.
    fn refresh(&mut self) {
        match &self.origin {
            Origin::Path(..) => {
                let texts = self.origin.texts();
                if texts.as_ref().ok().map(|texts| &texts.files)
                    == self.texts.as_ref().map(|texts| &texts.files)
                {
                    return;
                }
                self.texts = texts.ok();
            }
            Origin::Git(_) => {
                if self.looked.elapsed() < Duration::from_secs(self.cli.git.git_interval) {
                    return;
                }
                self.looked = Instant::now();
            }
        }
        let read = source::read_in_force(self.cli);
        let read = match read {
            Ok(source) if source.clusters == self.source.clusters => {
                self.fault = None;
                self.source.revision = source.revision;
                self.source.refused = source.refused;
                return;
            }
            read => read,
        };
        match read.and_then(|source| all(&source).map(|prepared| (source, prepared))) {
            Ok((source, prepared)) => {
                (self.source, self.prepared, self.fault) = (source, prepared, None);
            }
            Err(failure) => self.fault = Some(failure.text()),
        }
    }
}

fn all(source: &Source) -> Result<Vec<Prepared>, Failure> {
    source.clusters.iter().map(|spec| prepare(spec, &source.base)).collect()
}

/// The terminal while it is painted on; dropped, it is as it was.
struct Screen;

impl Screen {
    fn enter() -> Result<Self, Failure> {
        let mut stdout = anstream::stdout();
        stdout
            .write_all(ENTER.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::from_error("use the terminal", &error))?;
        Ok(Self)
    }

    /// Over what was there, without a blank moment between.
    #[expect(clippy::unused_self, reason = "only between `enter` and `drop`")]
    fn paint(&self, text: &str) -> std::io::Result<()> {
        let mut stdout = std::io::stdout();
        // Colours are left out where they are not wanted; what moves the cursor is not colour.
        let choice = anstream::AutoStream::choice(&stdout);
        let text = if choice == anstream::ColorChoice::Never {
            anstream::adapter::strip_str(text).to_string()
        } else {
            text.to_owned()
        };
        stdout.write_all(frame(&text, terminal::size()).as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut stdout = std::io::stdout();
        // A terminal that is gone needs nothing.
        let _gone = stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// A text as it fits: lines are cut at the right, and what is below the last row is counted.
fn frame(text: &str, (columns, rows): (u32, u32)) -> String {
    let (columns, rows) = (columns as usize, rows as usize);
    let lines: Vec<_> = text.trim_end().lines().collect();
    let shown = if lines.len() > rows { rows.saturating_sub(1) } else { lines.len() };
    let mut frame = String::from("\x1b[H");
    for (row, line) in lines.iter().take(shown).enumerate() {
        if row > 0 {
            frame.push_str("\r\n");
        }
        frame.push_str(&cut(line, columns));
        frame.push_str("\x1b[K");
    }
    if shown < lines.len() {
        let rest = format!("… {} more lines", lines.len() - shown);
        let next = if shown > 0 { "\r\n" } else { "" };
        frame.push_str(&format!("{next}{}\x1b[K", cut(&rest, columns)));
    }
    frame.push_str("\x1b[J");
    frame
}

/// At most so many characters that are seen. A line of ours holds one-column characters only.
fn cut(line: &str, columns: usize) -> String {
    let seen = anstream::adapter::strip_str(line).to_string().chars().count();
    if seen <= columns {
        return line.to_owned();
    }
    let (mut text, mut count, mut escape) = (String::new(), 0, false);
    for character in line.chars() {
        if escape {
            escape = !character.is_ascii_alphabetic();
        } else if character == '\x1b' {
            escape = true;
        } else {
            count += 1;
            if count >= columns {
                break;
            }
        }
        text.push(character);
    }
    text.push('…');
    text.push_str("\x1b[0m");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal() {
        let text = "one\n\x1b[32mtwo and more\x1b[0m of it\nthree\nfour\n";
        assert_eq!(
            frame(text, (80, 24)),
            "\x1b[Hone\x1b[K\r\n\x1b[32mtwo and more\x1b[0m of it\x1b[K\r\nthree\x1b[K\r\nfour\x1b[K\x1b[J"
        );
        assert_eq!(
            frame(text, (6, 3)),
            "\x1b[Hone\x1b[K\r\n\x1b[32mtwo a…\x1b[0m\x1b[K\r\n… 2 m…\x1b[0m\x1b[K\x1b[J"
        );
        for columns in 1..20 {
            for rows in 1..6 {
                let frame = frame(text, (columns, rows));
                let seen = anstream::adapter::strip_str(&frame).to_string();
                assert!(seen.lines().count() <= rows as usize, "{columns}x{rows}: {seen}");
                assert!(
                    seen.lines().all(|line| line.chars().count() <= columns as usize),
                    "{columns}x{rows}: {seen}"
                );
            }
        }
    }
}

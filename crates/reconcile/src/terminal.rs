//! The terminal that we run in: its size, and raw mode for what runs on the other side of a session.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Columns and rows where a terminal does not say.
const USUAL: (u32, u32) = (80, 24);

/// Whether somebody types here and sees the answer here.
pub(crate) fn both_ways() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Columns and rows.
pub(crate) fn size() -> (u32, u32) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (u32::from(size.ws_col), u32::from(size.ws_row))
        }
        _ => USUAL,
    }
}

/// Its kind.
pub(crate) fn kind() -> String {
    std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned())
}

/// Every key goes to the other side, Ctrl-C as well; as it was once this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    pub(crate) fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

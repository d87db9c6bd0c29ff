//! Standard input and outputs as streams of bytes, each with a thread of its own: a reader that is
//! slow, or a keyboard at which nobody sits, must not keep a signal from being heard.
//!
//! Bounded both ways: who writes faster than it is read waits.

use std::{
    io::{self, Read, Write},
    thread,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Pieces on the way.
const PIECES: usize = 16;
const PIECE: usize = 32 * 1024;

/// What comes in, until its end. An error is an end as well.
pub(crate) fn standard_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(PIECES);
    // It ends with the process: a read cannot be called off.
    thread::spawn(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

/// A way out.
pub(crate) struct Out {
    pieces: mpsc::Sender<Bytes>,
    written: oneshot::Receiver<io::Result<()>>,
}

impl Out {
    /// To standard output.
    pub(crate) fn standard_output() -> Self {
        Self::to(io::stdout())
    }

    /// To standard error.
    pub(crate) fn standard_error() -> Self {
        Self::to(io::stderr())
    }

    fn to(mut to: impl Write + Send + 'static) -> Self {
        let (pieces, mut next) = mpsc::channel::<Bytes>(PIECES);
        let (sender, written) = oneshot::channel();
        thread::spawn(move || {
            let mut result = Ok(());
            while let Some(piece) = next.blocking_recv() {
                result = to.write_all(&piece).and_then(|()| to.flush());
                if result.is_err() {
                    break;
                }
            }
            // Who does not wait for it does not want to know.
            let _nobody_waits = sender.send(result);
        });
        Self { pieces, written }
    }

    /// Waits until a piece can be written without waiting, or never again. Cancelled, nothing is lost.
    pub(crate) async fn room(&self) {
        let _closed = self.pieces.reserve().await;
    }

    /// Writes, or waits until there is room. False: it is closed.
    pub(crate) async fn write(&self, piece: Bytes) -> bool {
        self.pieces.send(piece).await.is_ok()
    }

    /// Waits until all is written.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        self.written.await.unwrap_or(Ok(()))
    }
}

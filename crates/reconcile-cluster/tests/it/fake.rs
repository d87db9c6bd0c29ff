//! A fake server: two fronts' write and read ports over one row store.

use std::{
    io,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) const WRITE: u16 = 6432;
pub(crate) const READ: u16 = 6433;

#[derive(Default)]
pub(crate) struct State {
    /// Statements as they came.
    pub(crate) asked: Vec<String>,
    /// What the read port shows as the token.
    pub(crate) token: Option<String>,
    /// Reads until the committed token shows.
    pub(crate) lag: usize,
    /// Dials that fail before one works.
    pub(crate) refuse: usize,
    /// Log-ins that fail with this SQLSTATE and text.
    pub(crate) reject: Option<(&'static str, &'static str)>,
    /// Statements that fail likewise.
    pub(crate) fail: Option<(&'static str, &'static str)>,
    /// Never answers.
    pub(crate) silent: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

impl Fake {
    pub(crate) fn with(set: impl FnOnce(&mut State)) -> Self {
        let fake = Self::default();
        set(&mut fake.0.lock().unwrap());
        fake
    }

    async fn serve(self, mut stream: DuplexStream, port: u16) -> io::Result<()> {
        let length = stream.read_u32().await?;
        stream.read_exact(&mut vec![0; length as usize - 4]).await?;
        if self.0.lock().unwrap().silent {
            return std::future::pending().await;
        }
        let reject = self.0.lock().unwrap().reject;
        if let Some(error) = reject {
            return stream.write_all(&refusal(error)).await;
        }
        let mut hello = message(b'R', &0u32.to_be_bytes());
        hello.extend(message(b'Z', b"I"));
        stream.write_all(&hello).await?;
        while stream.read_u8().await? == b'Q' {
            let length = stream.read_u32().await?;
            let mut sql = vec![0; length as usize - 4];
            stream.read_exact(&mut sql).await?;
            let sql = String::from_utf8_lossy(&sql).trim_end_matches('\0').to_owned();
            stream.write_all(&self.answer(&sql, port)).await?;
        }
        Ok(())
    }

    fn answer(&self, sql: &str, port: u16) -> Vec<u8> {
        let mut state = self.0.lock().unwrap();
        state.asked.push(sql.to_owned());
        let mut out = match state.fail {
            Some(error) => refusal(error),
            None if port == WRITE => {
                if sql.ends_with("COMMIT") {
                    state.token = sql.split('\'').nth(3).map(str::to_owned);
                }
                row(&[Some("192.0.2.11")])
            }
            None => {
                let shows = state.lag == 0;
                state.lag = state.lag.saturating_sub(1);
                let token = state.token.clone().filter(|_| shows);
                row(&[Some("t"), Some("192.0.2.12"), token.as_deref()])
            }
        };
        out.extend(message(b'Z', b"I"));
        out
    }
}

impl Dialer for Fake {
    fn dial(&self, host: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>> {
        let mut state = self.0.lock().unwrap();
        let Target::Tcp { port, .. } = target else { panic!("{target}") };
        if state.refuse > 0 {
            state.refuse -= 1;
            let (host, cause) = (host.to_owned(), "connection refused".to_owned());
            return async { Err(DialError { host, target, cause }) }.boxed();
        }
        let (ours, theirs) = tokio::io::duplex(1 << 14);
        // A client that hangs up is no failure.
        let served = self.clone().serve(theirs, port);
        tokio::spawn(async { drop(served.await) });
        async { Ok(Box::new(ours) as BoxStream) }.boxed()
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend(body);
    out
}

fn refusal((code, text): (&str, &str)) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0M{text}\0\0").as_bytes())
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let count = u16::try_from(values.len()).unwrap().to_be_bytes();
    let mut columns = count.to_vec();
    let mut cells = count.to_vec();
    for value in values {
        columns.extend(b"x\0");
        columns.extend([0; 6]);
        columns.extend(25u32.to_be_bytes());
        columns.extend([0xff; 2]);
        columns.extend([0xff; 4]);
        columns.extend([0; 2]);
        match value {
            Some(value) => {
                cells.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                cells.extend(value.as_bytes());
            }
            None => cells.extend([0xff; 4]),
        }
    }
    let mut out = message(b'T', &columns);
    out.extend(message(b'D', &cells));
    out.extend(message(b'C', b"SELECT 1\0"));
    out
}

//! A plain HTTP client that can also do it wrong.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// An answer.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Self { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // The other side may close before it has read all of it.
    let _refused_early = stream.write_all(request);
    let mut bytes = Vec::new();
    // A reset after the answer is as good as an end.
    let _reset = stream.read_to_end(&mut bytes);
    Answer::of(&String::from_utf8_lossy(&bytes))
}

pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> Answer {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    raw(address, &[head.as_bytes(), body].concat())
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, "", b"")
}

/// An event of the stream.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: serde_json::Value,
}

/// An open event stream.
pub(crate) struct Events {
    reader: BufReader<TcpStream>,
    text: String,
}

impl Events {
    pub(crate) fn open(address: SocketAddr, last_id: Option<&str>) -> Self {
        let mut stream = connect(address);
        let last = last_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n").unwrap();
        let mut events = Self { reader: BufReader::new(stream), text: String::new() };
        assert!(events.line().contains(" 200 "));
        while !events.line().is_empty() {}
        events
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.reader.read_line(&mut line).unwrap(), 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// Reads one chunk of the body.
    fn chunk(&mut self) {
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        assert_ne!(size, 0, "the stream ended");
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        self.text.push_str(std::str::from_utf8(&bytes[..size]).unwrap());
    }

    fn any(&mut self) -> Event {
        let end = loop {
            match self.text.find("\n\n") {
                Some(end) => break end,
                None => self.chunk(),
            }
        };
        let text: String = self.text.drain(..end + 2).collect();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().to_owned()
        };
        Event {
            id: field("id: "),
            kind: field("event: "),
            data: serde_json::from_str(&field("data: ")).unwrap(),
        }
    }

    /// The next event but for ticks.
    pub(crate) fn next(&mut self) -> Event {
        loop {
            let event = self.any();
            if event.kind != "tick" {
                return event;
            }
        }
    }

    pub(crate) fn tick(&mut self) -> Event {
        loop {
            let event = self.any();
            if event.kind == "tick" {
                return event;
            }
        }
    }
}

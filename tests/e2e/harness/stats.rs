//! HAProxy's own word: the statistics of a front.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// One request on this machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// The statistics page of a node's front.
pub(crate) struct Stats {
    address: SocketAddr,
}

impl Stats {
    /// Of the front that a node publishes.
    pub(crate) fn of(node: Ipv4Addr) -> Self {
        Self { address: SocketAddr::from((node, 7000)) }
    }

    /// `UP`, `DOWN`, `UP 1/2`, … of a server in a proxy.
    pub(crate) fn state(&self, proxy: &str, server: &str) -> Result<String, String> {
        let text = get(self.address, "/;csv")?;
        let mut lines = text.lines();
        let header = lines.find(|line| line.starts_with("# ")).ok_or("no header")?;
        let column = header.split(',').position(|name| name == "status").ok_or("no status")?;
        let row = lines.find(|line| line.starts_with(&format!("{proxy},{server},")));
        let state = row.and_then(|row| row.split(',').nth(column));
        state.map(str::to_owned).ok_or_else(|| format!("{proxy}/{server} is not in\n{text}"))
    }

    /// An error unless the server is as said.
    pub(crate) fn is(&self, proxy: &str, server: &str, wanted: &str) -> Result<(), String> {
        let state = self.state(proxy, server)?;
        let same = state == wanted || state.starts_with(&format!("{wanted} "));
        if same { Ok(()) } else { Err(format!("{proxy}/{server} is {state}")) }
    }
}

/// A body over HTTP/1.0.
/// An answer's body.
pub(crate) fn get_body(address: SocketAddr, path: &str) -> Result<String, String> {
    let text = get(address, path)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| format!("no body in {text}"))
}

fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let fetch = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    fetch().map_err(|error| format!("http://{address}{path}: {error}"))
}

/// True where a member's Patroni says that it is the primary.
pub(crate) fn is_primary(node: Ipv4Addr) -> bool {
    get(SocketAddr::from((node, 8008)), "/primary")
        .is_ok_and(|text| text.lines().next().is_some_and(|line| line.contains(" 200 ")))
}

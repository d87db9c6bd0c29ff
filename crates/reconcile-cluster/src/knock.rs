//! Whether anybody answers on a port: far less than a proof, and enough to see a process that is frozen, whose
//! port the kernel still opens.

use std::time::Duration;

use hyper::Method;
use reconcile_dial::{Dialer, Target};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::http::{Endpoint, exchange};

/// What lives answers in milliseconds.
const ANSWER: Duration = Duration::from_secs(2);
/// PostgreSQL's SSLRequest: whoever speaks the protocol answers it with one byte, before any login.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Whether the health port of HAProxy gives any answer.
pub async fn answers_http(dialer: &dyn Dialer, port: &Endpoint, path: &str) -> bool {
    let answer = exchange(dialer, port, Method::GET, path, None, None);
    matches!(timeout(ANSWER, answer).await, Ok(Ok(_)))
}

/// Whether PostgreSQL's protocol is spoken there; through a proxy, by what is behind it.
pub async fn answers_postgresql(dialer: &dyn Dialer, port: &Endpoint) -> bool {
    let answer = async {
        let target = Target::Tcp { host: port.address.clone(), port: port.port };
        let mut stream = dialer.dial(port.host.as_str(), target).await.ok()?;
        stream.write_all(&SSL_REQUEST).await.ok()?;
        stream.flush().await.ok()?;
        let answer = stream.read_u8().await.ok()?;
        matches!(answer, b'N' | b'S').then_some(())
    };
    matches!(timeout(ANSWER, answer).await, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::BoxFuture};
    use reconcile_core::model::HostName;
    use reconcile_dial::{BoxStream, DialError};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// This machine.
    struct Here;

    impl Dialer for Here {
        fn dial(
            &self,
            host: &str,
            target: Target,
        ) -> BoxFuture<'static, Result<BoxStream, DialError>> {
            let host = host.to_owned();
            async move {
                let Target::Tcp { host: address, port } = &target else { unreachable!("a port") };
                match TcpStream::connect((address.as_str(), *port)).await {
                    Ok(stream) => Ok(Box::new(stream) as BoxStream),
                    Err(error) => Err(DialError { host, target, cause: error.to_string() }),
                }
            }
            .boxed()
        }
    }

    /// A port that answers everybody with `words`; None: its process is frozen, and the kernel opens.
    async fn port(words: Option<&'static [u8]>) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a local port");
        let port = listener.local_addr().expect("a local port").port();
        tokio::spawn(async move {
            let Some(words) = words else {
                std::future::pending::<()>().await;
                return drop(listener);
            };
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut heard = [0; 8];
                stream.read_exact(&mut heard).await.expect("a local port");
                stream.write_all(words).await.expect("a local port");
            }
        });
        Endpoint { host: HostName::new("node1"), address: "127.0.0.1".to_owned(), port }
    }

    #[tokio::test]
    async fn what_is_frozen_gives_no_answer_though_its_port_opens() {
        let frozen = port(None).await;
        let began = tokio::time::Instant::now();
        assert!(!answers_postgresql(&Here, &frozen).await);
        assert!(!answers_http(&Here, &frozen, "/health").await);
        assert!(began.elapsed() < ANSWER * 3);
        assert!(answers_postgresql(&Here, &port(Some(b"N")).await).await);
        assert!(answers_postgresql(&Here, &port(Some(b"S")).await).await);
        assert!(!answers_postgresql(&Here, &port(Some(b"HTTP/1.0 400 Bad Request")).await).await);
        // A router that has nowhere to send clients lives.
        let down = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert!(answers_http(&Here, &port(Some(down)).await, "/health").await);
        let closed = Endpoint { port: 1, ..frozen };
        assert!(!answers_postgresql(&Here, &closed).await);
        assert!(!answers_http(&Here, &closed, "/health").await);
    }
}

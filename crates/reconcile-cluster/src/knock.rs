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

/// No sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Nobody answered in time, as where a process is frozen.
    NoAnswer,
    /// It could not be asked, or is something else; the cause.
    Fault(String),
}

impl std::fmt::Display for Silence {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer => text.write_str("no answer; stopped or frozen?"),
            Self::Fault(cause) => text.write_str(cause),
        }
    }
}

/// Whether the health port of HAProxy gives any answer.
///
/// # Errors
/// Why it gave none.
pub async fn answers_http(dialer: &dyn Dialer, port: &Endpoint, path: &str) -> Result<(), Silence> {
    match timeout(ANSWER, exchange(dialer, port, Method::GET, path, None, None)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Silence::Fault(error.cause)),
        Err(_) => Err(Silence::NoAnswer),
    }
}

/// Whether PostgreSQL's protocol is spoken there; through a proxy, by what is behind it.
///
/// # Errors
/// Why it is not.
pub async fn answers_postgresql(dialer: &dyn Dialer, port: &Endpoint) -> Result<(), Silence> {
    let answer = async {
        let target = Target::Tcp { host: port.address.clone(), port: port.port };
        let reached = dialer.dial(port.host.as_str(), target).await;
        let mut stream = reached.map_err(|error| error.cause)?;
        let asked = async {
            stream.write_all(&SSL_REQUEST).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match asked.await {
            Ok(b'N' | b'S') => Ok(()),
            Ok(_) => Err("what answers there is no PostgreSQL and no pooler".to_owned()),
            Err(error) => Err(format!("the connection broke: {error}")),
        }
    };
    match timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(Silence::Fault),
        Err(_) => Err(Silence::NoAnswer),
    }
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
        assert_eq!(answers_postgresql(&Here, &frozen).await, Err(Silence::NoAnswer));
        assert_eq!(answers_http(&Here, &frozen, "/health").await, Err(Silence::NoAnswer));
        assert!(began.elapsed() < ANSWER * 3);
        assert_eq!(answers_postgresql(&Here, &port(Some(b"N")).await).await, Ok(()));
        assert_eq!(answers_postgresql(&Here, &port(Some(b"S")).await).await, Ok(()));
        let other = answers_postgresql(&Here, &port(Some(b"HTTP/1.0 400 Bad Request")).await).await;
        assert!(matches!(other, Err(Silence::Fault(_))), "{other:?}");
        // A router that has nowhere to send clients lives.
        let down = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(answers_http(&Here, &port(Some(down)).await, "/health").await, Ok(()));
        let closed = Endpoint { port: 1, ..frozen };
        // That is told with its cause, and not as frozen.
        for told in [
            answers_postgresql(&Here, &closed).await,
            answers_http(&Here, &closed, "/health").await,
        ] {
            assert!(
                matches!(&told, Err(Silence::Fault(cause)) if cause.contains("refused")),
                "{told:?}"
            );
        }
    }
}

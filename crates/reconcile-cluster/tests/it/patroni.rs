//! Patroni's answers.

use futures::{FutureExt, future::BoxFuture};
use reconcile_cluster::replication;
use reconcile_core::{model::ReplicationFact, ports::Retry};
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers each request with this text as it is, then closes, as Patroni does.
struct Says(&'static str);

impl Dialer for Says {
    fn dial(&self, _: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>> {
        assert_eq!(target.to_string(), "192.0.2.11:8008");
        let (ours, mut theirs) = tokio::io::duplex(1 << 14);
        let answer = self.0;
        tokio::spawn(async move {
            let mut request = vec![0; 1 << 12];
            let length = theirs.read(&mut request).await.unwrap();
            assert!(
                request[..length].starts_with(b"GET /patroni HTTP/1.1\r\nhost: 192.0.2.11:8008")
            );
            theirs.write_all(answer.as_bytes()).await.unwrap();
        });
        async { Ok(Box::new(ours) as BoxStream) }.boxed()
    }
}

async fn ask(
    answer: &'static str,
) -> Result<Vec<ReplicationFact>, reconcile_core::ports::EffectError> {
    replication(&Says(answer), &"node1".into(), "http://192.0.2.11:8008").await
}

#[tokio::test]
async fn a_primary_tells_its_standbys_and_a_replica_none() {
    let primary = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"role\": \"master\", \
        \"replication\": [{\"usename\": \"r\", \"application_name\": \"node2\", \"client_addr\": \
        \"192.0.2.12\", \"state\": \"streaming\", \"sync_state\": \"async\", \"sync_priority\": 0}]}";
    let fact = ReplicationFact {
        application_name: "node2".to_owned(),
        address: "192.0.2.12".to_owned(),
        state: "streaming".to_owned(),
        sync_state: "async".to_owned(),
    };
    assert_eq!(ask(primary).await.unwrap(), [fact]);
    let replica = "HTTP/1.0 503 Service Unavailable\r\n\r\n{\"role\": \"replica\"}";
    assert_eq!(ask(replica).await.unwrap(), []);
    assert_eq!(ask("HTTP/1.0 200 OK\r\n\r\nhello").await.unwrap_err().retry, Retry::AfterChange);
    assert_eq!(ask("").await.unwrap_err().retry, Retry::Soon);
}

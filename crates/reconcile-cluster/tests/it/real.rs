//! Against a real server: `RECONCILE_PG=ADDRESS,WRITE_PORT,READ_PORT,ROLE,PASSWORD
//! cargo test -p reconcile-cluster -- --ignored --nocapture real`.

use futures::{FutureExt, future::BoxFuture};
use reconcile_cluster::verify;
use reconcile_core::{
    model::SecretText,
    verify::{Front, VerifyRequest},
};
use reconcile_dial::{BoxStream, DialError, Dialer, Target};
use tokio::net::TcpStream;

struct Direct;

impl Dialer for Direct {
    fn dial(&self, host: &str, target: Target) -> BoxFuture<'static, Result<BoxStream, DialError>> {
        let host = host.to_owned();
        async move {
            match TcpStream::connect(target.to_string()).await {
                Ok(stream) => Ok(Box::new(stream) as BoxStream),
                Err(error) => Err(DialError { host, target, cause: error.to_string() }),
            }
        }
        .boxed()
    }
}

#[tokio::test]
#[ignore = "needs a real server, named by RECONCILE_PG"]
async fn a_real_server_serves() {
    let text = std::env::var("RECONCILE_PG").unwrap();
    let [address, write, read, role, password] =
        <[&str; 5]>::try_from(text.split(',').collect::<Vec<_>>()).unwrap();
    let front = Front {
        host: "node1".into(),
        address: address.to_owned(),
        write_port: write.parse().unwrap(),
        read_port: Some(read.parse().unwrap()),
        through: "PgBouncer".to_owned(),
    };
    for commit in [false, true] {
        let request = VerifyRequest {
            fronts: vec![front.clone()],
            role: role.to_owned(),
            password: SecretText::new(password),
            database: "postgres".to_owned(),
            commit,
            token: "run-1".to_owned(),
        };
        let report = verify(&Direct, &request).await;
        println!("{report:#?}");
        assert!(report.holds());
    }
    let wrong = VerifyRequest {
        fronts: vec![front],
        role: role.to_owned(),
        password: SecretText::new("wrong"),
        database: "postgres".to_owned(),
        commit: true,
        token: "run-1".to_owned(),
    };
    let report = verify(&Direct, &wrong).await;
    println!("{report:#?}");
    assert!(!report.holds());
}

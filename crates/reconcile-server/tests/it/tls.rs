//! TLS on an address that is not loopback.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

use crate::world::{TOKEN, serve, token};

#[tokio::test]
async fn served_with_certificate_and_token() {
    let pair = rcgen::generate_simple_self_signed(["reconcile.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let site = serve(|listen| {
        listen.address = "0.0.0.0:0".parse().unwrap();
        listen.tls = Some((chain, key));
        listen.token = Some(token(TOKEN));
    });
    assert!(site.served.url().starts_with("https://"));
    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let port = site.served.address().port();
    for (headers, code) in
        [(String::new(), "401"), (format!("Authorization: Bearer {TOKEN}\r\n"), "200")]
    {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = ServerName::try_from("reconcile.test").unwrap();
        let connector = TlsConnector::from(Arc::new(config.clone()));
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = format!(
            "GET /status HTTP/1.1\r\nHost: reconcile.test\r\nConnection: close\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
    }
    // Plain HTTP gets nothing.
    let answer = crate::client::get(([127, 0, 0, 1], port).into(), "/status");
    assert!(!answer.body.contains("main"), "{}", answer.body);
}

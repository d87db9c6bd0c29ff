//! TLS on an address that is not loopback.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::world::{Site, TOKEN, serve, token};

/// A certificate of this name, with its key, as files; until the given year.
fn write(folder: &Path, name: &str, year: i32) {
    let mut parameters = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    std::fs::write(folder.join("chain.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

fn site(folder: &Path) -> Site {
    let files = (folder.join("chain.pem"), folder.join("key.pem"));
    serve(|listen| {
        listen.address = "0.0.0.0:0".parse().unwrap();
        listen.tls = Some(files);
        listen.token = Some(token(TOKEN));
    })
}

/// What is answered to whoever trusts only what is in the folder now; None: not trusted.
async fn ask(site: &Site, folder: &Path, name: &str, path: &str) -> Option<String> {
    let pem = std::fs::read(folder.join("chain.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let port = site.served.address().port();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.ok()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Some(answer)
}

async fn until(site: &Site, folder: &Path, name: &str, word: &str) -> String {
    for _ in 0..200 {
        let answer = ask(site, folder, name, "/metrics").await;
        if let Some(answer) = answer.filter(|answer| answer.contains(word)) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no {word}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_one_that_is_no_good_is_not() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "first.test", 2049);
    let site = site(folder.path());
    let metrics = ask(&site, folder.path(), "first.test", "/metrics").await.unwrap();
    let until_2049 = "certificate_not_after_timestamp_seconds{use=\"listen\"} 2493072000.0";
    assert!(metrics.contains(until_2049), "{metrics}");
    assert!(
        metrics.contains("certificate_not_before_timestamp_seconds{use=\"listen\"} 1767225600")
    );
    assert!(metrics.contains("certificate_fault{use=\"listen\"} 0"), "{metrics}");

    // The key of another certificate: what was in use stays so, and it says so.
    let key = std::fs::read(folder.path().join("key.pem")).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("key.pem"), other.serialize_pem()).unwrap();
    let metrics =
        until(&site, folder.path(), "first.test", "certificate_fault{use=\"listen\"} 1").await;
    assert!(metrics.contains(until_2049), "{metrics}");
    let status = ask(&site, folder.path(), "first.test", "/status").await.unwrap();
    assert!(status.contains("chain.pem for TLS"), "{status}");
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    until(&site, folder.path(), "first.test", "certificate_fault{use=\"listen\"} 0").await;

    write(folder.path(), "second.test", 2055);
    let mut answer = None;
    for _ in 0..200 {
        answer = ask(&site, folder.path(), "second.test", "/metrics").await;
        if answer.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let metrics = answer.expect("the new certificate is shown");
    assert!(
        metrics.contains("certificate_not_after_timestamp_seconds{use=\"listen\"} 2682374400.0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn served_with_certificate_and_token() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "reconcile.test", 2049);
    let site = site(folder.path());
    assert!(site.served.url().starts_with("https://"));
    let pem = std::fs::read(folder.path().join("chain.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
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

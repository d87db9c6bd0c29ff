//! What is refused, and that nothing comes of it.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use hmac::{Hmac, Mac as _};
use reconcile_server::{ListenError, Token, start};
use sha2::Sha256;
use tokio::sync::mpsc;

use crate::{
    client::{ask, connect, get, raw},
    world::{Site, TOKEN, WEBHOOK, board, listen, serve, token},
};

fn hex(bytes: &[u8]) -> String {
    let digit = |number: u8| char::from(b"0123456789abcdef"[usize::from(number)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
    let hex = hex(&mac.finalize().into_bytes());
    format!("X-Hub-Signature-256: sha256={hex}\r\n")
}

fn with_webhook() -> Site {
    serve(|listen| listen.webhook = Some(token(WEBHOOK)))
}

#[test]
fn a_signed_push_asks_for_a_pass() {
    let mut site = with_webhook();
    let body = br#"{"ref":"refs/heads/main"}"#;
    let address = site.served.address();
    let push = || ask(address, "POST", "/reconcile", &signature(WEBHOOK, body), body).code;
    assert_eq!(push(), 202);
    assert!(site.dirty.try_recv().is_ok());
    // A burst is one trigger.
    assert_eq!((push(), push()), (202, 202));
    assert!(site.dirty.try_recv().is_ok());
    assert!(site.dirty.try_recv().is_err());
    let metrics = get(address, "/metrics").body;
    assert!(metrics.contains("reconcile_webhooks_total{result=\"accepted\"} 3"), "{metrics}");
}

#[test]
fn other_pushes_are_refused() {
    let mut site = with_webhook();
    let address = site.served.address();
    let body = b"{}";
    let good = signature(WEBHOOK, body);
    let twice = format!("{good}{good}");
    for (headers, body, code) in [
        ("", &body[..], 403),
        (signature("another secret of that kind", body).as_str(), body, 403),
        (good.as_str(), b"{ }", 403),
        (twice.as_str(), body, 403),
        (good.replace("sha256=", "sha1=").as_str(), body, 403),
        ("X-Hub-Signature-256: sha256=zz\r\n", body, 403),
        (good.as_str(), &vec![b'x'; (1 << 20) + 1], 413),
    ] {
        let answer = ask(address, "POST", "/reconcile", headers, body);
        assert_eq!(answer.code, code, "{headers} {}", answer.body);
    }
    assert!(site.dirty.try_recv().is_err());
    let metrics = get(address, "/metrics").body;
    assert!(metrics.contains("reconcile_webhooks_total{result=\"refused\"} 7"), "{metrics}");
}

/// Whoever is refused costs next to nothing: few are read at once, and what others are answered from
/// is not made anew for it.
#[test]
fn a_flood_of_pushes_is_bounded() {
    let site = with_webhook();
    let address = site.served.address();
    let before = get(address, "/metrics").body;
    let good = signature(WEBHOOK, b"{}");
    let head =
        format!("POST /reconcile HTTP/1.1\r\nHost: localhost\r\n{good}Content-Length: 100\r\n\r\n");
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    let full = loop {
        let code = ask(address, "POST", "/reconcile", &good, b"{}").code;
        if code == 503 || started.elapsed().as_secs() > 5 {
            break code;
        }
    };
    assert_eq!(full, 503);
    let refused = |text: &str| {
        let line = text.lines().find(|line| line.contains("result=\"refused\""));
        line.map(str::to_owned)
    };
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_ne!(refused(&get(address, "/metrics").body), refused(&before), "it is counted");
    drop(slow);
}

#[test]
fn no_webhook_where_none_is_set_up() {
    let mut site = serve(|_| {});
    let answer = ask(site.served.address(), "POST", "/reconcile", &signature("", b""), b"");
    assert_eq!(answer.code, 404);
    assert!(site.dirty.try_recv().is_err());
}

#[test]
fn facts_need_the_token() {
    let site = serve(|listen| listen.token = Some(token(TOKEN)));
    let address = site.served.address();
    for path in ["/status", "/events", "/metrics", "/openapi.json", "/nothing"] {
        for headers in [
            String::new(),
            "Authorization: Bearer \r\n".to_owned(),
            format!("Authorization: Basic {TOKEN}\r\n"),
            format!("Authorization: Bearer {TOKEN}x\r\n"),
            format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        ] {
            let answer = ask(address, "GET", path, &headers, b"");
            assert_eq!(answer.code, 401, "{path} {headers}");
            assert!(!answer.body.contains("main"));
        }
    }
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(ask(address, "GET", "/status", &headers, b"").code, 200);
    for path in ["/", "/healthz"] {
        assert_eq!(get(address, path).code, 200, "{path}");
    }
}

#[test]
fn any_other_address_needs_tls_and_a_token() {
    let attempt = |tls: bool, with_token: bool| {
        let mut options = listen();
        options.address = "0.0.0.0:0".parse().unwrap();
        options.tls = tls.then(|| ("/none/cert.pem".into(), "/none/key.pem".into()));
        options.token = with_token.then(|| token(TOKEN));
        start(options, board(), mpsc::channel(1).0).err().unwrap()
    };
    for (tls, with_token) in [(false, false), (true, false), (false, true)] {
        let error = attempt(tls, with_token);
        assert!(matches!(error, ListenError::Open { .. }) && error.is_usage(), "{error}");
    }
    let error = attempt(true, true);
    assert!(matches!(error, ListenError::Tls { .. }), "{error}");
    assert!(Token::new("short").is_err());
}

#[test]
fn a_taken_address_is_told() {
    let site = serve(|_| {});
    let mut options = listen();
    options.address = site.served.address();
    let error = start(options, board(), mpsc::channel(1).0).err().unwrap();
    assert!(matches!(error, ListenError::Bind { .. }) && !error.is_usage(), "{error}");
}

#[test]
fn methods() {
    let site = with_webhook();
    let address = site.served.address();
    for path in ["/", "/healthz", "/status", "/events", "/metrics", "/openapi.json"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            assert_eq!(ask(address, method, path, "", b"").code, 405, "{method} {path}");
        }
    }
    assert_eq!(get(address, "/reconcile").code, 405);
    assert_eq!(get(address, "/reconcile/").code, 404);
    assert_eq!(get(address, "/../etc/passwd").code, 404);
}

/// A page of another site that made its own name resolve to loopback.
#[test]
fn another_host_is_refused() {
    let site = serve(|_| {});
    let address = site.served.address();
    let with_host = |host: &str| {
        raw(address, format!("GET /status HTTP/1.1\r\n{host}Connection: close\r\n\r\n").as_bytes())
    };
    for host in [
        "",
        "Host: evil.example\r\n",
        "Host: evil.example:7432\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
    ] {
        let answer = with_host(host);
        assert_eq!(answer.code, 421, "{host}");
        assert!(!answer.body.contains("main"));
    }
    for host in ["Host: localhost:7432\r\n", "Host: 127.0.0.1\r\n", "Host: [::1]:7432\r\n"] {
        assert_eq!(with_host(host).code, 200, "{host}");
    }
    let absolute =
        b"GET http://evil.example/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(address, absolute).code, 421);
}

#[test]
fn oversized_and_malformed() {
    let site = serve(|_| {});
    let address = site.served.address();
    let long = format!("X-Long: {}\r\n", "x".repeat(20_000));
    assert_eq!(ask(address, "GET", "/status", &long, b"").code, 431);
    let many: String = (0..80)
        .flat_map(|number| ["X-".to_owned(), number.to_string(), ": y\r\n".to_owned()])
        .collect();
    assert_eq!(ask(address, "GET", "/status", &many, b"").code, 431);
    let uri = format!("/{}", "x".repeat(20_000));
    assert!(matches!(get(address, &uri).code, 414 | 431));
    for bytes in
        [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\r\n\0\0"]
    {
        let answer = raw(address, &[bytes, b"\r\n\r\n"].concat());
        assert!(matches!(answer.code, 0 | 400), "{bytes:?}: {}", answer.code);
    }
    assert_eq!(get(address, "/healthz").code, 200);
}

/// Neither half a request nor an idle connection is waited for without end.
#[test]
fn the_slow_are_dropped() {
    let site = with_webhook();
    let address: SocketAddr = site.served.address();
    let started = Instant::now();
    let wait = |first: String| {
        std::thread::spawn(move || {
            let mut stream = connect(address);
            stream.write_all(first.as_bytes()).unwrap();
            let mut rest = Vec::new();
            let _reset = stream.read_to_end(&mut rest);
            String::from_utf8_lossy(&rest).into_owned()
        })
    };
    let waits = [
        wait(String::new()),
        wait("GET /status HT".to_owned()),
        wait("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
        wait(format!(
            "POST /reconcile HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n{}\r\n{{",
            signature(WEBHOOK, b"")
        )),
    ];
    let answers: Vec<_> = waits.into_iter().map(|wait| wait.join().unwrap()).collect();
    assert!(answers[2].contains(" 200 "), "{answers:?}");
    assert!(answers[3].contains(" 408 "), "{answers:?}");
    let took = started.elapsed().as_secs_f64();
    assert!((9.0..19.0).contains(&took), "{took} s");
}

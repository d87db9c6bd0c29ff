//! What it costs. The bounds have room for slow machines; what was measured stands in
//! `docs/status-endpoint.md`.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use reconcile_sim::World;

use crate::{
    client::{Events, connect, get},
    world::{converged, desired, pass, serve},
};

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Asks on one connection at a steady pace; gives how long each answer took.
fn asker(address: SocketAddr, path: &'static str, every: Duration, count: u32) -> Vec<Duration> {
    let mut stream = connect(address);
    let started = Instant::now();
    let mut took = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    for number in 0..count {
        std::thread::sleep((every * number).saturating_sub(started.elapsed()));
        let asked = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let (mut got, mut wanted) = (0, None);
        while wanted.is_none_or(|wanted| got < wanted) {
            let read = stream.read(&mut buffer[got..]).unwrap();
            assert_ne!(read, 0);
            got += read;
            if wanted.is_none() {
                let text = String::from_utf8_lossy(&buffer[..got]).to_ascii_lowercase();
                if let Some(end) = text.find("\r\n\r\n") {
                    assert!(text.starts_with("http/1.1 200"), "{text}");
                    let length = text.split("content-length: ").nth(1).unwrap();
                    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                    wanted = Some(end + 4 + length);
                }
            }
        }
        took.push(asked.elapsed());
    }
    took
}

/// 200 requests a second beside a loop that is never idle.
#[test]
fn requests_wait_for_nobody() {
    let site = serve(|_| {});
    let desired = desired();
    let world = World::bare(&desired);
    let address = site.served.address();
    let mut number = 1;
    let mut alone = Vec::new();
    while number < 40 {
        let started = Instant::now();
        pass(&site.board, &desired, &world, number);
        alone.push(started.elapsed());
        number += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let askers: Vec<_> = ["/status", "/metrics", "/status", "/metrics"]
        .map(|path| {
            std::thread::spawn(move || asker(address, path, Duration::from_millis(20), 150))
        })
        .into_iter()
        .collect();
    let mut beside = Vec::new();
    while askers.iter().any(|asker| !asker.is_finished()) {
        let started = Instant::now();
        pass(&site.board, &desired, &world, number);
        beside.push(started.elapsed());
        number += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut took: Vec<_> = askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect();
    took.sort();
    alone.sort();
    beside.sort();
    let p99 = took[took.len() * 99 / 100];
    let (alone, beside) = (alone[alone.len() / 2], beside[beside.len() / 2]);
    figure(
        "`/status` and `/metrics` at 200 requests/s beside a busy loop",
        "p99 ≤ 50 ms, passes not slowed",
        &format!(
            "p50 {:?}, p99 {p99:?}; a pass told in {alone:?} alone, in {beside:?} beside",
            took[took.len() / 2]
        ),
    );
    assert_eq!(took.len(), 600);
    assert!(p99 <= Duration::from_millis(200), "p99 {p99:?}");
    assert!(beside <= alone * 4 + Duration::from_millis(20), "{alone:?} alone, {beside:?} beside");
}

/// 100 streams that read, and as many that never do, while much happens.
#[test]
fn streams_hold_little() {
    let site = serve(|_| {});
    let desired = desired();
    let bare = World::bare(&desired);
    let done = World::converged(&desired);
    let address = site.served.address();
    let mut turn = 0;
    let mut passes = |count: u32| {
        for _ in 0..count {
            turn += 1;
            pass(&site.board, &desired, if turn % 2 == 0 { &bare } else { &done }, turn);
        }
    };
    // The first passes grow what any process grows.
    passes(20);
    drop(get(address, "/status"));
    let before = resident();
    let mut readers: Vec<_> = (0..100).map(|_| Events::open(address, None)).collect();
    let silent: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(address);
            write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for round in 0..30 {
        passes(2);
        for reader in &mut readers {
            loop {
                let event = reader.next();
                let number = &event.data["passes"]["number"];
                if event.kind == "calm" && *number == serde_json::json!(22 + round * 2) {
                    break;
                }
            }
        }
    }
    let grown = resident().saturating_sub(before);
    figure(
        "100 event streams that are read, and 100 that never are",
        "≤ 20 MB more for 100",
        &format!("{} KiB more", grown / 1024),
    );
    assert!(grown <= 40 << 20, "{grown} bytes more");
    drop(silent);
}

/// Who takes nothing for long is dropped, and its place is free again.
#[test]
fn who_takes_nothing_is_dropped() {
    let (site, desired, _) = converged();
    let address = site.served.address();
    let stream = connect(address);
    (&stream).write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let bare = World::bare(&desired);
    let done = World::converged(&desired);
    let started = Instant::now();
    let mut number = 2;
    let open = || get(address, "/metrics").body.contains("reconcile_event_streams 1");
    while !open() {
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    while open() {
        for world in [&bare, &done] {
            number += 1;
            pass(&site.board, &desired, world, number);
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(started.elapsed() < Duration::from_secs(60), "never dropped");
    }
    drop(stream);
}

/// Prints a figure, and keeps it in the file that `cargo xtask soak` makes its page from.
fn figure(what: &str, wanted: &str, measured: &str) {
    eprintln!("FIGURE {what} | {wanted} | {measured}");
    let Some(path) = std::env::var_os("RECONCILE_FIGURES") else { return };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    writeln!(file.unwrap(), "{what}\t{wanted}\t{measured}").unwrap();
}

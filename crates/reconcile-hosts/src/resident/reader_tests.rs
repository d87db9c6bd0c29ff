//! The quick reader against the script: on this machine, about files that a test makes and services
//! that it plays, both tell the same; and whatever is not as it should be is left to the script.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use reconcile_core::{model::sha256_hex, probe::ProbeFile};
use tempfile::TempDir;

use super::{
    super::{tests::Local, *},
    *,
};

/// What a service answers to `GET PATH` or `POST PATH`.
type Answers = fn(&str) -> String;

fn said(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A service on loopback, for as long as the test runs.
fn service(answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                let line = text.lines().next().unwrap_or_default();
                let word = line.rsplit_once(' ').map_or("", |(word, _)| word);
                let _gone = stream.write_all(answers(word).as_bytes());
            });
        }
    });
    format!("http://{address}")
}

fn well(request: &str) -> String {
    match request {
        "GET /health" => "HTTP/1.1 503 Unwell\r\n\r\n{\"health\":\"false\"}".to_owned(),
        "POST /v3/maintenance/status" => said("{\"header\":{}}\n\n"),
        _ => said(&format!("{{\"asked\":\"{request}\"}}")),
    }
}

struct World {
    dir: TempDir,
    request: ProbeRequest,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let owner = fs::metadata(dir.path()).unwrap();
        let name = |database: &str, id: u32| {
            let text = fs::read_to_string(database).unwrap();
            let mut rows = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
            rows.find(|row| row[2] == id.to_string()).unwrap()[0].to_owned()
        };
        let keep = Some((0o640, name("/etc/passwd", owner.uid()), name("/etc/group", owner.gid())));
        let mut files = Vec::new();
        for (file, text) in [("one", "1\n"), ("two words", "")] {
            fs::write(path(file), text).unwrap();
            fs::set_permissions(path(file), fs::Permissions::from_mode(0o640)).unwrap();
            let expect = sha256_hex(text.as_bytes());
            files.push(ProbeFile { path: path(file), expect, secret: true, keep: keep.clone() });
        }
        fs::write(path("record"), "any\ntext").unwrap();
        symlink("one", path("link")).unwrap();
        for (file, expect) in [("record", "-"), ("absent", ""), ("one/below", ""), ("link", "")] {
            let expect = expect.to_owned();
            files.push(ProbeFile { path: path(file), expect, secret: false, keep: None });
        }
        fs::create_dir_all(path("data/global")).unwrap();
        fs::create_dir(path("empty")).unwrap();
        fs::create_dir(path("empty/lost+found")).unwrap();
        fs::write(path("data/global/pg_control"), [7, 1, 0, 0, 0, 0, 0, 200, 9, 9]).unwrap();
        fs::write(path("pause"), "a note\nand more").unwrap();
        let service = service(well);
        let request = ProbeRequest {
            pause: path("pause"),
            files,
            data_dirs: ["data", "empty", "gone", "one"].map(path).into(),
            disks: [path("data"), path("not/there"), "/".to_owned()].into(),
            etcd: Some(service.clone()),
            patroni: Some(service),
            ..ProbeRequest::default()
        };
        Self { dir, request }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The script's answer.
    async fn script(&self) -> Sections {
        let mut residents = Residents::default();
        let script = marking_script(&self.request, &Marks::default());
        residents.shell(&Local, &script, Duration::from_secs(10)).await.unwrap().unwrap()
    }

    /// Why the reader leaves it to the script, which stands at `marks`.
    async fn odd(&self, marks: &Marks) -> String {
        match look(None, &Local, &self.request, marks).await {
            Quick::Odd(_, why) => why,
            Quick::Told(..) => "told".to_owned(),
            Quick::Moved(_) => "moved".to_owned(),
            Quick::Gone => "gone".to_owned(),
        }
    }
}

fn marks(sections: &Sections) -> Marks {
    Marks { sockets: sections.text("sockets"), files: sections.text("marks") }
}

/// Other tests on this machine open sockets too.
async fn told(world: &World) -> (Resident, Sections, Sections) {
    for _ in 0..50 {
        let script = world.script().await;
        match look(None, &Local, &world.request, &marks(&script)).await {
            Quick::Told(quick, sections) => return (quick, sections, script),
            Quick::Moved(_) => {}
            Quick::Odd(_, why) => panic!("odd: {why}"),
            Quick::Gone => panic!("gone"),
        }
    }
    panic!("sockets come and go all the time");
}

#[tokio::test]
async fn it_tells_what_the_script_tells() {
    let world = World::new();
    let (_, quick, script) = told(&world).await;
    for name in [
        "marks",
        "stat",
        "sums",
        "text.2",
        "owed",
        "outdated",
        "dirs",
        "os",
        "boot",
        "hostname",
        "manifest",
        "manifest.rc",
        "pause",
        "access",
        "guard",
        "disks",
        "etcd-version",
        "etcd-health",
        "etcd-status",
        "etcd-list",
        "patroni",
        "patroni-cluster",
        "patroni-config",
    ] {
        let plain = |sections: &Sections| {
            // `od` pads its number.
            let text =
                sections.bytes(name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            text.map(|text| text.split(' ').filter(|word| !word.is_empty()).collect::<String>())
        };
        assert_eq!(plain(&quick), plain(&script), "{name}");
    }
    let rows = |name: &str, sections: &Sections| {
        let mut rows: Vec<_> = sections.text(name).lines().map(str::to_owned).collect();
        rows.sort();
        rows.dedup();
        rows
    };
    for name in ["http", "entries"] {
        assert_eq!(rows(name, &quick), rows(name, &script), "{name}");
    }
    assert_eq!(quick.text("entries").lines().count(), 1);
    assert!(quick.text("dirs").contains("\t14411518807585587463\n"), "{}", quick.text("dirs"));
    // The free space is another from one moment to the next, what is measured is not.
    let sizes = |sections: &Sections| {
        let table = sections.text("df");
        let rows = table.lines().filter(|line| line.contains('/'));
        let row = |line: &str| {
            let words: Vec<_> = line.split_ascii_whitespace().collect();
            (words[0].to_owned(), words[2].to_owned())
        };
        rows.map(row).collect::<BTreeSet<_>>()
    };
    assert_eq!(sizes(&quick), sizes(&script));
    for name in ["begin", "end"] {
        let at = |sections: &Sections| sections.line(name).unwrap().parse::<i64>().unwrap();
        assert!((at(&quick) - at(&script)).abs() < 60_000, "{name}");
    }
    let only_there: Vec<_> = ["stat.err", "sums.err", "http.err", "units.rc"]
        .iter()
        .filter(|n| quick.bytes(n).is_some())
        .collect();
    assert!(only_there.is_empty(), "{only_there:?}");
}

/// Patroni tells of its configuration what it read last, and reads anew for `/cluster`.
#[tokio::test]
async fn patronis_configuration_is_the_one_that_is_in_force_now() {
    static READ: AtomicBool = AtomicBool::new(false);
    fn patroni(request: &str) -> String {
        match request {
            "GET /cluster" => {
                std::thread::sleep(Duration::from_millis(200));
                READ.store(true, Ordering::SeqCst);
                said("{}")
            }
            "GET /config" if READ.load(Ordering::SeqCst) => said("{\"loop_wait\":7}"),
            "GET /config" => said("{\"loop_wait\":5}"),
            _ => well(request),
        }
    }
    let mut world = World::new();
    world.request.patroni = Some(service(patroni));
    for _ in 0..50 {
        let marks = marks(&world.script().await);
        READ.store(false, Ordering::SeqCst);
        if let Quick::Told(_, sections) = look(None, &Local, &world.request, &marks).await {
            assert_eq!(sections.text("patroni-config"), "{\"loop_wait\":7}");
            return;
        }
    }
    panic!("sockets come and go all the time");
}

#[tokio::test]
async fn it_answers_one_question_after_the_other() {
    let world = World::new();
    let (mut quick, first, script) = told(&world).await;
    for _ in 0..50 {
        let marks = Marks { sockets: script.text("sockets"), files: script.text("marks") };
        quick = match look(Some(quick), &Local, &world.request, &marks).await {
            Quick::Told(_, again) => {
                assert_eq!(again.text("stat"), first.text("stat"));
                return;
            }
            Quick::Moved(quick) => quick,
            Quick::Odd(_, why) => panic!("odd: {why}"),
            Quick::Gone => panic!("gone"),
        };
    }
    // Another test's socket stayed: then there is nothing more to see here.
}

#[tokio::test]
async fn what_is_not_as_it_should_be_is_left_to_the_script() {
    let same = Marks::default();
    let mut world = World::new();
    assert_eq!(world.odd(&same).await, "moved");

    fs::write(world.path("one"), "2\n").unwrap();
    assert!(world.odd(&same).await.ends_with("one differs"));
    fs::write(world.path("one"), "1\n").unwrap();

    fs::set_permissions(world.path("one"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(world.odd(&same).await.contains("another mode"));
    fs::set_permissions(world.path("one"), fs::Permissions::from_mode(0o640)).unwrap();

    // What is to be absent, and is not.
    fs::write(world.path("absent"), "").unwrap();
    assert!(world.odd(&same).await.ends_with("absent differs"));
    fs::remove_file(world.path("absent")).unwrap();

    // What is wanted whole is not wanted without end; and a file that cannot be read is not empty.
    fs::write(world.path("record"), "x".repeat(64 * 1024 + 1)).unwrap();
    assert!(world.odd(&same).await.ends_with("record is long"));
    fs::remove_file(world.path("record")).unwrap();
    let record = world.request.files[2].path.clone();
    world.request.files[2].path = "/proc/self/mem".to_owned();
    assert!(world.odd(&same).await.contains("/proc/self/mem: Input/output error"));
    world.request.files[2].path = record;
    let many = world.path("many");
    fs::create_dir(&many).unwrap();
    for number in 0..=10_000 {
        fs::write(many.join(number.to_string()), "").unwrap();
    }
    world.request.data_dirs.insert(many.to_str().unwrap().to_owned());
    assert!(world.odd(&same).await.ends_with("has many entries"));
    world.request.data_dirs.remove(many.to_str().unwrap());

    fs::write(world.path("data/global/pg_control"), "short").unwrap();
    assert!(world.odd(&same).await.ends_with("is short"));
    fs::write(world.path("data/global/pg_control"), "long enough").unwrap();

    // A PostgreSQL whose program is another than the one that is installed.
    let pid = std::process::id();
    fs::write(world.path("data/postmaster.pid"), format!("{pid}\n/data\n")).unwrap();
    world.request.postgres_bin_dir = Some("/usr/bin".to_owned());
    assert!(world.odd(&same).await.ends_with("is not what runs"));
    world.request.postgres_bin_dir = None;

    for (answers, why) in [
        ((|_| String::new()) as Answers, "patroni: no answer"),
        (|_| "SSH-2.0-x\r\n\r\n".to_owned(), "patroni: no HTTP"),
        (|_| "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort".to_owned(), "patroni: cut off"),
        (|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "in pieces"),
        (
            |_| {
                std::thread::sleep(Duration::from_secs(2));
                said("late")
            },
            "no answer in time",
        ),
    ] {
        let patroni = Some(service(answers));
        let request = ProbeRequest { patroni, etcd: None, ..world.request.clone() };
        let odd = World { dir: TempDir::new().unwrap(), request }.odd(&same).await;
        assert!(odd.contains(why), "{why}: {odd}");
    }
    for base in ["https://127.0.0.1:1", "http://localhost:1", "http://127.0.0.1:1"] {
        let patroni = Some(base.to_owned());
        let request = ProbeRequest { patroni, etcd: None, ..world.request.clone() };
        let odd = World { dir: TempDir::new().unwrap(), request }.odd(&same).await;
        assert!(odd.starts_with("no way to") || odd.contains("refused"), "{base}: {odd}");
    }
    let unit = "postgresql.socket".to_owned();
    let request = ProbeRequest { units: [unit].into(), ..world.request.clone() };
    assert!(
        World { dir: TempDir::new().unwrap(), request }.odd(&same).await.contains("no service")
    );
    world.request.pause = "/with\ttab".to_owned();
    assert!(world.odd(&same).await.contains("does not fit"));
}

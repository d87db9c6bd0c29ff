//! The residents against a real shell, and against one whose answers a test chooses.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Mutex,
};

use tokio::{io::DuplexStream, net::UnixStream};

use super::*;

const INFO: &str = r#"{"Swarm":{"LocalNodeState":"active","Error":""}}"#;
const DEADLINE: Duration = Duration::from_secs(10);

/// `sh -s` on this machine.
pub(super) struct Local;

impl Shells for Local {
    async fn open(&self) -> Option<BoxStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let output = OwnedFd::from(theirs.try_clone().unwrap());
        let input = OwnedFd::from(theirs);
        Command::new("sh")
            .arg("-s")
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        ours.set_nonblocking(true).unwrap();
        Some(Box::new(UnixStream::from_std(ours).unwrap()))
    }
}

#[tokio::test]
async fn a_shell_answers_one_question_after_the_other_until_it_ends() {
    let mut shell = Resident::open(&Local).await.unwrap();
    let question = |script: &'static str| {
        move |end: &str| format!("(\n{script}\n) </dev/null\nprintf '%s\\n' '{end}'\n")
    };
    // A script's exit, options, directory and appetite for input are its own.
    let first = shell.ask(question("set -u; cd /proc; cat; printf 'one\\n'; exit 7")).await;
    assert_eq!(first.unwrap(), b"one\n");
    let second = shell.ask(question("printf '%s' \"$NOT_SET\"; [ \"$PWD\" != /proc ] && echo two"));
    assert_eq!(second.await.unwrap(), b"two\n");
    assert_eq!(shell.ask(|_| "exit 0\n".to_owned()).await, None);
    assert_eq!(shell.ask(question("echo three")).await, None);
}

/// What the server holds, which answers as the real script does.
#[derive(Default)]
struct World {
    units: String,
    standby: bool,
    marks: String,
    /// psql ends instead of answering.
    psql_ends: bool,
    /// Docker's `/info` does not come in time.
    docker_late: bool,
    /// perl is there, and this is what it says.
    quick: Option<&'static str>,
    /// How often it was asked.
    read: usize,
    whole: usize,
    rest: usize,
    shells: usize,
}

struct Fake(Arc<Mutex<World>>);

impl Shells for Fake {
    async fn open(&self) -> Option<BoxStream> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        self.0.lock().unwrap().shells += 1;
        tokio::spawn(serve(theirs, Arc::clone(&self.0)));
        Some(Box::new(ours))
    }
}

async fn serve(mut stream: DuplexStream, world: Arc<Mutex<World>>) {
    let mut text = Vec::new();
    while stream.read_buf(&mut text).await.unwrap_or(0) > 0 {
        let question = String::from_utf8(text.clone()).unwrap();
        let Some((_, end)) = question.rsplit_once("@@answered ") else { continue };
        if !question.ends_with('\n') {
            continue;
        }
        text.clear();
        let number: String = end.chars().take_while(char::is_ascii_digit).collect();
        let Some(mut answer) = world.lock().unwrap().answer(&question) else { return };
        answer.extend_from_slice(format!("@@answered {number}\n").as_bytes());
        stream.write_all(&answer).await.unwrap();
    }
}

impl World {
    fn answer(&mut self, question: &str) -> Option<Vec<u8>> {
        if question.starts_with("exec setpriv") {
            return Some(Vec::new());
        }
        if question.starts_with("exec perl") {
            return self.quick.map(|_| Vec::new());
        }
        if question.contains("\nend\t@@answered") {
            self.read += 1;
            let quick = self.quick?;
            if !quick.is_empty() {
                return Some(format!("odd: {quick}\n").into_bytes());
            }
            let sockets = "0100007F:1538 0 77\n";
            let (units, marks) = (&self.units, &self.marks);
            let table = [
                ("units", units.as_str()),
                ("marks", marks),
                ("sockets", sockets),
                ("docker", "OK"),
            ];
            let sizes = table.iter().map(|(name, body)| format!("{} {name}\n", body.len()));
            let bodies: String = table.iter().map(|(_, body)| *body).collect();
            let sizes: String = sizes.collect();
            return Some(format!("@@probe 1\n{sizes}@@data\n{bodies}@@end\n").into_bytes());
        }
        if !question.starts_with('(') {
            let rows = || format!("{}{}", self.server(), self.inside("postgres"));
            return (!self.psql_ends).then(|| rows().into_bytes());
        }
        let mut sections = vec![("units", self.units.clone()), ("marks", self.marks.clone())];
        sections.push(("sockets", "0100007F:1538 0 77\n".to_owned()));
        let same = question.contains("KNOWN='0100007F:1538 0 77");
        if question.contains("psql") {
            self.whole += 1;
            let rows = [self.server(), self.inside("postgres"), self.inside("shop")].concat();
            sections.extend([("sql", rows), ("sql.rc", "0\n".to_owned())]);
        } else {
            self.rest += 1;
        }
        if !same {
            sections.push(("listeners", "those\n".to_owned()));
        }
        let pinged = question.contains("path=_ping") && question.contains(self.marks.trim_end());
        let info = if self.docker_late { "" } else { INFO };
        sections.push(("docker", if pinged { "OK" } else { info }.to_owned()));
        let table = |(name, body): &(&str, String)| format!("{} {name}\n", body.len());
        let table: String = sections.iter().map(table).collect();
        let bodies: String = sections.iter().map(|(_, body)| body.as_str()).collect();
        Some(format!("@@probe 1\n{table}@@data\n{bodies}@@end\n").into_bytes())
    }

    fn server(&self) -> String {
        format!(
            "{{\"kind\":\"server\",\"standby\":{}}}\n{{\"kind\":\"database\",\"name\":\"shop\",\"owner\":\"o\"}}\n",
            self.standby
        )
    }

    fn inside(&self, database: &str) -> String {
        format!("{{\"kind\":\"inside\",\"name\":\"{database}\",\"seen\":{}}}\n", self.whole)
    }
}

fn request() -> ProbeRequest {
    ProbeRequest {
        docker: true,
        units: BTreeSet::from(["etcd.service".to_owned()]),
        sql: Some(SqlProbe {
            port: 5432,
            socket_dir: "/run/postgresql".to_owned(),
            databases: BTreeSet::from([FIRST.to_owned(), "shop".to_owned()]),
            settings: BTreeSet::new(),
        }),
        ..ProbeRequest::default()
    }
}

/// A server of which one whole question was answered in the shell, with no effect so far.
async fn acquainted() -> (Fake, Residents) {
    let marks = "/var/lib/docker/swarm 7 now\n".to_owned();
    let world = World { marks, ..World::default() };
    let fake = Fake(Arc::new(Mutex::new(world)));
    let mut residents = Residents { worthwhile: true, ..Residents::default() };
    let first = residents.ask(&fake, &request(), 0, DEADLINE).await.unwrap().unwrap();
    assert_eq!(first.text("docker"), INFO);
    assert_eq!(fake.counted(), (1, 0));
    (fake, residents)
}

impl Fake {
    /// Whole questions, and those for the rest.
    fn counted(&self) -> (usize, usize) {
        let world = self.0.lock().unwrap();
        (world.whole, world.rest)
    }

    async fn asked(&self, residents: &mut Residents, effects: u64) -> Sections {
        residents.ask(self, &request(), effects, DEADLINE).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn the_first_probe_of_a_connection_is_a_command() {
    let fake = Fake(Arc::default());
    let answer = Residents::default().ask(&fake, &request(), 0, DEADLINE).await;
    assert!(answer.unwrap().is_none());
    assert_eq!(fake.0.lock().unwrap().shells, 0);
}

#[tokio::test]
async fn what_is_known_is_not_asked_again_and_the_answer_is_whole() {
    let (fake, mut residents) = acquainted().await;
    for times in 1..4 {
        let answer = fake.asked(&mut residents, 0).await;
        assert_eq!(fake.counted(), (1, times));
        assert_eq!(
            (answer.text("listeners"), answer.text("docker")),
            ("those\n".into(), INFO.into())
        );
        assert_eq!(answer.status("sql"), Some(0));
        // The first database is asked each time, and the other is as it was.
        let rows = answer.text("sql");
        assert_eq!(rows.matches("\"inside\"").count(), 2, "{rows}");
    }
    assert_eq!(fake.0.lock().unwrap().shells, 2, "one shell and one psql");
}

#[tokio::test]
async fn an_effect_or_another_question_asks_for_everything() {
    let (fake, mut residents) = acquainted().await;
    fake.asked(&mut residents, 1).await;
    assert_eq!(fake.counted(), (2, 0));
    fake.asked(&mut residents, 1).await;
    assert_eq!(fake.counted(), (2, 1));
    let other = ProbeRequest { pause: "/elsewhere".to_owned(), ..request() };
    residents.ask(&fake, &other, 1, DEADLINE).await.unwrap().unwrap();
    assert_eq!(fake.counted(), (3, 1));
}

#[tokio::test]
async fn a_restarted_unit_or_another_role_asks_for_everything_at_once() {
    let (fake, mut residents) = acquainted().await;
    "MainPID=8\n".clone_into(&mut fake.0.lock().unwrap().units);
    let answer = fake.asked(&mut residents, 0).await;
    assert_eq!(answer.text("units"), "MainPID=8\n");
    assert_eq!(fake.counted(), (2, 1));
    fake.0.lock().unwrap().standby = true;
    let answer = fake.asked(&mut residents, 0).await;
    assert!(answer.text("sql").contains("true"));
    assert_eq!(fake.counted(), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn what_docker_tells_is_spared_once_its_marks_have_settled() {
    let (fake, mut residents) = acquainted().await;
    fake.0.lock().unwrap().docker_late = true;
    // Asked again, since a node that has just joined says more a moment later.
    assert_eq!(fake.asked(&mut residents, 0).await.text("docker"), "");
    fake.0.lock().unwrap().docker_late = false;
    fake.asked(&mut residents, 0).await;
    tokio::time::advance(SETTLING).await;
    fake.0.lock().unwrap().docker_late = true;
    assert_eq!(fake.asked(&mut residents, 0).await.text("docker"), INFO);
}

#[test]
fn a_state_of_docker_that_may_pass_is_asked_for_again() {
    assert!(docker_told(INFO.as_bytes()));
    for passing in [
        r#"{"Swarm":{"LocalNodeState":"pending","Error":""}}"#,
        r#"{"Swarm":{"LocalNodeState":"active","Error":"no leader"}}"#,
        r#"{"Swarm":{"LocalNodeState":"active","ControlAvailable":true,"Error":""}}"#,
        r#"{"ServerErrors":["down"],"Swarm":{"LocalNodeState":"active"}}"#,
        "{}",
        "",
    ] {
        assert!(!docker_told(passing.as_bytes()), "{passing}");
    }
}

#[tokio::test(start_paused = true)]
async fn residents_that_are_in_the_way_do_not_come_back() {
    let (fake, mut residents) = acquainted().await;
    // sshd may take a moment to notice, and others may wait for the same.
    assert!(residents.leave() && residents.leave());
    tokio::time::advance(limits::REAP).await;
    assert!(!residents.leave());
    let answer = residents.ask(&fake, &request(), 0, DEADLINE).await;
    assert!(answer.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_resident_is_replaced_before_its_time_is_over() {
    let (fake, mut residents) = acquainted().await;
    tokio::time::advance(TERM).await;
    fake.asked(&mut residents, 0).await;
    assert_eq!(fake.0.lock().unwrap().shells, 2);
}

#[tokio::test]
async fn changed_marks_are_answered_anew() {
    let (fake, mut residents) = acquainted().await;
    fake.asked(&mut residents, 0).await;
    "/var/lib/docker/swarm 8 later\n".clone_into(&mut fake.0.lock().unwrap().marks);
    fake.asked(&mut residents, 0).await;
    let known = residents.known.as_ref().unwrap();
    assert_eq!(known.sections.text("marks"), "/var/lib/docker/swarm 8 later\n");
    assert_eq!(fake.counted(), (1, 2));
}

#[tokio::test]
async fn a_psql_that_ended_is_made_up_for() {
    let (fake, mut residents) = acquainted().await;
    fake.asked(&mut residents, 0).await;
    fake.0.lock().unwrap().psql_ends = true;
    let answer = fake.asked(&mut residents, 0).await;
    assert_eq!(answer.status("sql"), Some(0));
    assert_eq!(fake.counted(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_docker_that_was_late_once_is_asked_again() {
    let (fake, mut residents) = acquainted().await;
    {
        let mut world = fake.0.lock().unwrap();
        world.docker_late = true;
        "/var/lib/docker/swarm 8 later\n".clone_into(&mut world.marks);
    }
    assert_eq!(fake.asked(&mut residents, 0).await.text("docker"), "");
    tokio::time::advance(SETTLING).await;
    fake.0.lock().unwrap().docker_late = false;
    assert_eq!(fake.asked(&mut residents, 0).await.text("docker"), INFO);
    assert_eq!(fake.counted(), (2, 2), "all was asked, since nothing was known of it");
}

#[tokio::test]
async fn an_answer_in_part_is_not_built_upon() {
    let mut residents = Residents::default();
    let answer = b"@@probe 1\n2 sql.rc\n3 sql.err\n@@data\n0\nno\n@@end\n";
    residents.learn(&request(), &Sections::parse(answer).unwrap(), 0);
    assert!(residents.worthwhile && residents.known.is_none());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_built_upon_for_long() {
    let (fake, mut residents) = acquainted().await;
    fake.asked(&mut residents, 0).await;
    assert_eq!(fake.counted(), (1, 1));
    tokio::time::advance(FRESH).await;
    fake.asked(&mut residents, 0).await;
    assert_eq!(fake.counted(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_quick_reader_spares_the_script_while_all_is_well() {
    let (fake, mut residents) = acquainted().await;
    fake.0.lock().unwrap().quick = Some("");
    // Not while Docker may have more to tell.
    fake.asked(&mut residents, 0).await;
    assert_eq!((fake.counted(), fake.0.lock().unwrap().read), ((1, 1), 0));
    tokio::time::advance(SETTLING).await;
    for times in 1..4 {
        let answer = fake.asked(&mut residents, 0).await;
        assert_eq!((fake.counted(), fake.0.lock().unwrap().read), ((1, 1), times));
        assert_eq!(
            (answer.text("docker"), answer.text("listeners")),
            (INFO.into(), "those\n".into())
        );
        assert_eq!(answer.text("sql").matches("\"inside\"").count(), 2);
    }
    // A mark that changed is the script's once, and the reader's again.
    "/var/lib/docker/swarm 8 later\n".clone_into(&mut fake.0.lock().unwrap().marks);
    fake.asked(&mut residents, 0).await;
    assert_eq!((fake.counted(), fake.0.lock().unwrap().read), ((1, 2), 4));
    tokio::time::advance(SETTLING).await;
    fake.asked(&mut residents, 0).await;
    assert_eq!((fake.counted(), fake.0.lock().unwrap().read), ((1, 2), 5));
    // What a unit says that was started anew is the whole question's.
    "MainPID=8\n".clone_into(&mut fake.0.lock().unwrap().units);
    fake.asked(&mut residents, 0).await;
    assert_eq!((fake.counted(), fake.0.lock().unwrap().read), ((2, 2), 6));
}

#[tokio::test(start_paused = true)]
async fn what_the_quick_reader_finds_odd_is_the_scripts_for_a_while() {
    for quick in [Some("a file differs"), None] {
        let (fake, mut residents) = acquainted().await;
        fake.0.lock().unwrap().quick = quick;
        tokio::time::advance(SETTLING).await;
        for _ in 0..3 {
            fake.asked(&mut residents, 0).await;
        }
        assert_eq!(fake.counted(), (1, 3));
        let read = |fake: &Fake| fake.0.lock().unwrap().read;
        assert_eq!(read(&fake), usize::from(quick.is_some()));
        // It is asked again soon, and less soon where it says the same.
        for (after, asked) in [(5, 2), (5, 2), (5, 3), (10, 3)] {
            tokio::time::advance(Duration::from_secs(after)).await;
            // What is known is asked anew after a while, by the script in any case.
            residents.known.as_mut().unwrap().at = Instant::now();
            fake.asked(&mut residents, 0).await;
            assert_eq!(read(&fake), if quick.is_some() { asked } else { 0 }, "{after}");
        }
        fake.0.lock().unwrap().quick = Some("");
        tokio::time::advance(FRESH).await;
        fake.asked(&mut residents, 0).await;
        fake.asked(&mut residents, 0).await;
        assert_eq!(fake.counted(), (2, 7));
    }
}

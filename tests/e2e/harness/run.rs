//! Running programs: output, exit code, duration and peak memory, and all of it in the failure.

use std::{
    fmt,
    io::Read,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(10);

/// A program that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The command line.
    pub(crate) line: String,
    /// Exit code; none where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// From start to exit.
    pub(crate) took: Duration,
    /// Highest resident memory seen, in KiB.
    pub(crate) peak_kib: u64,
}

impl Ran {
    /// Fails, with everything that is known of the run, unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(self.code == Some(code), "expected exit code {code}\n{self}");
        self
    }

    /// Fails unless both outputs together hold `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let found = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(found, "expected to read `{text}`\n{self}");
        self
    }

    /// The steps that took longest, as told in progress lines `  ok    STEP (1.2 s)`.
    pub(crate) fn slowest(&self) -> String {
        let mut steps: Vec<(f64, &str)> = self
            .stderr
            .lines()
            .filter_map(|line| {
                let (step, rest) = line.trim().strip_prefix("ok ")?.rsplit_once(" (")?;
                Some((rest.strip_suffix(" s)")?.parse().ok()?, step.trim()))
            })
            .collect();
        steps.sort_by(|a, b| b.0.total_cmp(&a.0));
        let told = steps.iter().take(5).map(|(took, step)| format!("{step} {took:.1} s"));
        told.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, code, stdout, stderr, took, peak_kib } = self;
        let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
        write!(
            f,
            "$ {line}\nended with {code} after {:.1} s, peak {peak_kib} KiB\n--- standard output\n{stdout}\n--- standard error\n{stderr}\n---",
            took.as_secs_f64()
        )
    }
}

/// A running program.
pub(crate) struct Job {
    line: String,
    child: Running,
    started: Instant,
    stdout: Pipe,
    stderr: Pipe,
    peak_kib: u64,
}

/// A child that does not outlive a test that fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended before.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Pipe {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    fn new(mut from: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..count]);
            }
        });
        Self { text, reader }
    }

    fn so_far(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn whole(self) -> String {
        self.reader.join().expect("the reader only reads");
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Job {
    /// Starts a program.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// The same with something that can be typed into it.
    #[track_caller]
    pub(crate) fn talk(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut job = Self::spawn(command);
        let typed = job.child.0.stdin.take().expect("it is piped");
        (job, typed)
    }

    #[track_caller]
    fn spawn(mut command: Command) -> Self {
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let line = words.join(" ");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run `{line}`: {error}"));
        let stdout = Pipe::new(child.stdout.take().expect("it is piped"));
        let stderr = Pipe::new(child.stderr.take().expect("it is piped"));
        Self { line, child: Running(child), started, stdout, stderr, peak_kib: 0 }
    }

    /// Whether it still runs; takes note of its memory.
    pub(crate) fn runs(&mut self) -> bool {
        if let Some(peak) = peak_kib(self.child.0.id()) {
            self.peak_kib = self.peak_kib.max(peak);
        }
        self.child.0.try_wait().expect("a child can be waited for").is_none()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn told(&self) -> String {
        self.stderr.so_far()
    }

    /// What it wrote to standard output so far.
    pub(crate) fn said(&self) -> String {
        self.stdout.so_far()
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// SIGKILL at once.
    pub(crate) fn kill(self) -> Ran {
        self.kill_when(|_, _| true)
    }

    /// SIGKILL as soon as `now` says so of its age and what it told, unless it ended before.
    pub(crate) fn kill_when(mut self, now: impl Fn(Duration, &str) -> bool) -> Ran {
        while self.runs() && !now(self.started.elapsed(), &self.stderr.so_far()) {
            sleep(TICK);
        }
        // It may have ended in this moment.
        drop(self.child.0.kill());
        self.end()
    }

    /// SIGTERM, then waits for its end.
    #[track_caller]
    pub(crate) fn terminate(self, patience: Duration) -> Ran {
        self.signal("TERM");
        self.wait(patience)
    }

    /// Sends a signal.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.0.id().to_string();
        let told = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(told.is_ok_and(|status| status.success()), "SIG{name} to `{}`", self.line);
    }

    /// Waits for its end; fails if it is not there in time.
    #[track_caller]
    pub(crate) fn wait(mut self, patience: Duration) -> Ran {
        let waiting = Instant::now();
        while self.runs() {
            if waiting.elapsed() > patience {
                drop(self.child.0.kill());
                panic!("still running after {} s\n{}", patience.as_secs(), self.end());
            }
            sleep(TICK);
        }
        self.end()
    }

    /// Waits for its end, and kills it if it is not there in time.
    pub(crate) fn wait_at_most(mut self, patience: Duration) -> Ran {
        let waiting = Instant::now();
        while self.runs() && waiting.elapsed() <= patience {
            sleep(TICK);
        }
        drop(self.child.0.kill());
        self.end()
    }

    fn end(mut self) -> Ran {
        let status = self.child.0.wait().expect("a child can be waited for");
        let took = self.started.elapsed();
        Ran {
            line: self.line,
            code: status.code(),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
            took,
            peak_kib: self.peak_kib,
        }
    }
}

/// The kernel's own high-water mark of a process.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

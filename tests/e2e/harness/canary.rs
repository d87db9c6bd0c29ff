//! Secrets must not show anywhere: their values, and the places to look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use base64::Engine as _;

/// Between two looks at all processes of the machine, the servers' included.
const TICK: Duration = Duration::from_millis(60);

/// The values of the secrets file, by name.
#[derive(Clone)]
pub(crate) struct Secrets {
    values: BTreeMap<String, String>,
    /// Every form in which a value could show, with its name.
    forms: Vec<(String, String)>,
}

impl Secrets {
    /// Reads the file that `secrets init` writes: a line `name: value` each.
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("`secrets init` wrote it");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
            .collect();
        assert!(values.len() >= 8, "{} holds only {} secrets", path.display(), values.len());
        Self::of(values)
    }

    /// Of these values by name.
    pub(crate) fn of(values: BTreeMap<String, String>) -> Self {
        assert!(values.values().all(|value| value.len() >= 12), "a value is too short to look for");
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.encode(text);
        let forms = values
            .iter()
            .flat_map(|(name, value)| {
                [(name.clone(), value.clone()), (name.clone(), base64(value))]
            })
            .collect();
        Self { values, forms }
    }

    /// A value.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("there is no secret {name}"))
    }

    /// Every form, a line each, for `grep -F -f`.
    pub(crate) fn patterns(&self) -> String {
        self.forms.iter().flat_map(|(_, form)| [form.as_str(), "\n"]).collect()
    }

    /// Names of the secrets that show in a text.
    pub(crate) fn shown_in(&self, text: &str) -> BTreeSet<&str> {
        let shown = self.forms.iter().filter(|(_, form)| text.contains(form));
        shown.map(|(name, _)| name.as_str()).collect()
    }

    /// Fails where a text shows a secret; names the secret and the place, not the value.
    #[track_caller]
    pub(crate) fn absent_from(&self, place: &str, text: &str) {
        let shown = self.shown_in(text);
        assert!(shown.is_empty(), "{place} shows the values of {shown:?}");
    }
}

/// Looks at arguments and environments of all processes of the machine while something runs. The
/// servers are containers, so theirs, and those of the containers in them, are among these.
pub(crate) struct ProcessWatch {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<(usize, BTreeSet<String>)>,
}

impl ProcessWatch {
    /// Starts looking.
    pub(crate) fn start(secrets: &Secrets) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, secrets) = (Arc::clone(&stop), secrets.clone());
        let watcher = thread::spawn(move || {
            let (mut looks, mut known, mut found) = (0, BTreeMap::new(), BTreeSet::new());
            while !stopped.load(Ordering::Relaxed) {
                look(&secrets, &mut known, &mut found);
                looks += 1;
                sleep(TICK);
            }
            (looks, found)
        });
        Self { stop, watcher }
    }

    /// Stops looking; fails where a secret was seen. Gives how often it looked.
    #[track_caller]
    pub(crate) fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, found) = self.watcher.join().expect("it only reads");
        assert!(found.is_empty(), "processes show secrets: {found:#?}");
        looks
    }
}

/// Looks at every process that was not there, or was another program, the last time.
fn look(secrets: &Secrets, known: &mut BTreeMap<String, Vec<u8>>, found: &mut BTreeSet<String>) {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let mut alive = BTreeMap::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let arguments = read("cmdline");
        if !arguments.is_empty() && known.get(&name) != Some(&arguments) {
            for (place, bytes) in [("arguments", &arguments), ("environment", &read("environ"))] {
                for secret in secrets.shown_in(&String::from_utf8_lossy(bytes)) {
                    let program = String::from_utf8_lossy(&read("comm")).trim().to_owned();
                    found.insert(format!("{secret} in the {place} of {program}"));
                }
            }
        }
        alive.insert(name, arguments);
    }
    *known = alive;
}

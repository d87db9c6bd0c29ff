//! The journal's files: lines appended and synced, files that are full put aside, and what a crash
//! cut off told apart.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{FILE, JournalError};

/// A file that is as large is put aside.
pub const FULL: u64 = 8 << 20;
/// As much of a file is read for its last entries.
const TAIL: u64 = 256 << 10;
/// Files put aside that are kept, beside the one in use.
pub const KEPT: usize = 4;

/// The file in use.
pub(super) struct Log {
    folder: PathBuf,
    file: File,
    size: u64,
    /// The last line may lack its end.
    torn: bool,
}

fn open(folder: &Path) -> Result<(File, u64), Error> {
    let path = folder.join(FILE);
    let options = || {
        let mut options = OpenOptions::new();
        options.append(true).read(true).mode(0o600);
        options
    };
    let file = match options().open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let file = options().create(true).open(&path)?;
            // Its name must outlive a crash, too.
            File::open(folder)?.sync_all()?;
            file
        }
        other => other?,
    };
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Whether the last line was cut off.
fn ends_torn(file: &mut File, size: u64) -> Result<bool, Error> {
    if size == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// The name of the file that was put aside so many times ago.
fn aside(folder: &Path, age: usize) -> PathBuf {
    folder.join(if age == 0 { FILE.to_owned() } else { format!("journal.{age}.jsonl") })
}

impl Log {
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let (mut file, size) = open(folder)?;
        let torn = ends_torn(&mut file, size)?;
        Ok(Self { folder: folder.to_owned(), file, size, torn })
    }

    /// Appends a line; with `sync` it is on disk after that.
    pub(super) fn append(&mut self, line: &str, sync: bool) -> Result<(), Error> {
        if self.torn {
            // What was left undone by an error may be so of the file itself.
            (self.file, self.size) = open(&self.folder)?;
            if ends_torn(&mut self.file, self.size)? {
                self.file.write_all(b"\n")?;
            }
            self.torn = false;
        } else if self.size >= FULL {
            self.put_aside();
        }
        self.torn = true;
        self.file.write_all(format!("{line}\n").as_bytes())?;
        if sync {
            self.file.sync_data()?;
        }
        self.torn = false;
        self.size += line.len() as u64 + 1;
        Ok(())
    }

    /// Where that fails, the file grows on.
    fn put_aside(&mut self) {
        let moved = (0..KEPT)
            .rev()
            .try_for_each(|age| {
                match std::fs::rename(aside(&self.folder, age), aside(&self.folder, age + 1)) {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                    other => other,
                }
            })
            .and_then(|()| open(&self.folder));
        match moved {
            Ok((file, size)) => (self.file, self.size) = (file, size),
            Err(error) => {
                tracing::warn!(folder = %self.folder.display(), %error, "the journal cannot be put aside");
            }
        }
    }
}

/// What the journal holds.
#[derive(Debug, Default)]
pub struct Entries {
    /// Its entries, oldest first.
    pub entries: Vec<Value>,
    /// Lines that are none: the operator was killed, or the disk was full, while it wrote them.
    pub torn: usize,
}

/// Everything in the journal in `folder`, the files put aside first.
pub fn read_all(folder: &Path) -> Result<Entries, JournalError> {
    read(folder, KEPT, u64::MAX)
}

/// The end of the journal, at a cost that does not grow with it.
pub fn read_last(folder: &Path) -> Result<Entries, JournalError> {
    read(folder, 1, TAIL)
}

/// The last bytes of the file in use and of so many that were put aside.
fn read(folder: &Path, asides: usize, most: u64) -> Result<Entries, JournalError> {
    let mut all = Entries::default();
    for age in (0..=asides).rev() {
        let path = aside(folder, age);
        let fail = |attempt| {
            let path = path.clone();
            move |source| JournalError { attempt, path, source }
        };
        let mut file = match File::open(&path) {
            // A pipe or device would never end.
            Ok(file) if file.metadata().is_ok_and(|is| is.is_file()) => file,
            Ok(_) => continue,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(JournalError { attempt: "open", path, source }),
        };
        let size = file.metadata().map_err(fail("read"))?.len();
        let from = size.saturating_sub(most);
        file.seek(SeekFrom::Start(from)).map_err(fail("read"))?;
        // The first line of a tail may be the end of one.
        let lines = BufReader::new(file).split(b'\n').skip(usize::from(from > 0));
        for line in lines {
            let line = line.map_err(fail("read"))?;
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(entry) => all.entries.push(entry),
                Err(_) => all.torn += 1,
            }
        }
    }
    Ok(all)
}

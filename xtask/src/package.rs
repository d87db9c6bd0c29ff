//! `package`: a Debian package of the binary, its unit, completions, manual and examples, put
//! together with `dpkg-deb` from what is in `packaging/`. Nothing in it is kept twice.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::run::{cargo, program, root, run, target};

/// A shell, and where its completions are looked for.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/reconcile"),
    ("zsh", "usr/share/zsh/vendor-completions/_reconcile"),
    ("fish", "usr/share/fish/vendor_completions.d/reconcile.fish"),
];

/// Builds a package of an optimised binary, or of the one that is named (`--binary FILE`).
#[expect(clippy::print_stdout, reason = "xtask is a program for people")]
pub(crate) fn package(arguments: &[String]) -> Result<(), String> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (binary, quick) = match arguments.as_slice() {
        [] => {
            run(cargo(&["build", "--release", "--package", "reconcile"]))?;
            (target().join("release/reconcile"), false)
        }
        ["--binary", file] => (PathBuf::from(file), true),
        _ => return Err("usage: cargo xtask package [--binary FILE]".to_owned()),
    };
    let package = assemble(&binary, quick)?;
    println!("{}", package.display());
    Ok(())
}

/// Puts a package of a binary together; quickly, or small.
pub(crate) fn assemble(binary: &Path, quick: bool) -> Result<PathBuf, String> {
    let version = said(Command::new(binary).arg("--version"))?;
    let version = version.trim().trim_start_matches("reconcile ").to_owned();
    let architecture = said(&mut program("dpkg", &["--print-architecture"]))?;
    let folder = target().join("package");
    let tree = folder.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|error| told("remove", &tree, &error))?;
    }
    let tree = Tree { root: tree };
    tree.copy(binary, "usr/bin/reconcile", 0o755)?;
    let from = root();
    let packaging = |name: &str| from.join("packaging").join(name);
    tree.copy(&packaging("reconcile.service"), "lib/systemd/system/reconcile.service", 0o644)?;
    tree.copy(&packaging("default"), "etc/default/reconcile", 0o644)?;
    tree.folder("etc/reconcile/credentials", 0o700)?;
    for (shell, place) in COMPLETIONS {
        let script = said(Command::new(binary).args(["completions", shell]))?;
        tree.write(place, script.as_bytes(), 0o644)?;
    }
    manual(&tree, binary)?;
    documents(&tree, &from)?;
    control(&tree, binary, &version, architecture.trim())?;
    for name in ["postinst", "prerm", "postrm"] {
        tree.copy(&packaging(name), &format!("DEBIAN/{name}"), 0o755)?;
    }
    let package = folder.join(format!("reconcile_{version}_{}.deb", architecture.trim()));
    let mut build = program("dpkg-deb", &["--root-owner-group"]);
    if quick {
        build.args(["-Zgzip", "-z1"]);
    }
    build.arg("--build").arg(&tree.root).arg(&package);
    if let Ok(time) = said(&mut program("git", &["log", "-1", "--format=%ct"])) {
        // The same commit gives the same bytes.
        build.env("SOURCE_DATE_EPOCH", time.trim());
    }
    run(build)?;
    Ok(package)
}

/// The manual's pages, compressed as Debian has them.
fn manual(tree: &Tree, binary: &Path) -> Result<(), String> {
    let pages = tree.folder("usr/share/man/man1", 0o755)?;
    run_quietly(Command::new(binary).arg("man-pages").arg(&pages))?;
    let mut gzip = Command::new("gzip");
    gzip.args(["-9", "--no-name"]);
    for entry in fs::read_dir(&pages).map_err(|error| told("read", &pages, &error))? {
        gzip.arg(entry.map_err(|error| told("read", &pages, &error))?.path());
    }
    run_quietly(&mut gzip)
}

fn documents(tree: &Tree, from: &Path) -> Result<(), String> {
    let doc = "usr/share/doc/reconcile";
    let licence = "Files: *\nLicense: Apache-2.0\n On Debian systems the text of the licence is in /usr/share/common-licenses/Apache-2.0.\n";
    let head = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n";
    tree.write(&format!("{doc}/copyright"), format!("{head}{licence}").as_bytes(), 0o644)?;
    tree.copy(&from.join("CHANGELOG.md"), &format!("{doc}/CHANGELOG.md"), 0o644)?;
    for (folder, place) in [("docs", doc.to_owned()), ("examples", format!("{doc}/examples"))] {
        let folder = from.join(folder);
        for entry in fs::read_dir(&folder).map_err(|error| told("read", &folder, &error))? {
            let path = entry.map_err(|error| told("read", &folder, &error))?.path();
            if let (true, Some(name)) = (path.is_file(), path.file_name()) {
                tree.copy(&path, &format!("{place}/{}", name.to_string_lossy()), 0o644)?;
            }
        }
    }
    Ok(())
}

fn control(tree: &Tree, binary: &Path, version: &str, architecture: &str) -> Result<(), String> {
    let bytes = fs::read(binary).map_err(|error| told("read", binary, &error))?;
    let libc = libc(&bytes).ok_or("the binary names no version of glibc")?;
    let mut text =
        format!("Package: reconcile\nVersion: {version}\nArchitecture: {architecture}\n");
    let _infallible = write!(
        text,
        "Maintainer: Reconcile <reconcile@localhost>\n\
         Section: database\n\
         Priority: optional\n\
         Depends: libc6 (>= {libc}), libgcc-s1\n\
         Recommends: git, openssh-client\n\
         Description: keeps a highly available PostgreSQL cluster as a file says\n \
         Compares a YAML file with what it observes over SSH and the Docker API on a few\n \
         servers (etcd, Patroni, PostgreSQL, PgBouncer, HAProxy), shows the difference as\n \
         one plan, and applies it in a safe order. With a unit that stays and does so.\n"
    );
    tree.write("DEBIAN/control", text.as_bytes(), 0o644)?;
    tree.write("DEBIAN/conffiles", b"/etc/default/reconcile\n", 0o644)
}

/// The newest version of glibc whose symbols a binary asks for.
fn libc(binary: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let starts = binary.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let minors = starts.filter_map(|(at, _)| {
        let digits = binary[at + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        let digits: Vec<u8> = digits.take(3).copied().collect();
        String::from_utf8(digits).ok()?.parse::<u32>().ok()
    });
    minors.max().map(|minor| format!("2.{minor}"))
}

/// What a program wrote.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("run {command:?}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?} ended with {}: {text}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run_quietly(command: &mut Command) -> Result<(), String> {
    said(command).map(drop)
}

fn told(attempt: &str, path: &Path, error: &std::io::Error) -> String {
    format!("{attempt} {}: {error}", path.display())
}

/// What the package holds.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn folder(&self, place: &str, mode: u32) -> Result<PathBuf, String> {
        let path = self.root.join(place);
        fs::create_dir_all(&path).map_err(|error| told("make", &path, &error))?;
        // Whatever the umask here is.
        let mut folder = path.as_path();
        while folder.starts_with(&self.root) {
            let mode = if folder == path { mode } else { 0o755 };
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(folder, permissions)
                .map_err(|error| told("set the mode of", folder, &error))?;
            let Some(above) = folder.parent() else { break };
            folder = above;
        }
        Ok(path)
    }

    fn write(&self, place: &str, bytes: &[u8], mode: u32) -> Result<(), String> {
        let path = self.root.join(place);
        if let Some((folder, _)) = place.rsplit_once('/') {
            self.folder(folder, 0o755)?;
        }
        fs::write(&path, bytes).map_err(|error| told("write", &path, &error))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(|error| told("set the mode of", &path, &error))
    }

    fn copy(&self, from: &Path, place: &str, mode: u32) -> Result<(), String> {
        let bytes = fs::read(from).map_err(|error| told("read", from, &error))?;
        self.write(place, &bytes, mode)
    }
}

//! The package mirror: a folder of .debs with an index, mounted read-only into every server.
//!
//! Must not take anything from what this machine has installed or configured beyond the address
//! of its Debian mirror.

use std::path::PathBuf;

use crate::command::Invocation;
use crate::error::{LabError, Result, at};
use crate::machine::{KEYRING, shared};
use crate::progress::{Progress, Stage, detail};
use crate::recipe::{MIRROR_PACKAGES, SUITE, mirror_tag};
use crate::sources;

/// The mirror's folder on this machine.
pub(crate) fn folder() -> PathBuf {
    shared("mirror")
}

/// Downloads and indexes the packages unless that was done for this recipe.
pub(crate) async fn ensure(progress: &dyn Progress) -> Result<()> {
    let done = folder().join("recipe");
    if std::fs::read_to_string(&done).is_ok_and(|tag| tag == mirror_tag()) {
        return Ok(());
    }
    let uri = sources::mirror()?;
    // A private apt: an empty status file makes it fetch what this machine has installed too.
    let apt = shared("apt");
    for inner in ["state/lists/partial", "cache/archives/partial"] {
        let inner = apt.join(inner);
        std::fs::create_dir_all(&inner).map_err(at("create", &inner))?;
    }
    let status = apt.join("status");
    std::fs::write(&status, "").map_err(at("write", &status))?;
    let list = apt.join("sources.list");
    let entry = format!("deb [signed-by={KEYRING}] {uri} {SUITE} main\n");
    std::fs::write(&list, entry).map_err(at("write", &list))?;
    let apt_get = |words: &[&str]| {
        let option = |name: &str, path: &PathBuf| format!("{name}={}", path.display());
        Invocation::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("-o")
            .arg(option("Dir::Etc::sourcelist", &list))
            .args(["-o", "Dir::Etc::sourceparts=-"])
            .args(["-o", "Dir::Etc::preferencesparts=-"])
            .args(["-o", "Acquire::Languages=none"])
            .args(["-o", "APT::Sandbox::User=root"])
            .arg("-o")
            .arg(option("Dir::State", &apt.join("state")))
            .arg("-o")
            .arg(option("Dir::State::status", &status))
            .arg("-o")
            .arg(option("Dir::Cache", &apt.join("cache")))
            .args(words)
    };
    detail(progress, Stage::Mirror, "reading the package lists");
    apt_get(&["update"]).run("read the package lists").await?;
    detail(progress, Stage::Mirror, "downloading packages");
    apt_get(&["install", "--download-only", "-y", "--no-install-recommends"])
        .args(MIRROR_PACKAGES)
        .run("download packages for the mirror")
        .await?;

    let archives = apt.join("cache/archives");
    std::fs::create_dir_all(folder()).map_err(at("create", folder()))?;
    clear(&folder())?;
    let mut count = 0_usize;
    for entry in std::fs::read_dir(&archives).map_err(at("read", &archives))? {
        let file = entry.map_err(at("read", &archives))?.path();
        if file.extension().is_some_and(|extension| extension == "deb")
            && let Some(name) = file.file_name()
        {
            let to = folder().join(name);
            std::fs::rename(&file, &to).map_err(at("move", &file))?;
            count += 1;
        }
    }
    detail(progress, Stage::Mirror, format!("indexing {count} packages"));
    let index = folder().join("Packages");
    // `-m` keeps every version of a package; the folder in the index is `.`, so that it holds
    // wherever it is mounted.
    let scan = Invocation::new("env").arg(format!("--chdir={}", folder().display())).args([
        "dpkg-scanpackages",
        "-m",
        ".",
    ]);
    scan.run_into("index the mirror's packages", &index).await?;
    Invocation::new("gzip")
        .args(["--keep", "--force", "-9"])
        .arg(&index)
        .run("compress the mirror's index")
        .await?;
    std::fs::remove_dir_all(&apt).map_err(at("remove", &apt))?;
    if count == 0 {
        return Err(LabError::Malformed {
            what: archives.display().to_string(),
            reason: "apt-get left no packages".to_owned(),
        });
    }
    std::fs::write(&done, mirror_tag()).map_err(at("write", &done))
}

/// Empties the folder but keeps it: running servers have it mounted.
fn clear(folder: &PathBuf) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(at("read", folder))? {
        let file = entry.map_err(at("read", folder))?.path();
        std::fs::remove_file(&file).map_err(at("remove", &file))?;
    }
    Ok(())
}

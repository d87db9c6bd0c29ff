//! The image that servers boot: a bootstrapped Debian, made a lab server in two small steps.
//!
//! Must not put anything into an image that belongs to one server or one lab.

use std::path::Path;

use crate::command::Invocation;
use crate::engine::{docker, exists};
use crate::error::{Result, at};
use crate::machine::shared;
use crate::mirror;
use crate::progress::{Progress, Stage, detail};
use crate::recipe::{self, BASE_PACKAGES, SUITE, base_tag, server_tag};
use crate::sources;

/// Bears the lab's wrapper around systemd; see `recipe/init.sh`.
const INIT_PATH: &str = "/usr/local/sbin/lab-init";

/// The server image's reference in the outer engine.
pub(crate) fn reference(docker: bool) -> String {
    let variant = if docker { "server" } else { "server-bare" };
    format!("reconcile-lab/{variant}:{}", server_tag(docker))
}

/// The base image's reference in the outer engine.
pub(crate) fn base() -> String {
    format!("reconcile-lab/base:{}", base_tag())
}

/// Builds the server image unless the engine has it.
pub(crate) async fn ensure(with_docker: bool, progress: &dyn Progress) -> Result<()> {
    let wanted = reference(with_docker);
    if exists("image", &wanted).await? {
        return Ok(());
    }
    let bare = reference(false);
    if !exists("image", &bare).await? {
        ensure_base(progress).await?;
        detail(progress, Stage::ServerImage, "making a server of it");
        let script = format!(
            "cat > {INIT_PATH} <<'LAB_INIT'\n{}LAB_INIT\nchmod 0755 {INIT_PATH}\n{}",
            recipe::INIT,
            recipe::SERVER
        );
        let init = format!(r#"CMD ["{INIT_PATH}"]"#);
        derive(&base(), &bare, &script, &init).await?;
    }
    if with_docker {
        detail(progress, Stage::ServerImage, "adding the docker engine");
        let init = format!(r#"CMD ["{INIT_PATH}"]"#);
        derive(&bare, &wanted, recipe::ENGINE, &init).await?;
    }
    Ok(())
}

/// Bootstraps Debian into an image.
pub(crate) async fn ensure_base(progress: &dyn Progress) -> Result<()> {
    if exists("image", &base()).await? {
        return Ok(());
    }
    let uri = sources::mirror()?;
    let work = shared("bootstrap");
    remove(&work)?;
    std::fs::create_dir_all(&work).map_err(at("create", &work))?;
    let root = work.join("root");
    detail(progress, Stage::ServerImage, "bootstrapping Debian (about a minute)");
    Invocation::new("debootstrap")
        .arg("--variant=minbase")
        .arg(format!("--include={BASE_PACKAGES}"))
        .args([SUITE.as_ref(), root.as_os_str(), uri.as_ref()])
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .run("bootstrap Debian for the servers")
        .await?;
    detail(progress, Stage::ServerImage, "importing it");
    let archive = work.join("root.tar");
    Invocation::new("tar")
        .arg("-C")
        .arg(&root)
        .args(["--numeric-owner", "--exclude=./var/cache/apt/archives/*.deb", "-cf"])
        .args([archive.as_os_str(), ".".as_ref()])
        .run("pack the bootstrapped Debian")
        .await?;
    docker(["import"]).arg(&archive).arg(base()).run(&format!("import image {}", base())).await?;
    remove(&work)
}

/// Runs a script in a container of one image and keeps the result as another.
async fn derive(from: &str, to: &str, script: &str, setting: &str) -> Result<()> {
    let id = build(from, script, None, &format!("build image {to}")).await?;
    let committed =
        docker(["commit", "--change", setting, &id, to]).run(&format!("commit image {to}")).await;
    let removed =
        docker(["rm", "--force", &id]).run(&format!("remove the container that built {to}")).await;
    committed?;
    removed.map(drop)
}

/// Runs a script in a new container without a network, with the mirror; gives the container's id.
/// A failed one is removed.
pub(crate) async fn build(
    from: &str,
    script: &str,
    out: Option<&Path>,
    tried: &str,
) -> Result<String> {
    let mut create = docker(["create", "--network=none", "--security-opt=seccomp=unconfined"])
        .arg("--volume")
        .arg(format!("{}:/srv/mirror:ro", mirror::folder().display()));
    if let Some(out) = out {
        create = create.arg("--volume").arg(format!("{}:/out", out.display()));
    }
    let id = create.args([from, "/bin/sh", "-c", script]).run(tried).await?.trim().to_owned();
    let ran = docker(["start", "--attach", &id]).run(tried).await;
    if let Err(error) = ran {
        docker(["rm", "--force", &id]).run("remove a container whose build failed").await?;
        return Err(error);
    }
    Ok(id)
}

/// Removes a folder that may be absent.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(at("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

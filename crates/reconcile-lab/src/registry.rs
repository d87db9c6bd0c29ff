//! The image registry: one storage on this machine, served on the gateway address of each lab.
//!
//! Must not listen on any address but loopback and a lab's gateway.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::command::Invocation;
use crate::engine::{docker, tail};
use crate::error::{LabError, Result, at};
use crate::image;
use crate::machine::{Started, shared, wait_for};
use crate::progress::{Progress, Stage, detail};
use crate::recipe::{UTILITIES, Utility, utility_tag};

/// Where images are pulled from, on each lab's gateway.
pub(crate) const PORT: u16 = 5000;

/// It listens within 0.1 s on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The storage that all registries of this machine share.
pub(crate) fn storage() -> PathBuf {
    shared("registry")
}

/// Builds the utility images and stores them, unless that was done for this recipe.
pub(crate) async fn ensure_images(progress: &dyn Progress) -> Result<()> {
    let done = storage().join("recipe");
    if std::fs::read_to_string(&done).is_ok_and(|tag| tag == utility_tag()) {
        return Ok(());
    }
    let work = shared("utilities");
    image::remove(&work)?;
    std::fs::create_dir_all(&work).map_err(at("create", &work))?;
    image::ensure_base(progress).await?;
    image::ensure(false, progress).await?;
    detail(progress, Stage::UtilityImages, "collecting programs and libraries");
    let id = image::build(
        &image::reference(false),
        crate::recipe::UTILITY,
        Some(&work),
        "build the utility images",
    )
    .await?;
    docker(["rm", "--force", &id])
        .run("remove the container that built the utility images")
        .await?;

    // Any engine pushes to loopback without TLS, so a short-lived registry there needs no
    // settings of the outer engine.
    let address = free_loopback()?;
    let registry = serve(address, &shared("registry-push.log"), &work.join("registry.yml")).await?;
    let pushed = push_all(&work, address, progress).await;
    registry.end("the loopback registry", STOP_PATIENCE).await?;
    pushed?;
    image::remove(&work)?;
    std::fs::write(&done, utility_tag()).map_err(at("write", &done))
}

/// Has a lab's registry serve on its gateway; tells whether it had to be started.
pub(crate) async fn ensure(gateway: Ipv4Addr, lab: &str) -> Result<bool> {
    let record = file(lab, "json");
    let address = SocketAddr::from((gateway, PORT));
    if let Some(registry) = Started::load(&record)?
        && registry.runs()
        && TcpStream::connect(address).await.is_ok()
    {
        return Ok(false);
    }
    stop(lab).await?;
    let registry = serve(address, &file(lab, "log"), &file(lab, "yml")).await?;
    registry.save(&record)?;
    Ok(true)
}

/// Stops a lab's registry if it runs, and forgets it.
pub(crate) async fn stop(lab: &str) -> Result<()> {
    if let Some(registry) = Started::load(&file(lab, "json"))? {
        registry.end("the lab's registry", STOP_PATIENCE).await?;
    }
    for extension in ["json", "log", "yml"] {
        let file = file(lab, extension);
        if file.exists() {
            std::fs::remove_file(&file).map_err(at("remove", &file))?;
        }
    }
    Ok(())
}

/// Whether a lab's registry runs.
pub(crate) fn runs(lab: &str) -> Result<bool> {
    Ok(Started::load(&file(lab, "json"))?.is_some_and(|registry| registry.runs()))
}

/// A file of a lab's registry. Not in the lab's folder: the process must be found, and stopped,
/// even when somebody removed that.
fn file(lab: &str, extension: &str) -> PathBuf {
    shared("registries").join(format!("{lab}.{extension}"))
}

async fn serve(address: SocketAddr, log: &Path, config: &Path) -> Result<Started> {
    let text = format!(
        "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
         http: {{addr: \"{address}\"}}\n",
        storage().display()
    );
    let folders = [Some(storage()), config.parent().map(Path::to_path_buf)];
    for folder in folders.into_iter().flatten() {
        std::fs::create_dir_all(&folder).map_err(at("create", &folder))?;
    }
    std::fs::write(config, text).map_err(at("write", config))?;
    let tried = format!("start a registry on {address}");
    let pid = Invocation::new("docker-registry")
        .arg("serve")
        .arg(config)
        // It would report to a collector that nobody runs.
        .env("OTEL_TRACES_EXPORTER", "none")
        .detach(&tried, log)?;
    let registry = Started::observe(pid)?;
    wait_for(&format!("a registry on {address}"), START_PATIENCE, || async {
        if !registry.runs() {
            return Ok(false);
        }
        match TcpStream::connect(address).await {
            Ok(_) => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?
    .then_some(registry)
    .ok_or_else(|| LabError::Malformed {
        what: format!("answer of docker-registry on {address} (log: {})", log.display()),
        reason: format!("it ended: {}", tail(log)),
    })
}

async fn push_all(work: &Path, address: SocketAddr, progress: &dyn Progress) -> Result<()> {
    for utility in UTILITIES {
        for tag in utility.tags {
            detail(progress, Stage::UtilityImages, format!("storing {}:{tag}", utility.repository));
            push(work, address, utility, tag).await?;
        }
    }
    Ok(())
}

async fn push(work: &Path, address: SocketAddr, utility: &Utility, tag: &str) -> Result<()> {
    let repository = utility.repository;
    let reference = format!("{address}/{repository}:{tag}");
    let context = work.join(repository);
    let recipe = context.join("Dockerfile");
    std::fs::write(&recipe, dockerfile(utility, tag)).map_err(at("write", &recipe))?;
    // The builder that is part of the engine: the other one is a plug-in, and may be absent.
    docker(["build", "--quiet", "--network=none", "--tag", &reference])
        .arg(&context)
        .env("DOCKER_BUILDKIT", "0")
        .run(&format!("build image {repository}:{tag}"))
        .await?;
    let pushed = docker(["push", "--quiet", &reference])
        .run(&format!("push image {repository}:{tag} to {address}"))
        .await;
    let removed =
        docker(["rmi", &reference]).run(&format!("remove the local copy of {reference}")).await;
    pushed?;
    removed.map(drop)
}

fn dockerfile(utility: &Utility, tag: &str) -> String {
    let mut text = String::from("FROM scratch\nADD root.tar /\n");
    for setting in utility.settings {
        text.push_str(setting);
        text.push('\n');
    }
    text + &format!("LABEL org.opencontainers.image.version={tag}\n")
}

/// A loopback port that nobody uses now.
fn free_loopback() -> Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(at("find a free port of", "127.0.0.1"))
}

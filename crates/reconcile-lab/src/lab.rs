//! The lab as a whole: up, down, reset, and what can be done to a server meanwhile.
//!
//! Must not know how any of it is done; the other modules do.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use futures::future::{join_all, try_join_all};
use serde::Serialize;

use crate::engine::{self, docker, list};
use crate::error::{LabError, Result, at};
use crate::machine::{self, Lock, shared};
use crate::progress::{Progress, Stage, detail, staged};
use crate::recipe::UTILITIES;
use crate::server::{self, Power};
use crate::state::{self, Lab, Server};
use crate::{image, mirror, network, registry};

/// Which lab, and what it should be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabOptions {
    /// The lab's name: lower-case letters, digits and hyphens. Labs of different names live side
    /// by side.
    pub name: String,
    /// How many servers; 1 to 99. Only `up` of a new or growing lab looks at it.
    pub servers: u8,
    /// Whether the servers come with a Docker engine. Only `up` of a new lab looks at it.
    pub docker: bool,
    /// The folder that holds labs; each has its own folder in it, by its name.
    pub dir: PathBuf,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { name: "lab".to_owned(), servers: 3, docker: true, dir: PathBuf::from(".lab") }
    }
}

impl LabOptions {
    /// The lab's own folder, absolute: `lab.json`, `id_ed25519`, `known_hosts`, `ssh_config`.
    pub fn state_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join(&self.name);
        std::path::absolute(&dir).map_err(at("find", dir))
    }

    fn check(&self) -> Result<()> {
        /// Leaves room for `-node99-docker` in what Docker and host names allow.
        const LONGEST: usize = 40;
        let fits = !self.name.is_empty()
            && self.name.len() <= LONGEST
            && !self.name.starts_with('-')
            && self
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !fits {
            return Err(LabError::Refused(format!(
                "lab name `{}`: only lower-case letters, digits and inner hyphens, {LONGEST} at most",
                self.name
            )));
        }
        if !(1..=99).contains(&self.servers) {
            return Err(LabError::Refused(format!(
                "a lab has 1 to 99 servers, not {}",
                self.servers
            )));
        }
        Ok(())
    }
}

/// What a lab is like now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabStatus {
    /// The lab's name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Its subnet, in CIDR form.
    pub subnet: String,
    /// This machine's address on it.
    pub gateway: Ipv4Addr,
    /// Where its servers pull images from.
    pub registry: String,
    /// Whether that registry runs.
    pub registry_runs: bool,
    /// Whether the outer engine answers; if not, nothing is known of the servers.
    pub engine_answers: bool,
    /// The images in the registry.
    pub images: Vec<String>,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// What a server is like now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Its host name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its container.
    pub container: String,
    /// `on`, `off`, `absent` or `unknown`.
    pub power: &'static str,
    /// systemd's word for it (`running`, `degraded`, `starting`, …); none unless on.
    pub boot: Option<String>,
    /// Whether its network is cut; none unless on.
    pub cut: Option<bool>,
    /// Whether its sshd answers.
    pub ssh: bool,
}

/// What a command in a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code; 137 and the like where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// How much [`down`] takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The lab; the image, the mirror and the registry's storage stay for the next one.
    Lab,
    /// The lab and, if it was the last, all that labs share, with the processes started for them.
    Everything,
}

/// Has the lab run: installs, builds, creates and starts whatever is missing, and touches nothing
/// that is there. Running servers stay as they are.
pub async fn up(options: &LabOptions, progress: &dyn Progress) -> Result<Lab> {
    options.check()?;
    machine::require_root()?;
    let dir = options.state_dir()?;
    let _lab_lock = lab_lock(&options.name).await?;
    let known = Lab::load(&dir)?;
    if let Some(lab) = &known {
        if lab.docker != options.docker {
            let has = if lab.docker { "with" } else { "without" };
            return Err(LabError::Refused(format!(
                "lab `{}` was made {has} a docker engine in its servers: take it down first",
                lab.name
            )));
        }
        if lab.servers.len() > usize::from(options.servers) {
            return Err(LabError::Refused(format!(
                "lab `{}` has {} servers, more than the {} asked for: take it down first",
                lab.name,
                lab.servers.len(),
                options.servers
            )));
        }
    }
    prepare(options.docker, progress).await?;
    let public_key = state::ensure_folder(&dir).await?;
    let lab = staged(progress, Stage::Network, async {
        refuse_foreign(&options.name, &dir).await?;
        let lab = if let Some(lab) = known {
            lab
        } else {
            // Without its lab.json nothing of an earlier lab is of use: its key is lost.
            remove_objects(&options.name).await?;
            plan(options).await?
        };
        let lab = grow(lab, options.servers);
        lab.save(&dir)?;
        network::ensure(&lab.name_of_network(), subnet(&lab)?, &lab.labels(&dir)).await?;
        Ok(lab)
    })
    .await?;
    staged(progress, Stage::Registry, async { registry::ensure(lab.gateway, &dir).await }).await?;
    staged(progress, Stage::Servers, boot(lab, &dir, &public_key, progress)).await
}

/// Puts every server back to bare, as after the first `up`: new disks, new host keys, the same
/// names and addresses. Cut cables are in again.
pub async fn reset(options: &LabOptions, progress: &dyn Progress) -> Result<Lab> {
    let dir = options.state_dir()?;
    machine::require_root()?;
    let _lab_lock = lab_lock(&options.name).await?;
    let lab = load(options)?;
    prepare(lab.docker, progress).await?;
    let public_key = state::ensure_folder(&dir).await?;
    refuse_foreign(&options.name, &dir).await?;
    network::ensure(&lab.name_of_network(), subnet(&lab)?, &lab.labels(&dir)).await?;
    registry::ensure(lab.gateway, &dir).await?;
    staged(progress, Stage::Removal, async {
        try_join_all(lab.servers.iter().map(server::remove)).await
    })
    .await?;
    staged(progress, Stage::Servers, boot(lab, &dir, &public_key, progress)).await
}

/// Takes the lab away, running or not, and whether or not its folder is still whole.
pub async fn down(options: &LabOptions, scope: Scope, progress: &dyn Progress) -> Result<()> {
    options.check()?;
    machine::require_root()?;
    let dir = options.state_dir()?;
    let _lab_lock = lab_lock(&options.name).await?;
    staged(progress, Stage::Removal, async {
        if machine::find("dockerd").is_some() {
            engine::ensure().await?;
            refuse_foreign(&options.name, &dir).await?;
            registry::stop(&dir).await?;
            remove_objects(&options.name).await?;
        }
        image::remove(&dir)?;
        if scope == Scope::Everything {
            remove_shared(progress).await?;
        }
        Ok(())
    })
    .await
}

/// Looks at the lab without changing anything.
pub async fn status(options: &LabOptions) -> Result<LabStatus> {
    let dir = options.state_dir()?;
    let lab = load(options)?;
    let engine_answers = machine::find("dockerd").is_some() && engine::answers().await?;
    let servers = join_all(lab.servers.iter().map(|server| look(server, engine_answers)))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(LabStatus {
        registry_runs: registry::runs(&dir)?,
        name: lab.name,
        dir,
        subnet: lab.subnet,
        gateway: lab.gateway,
        registry: lab.registry,
        engine_answers,
        images: lab.images,
        servers,
    })
}

/// Runs a command in a server as root. Goes past the server's network: works when cut.
pub async fn exec(options: &LabOptions, server: &str, argv: &[String]) -> Result<ExecOutput> {
    let lab = load(options)?;
    let server = lab.server(server)?;
    let command = server::exec(&server.container, argv);
    let tried = format!("run a command in {}", server.container);
    let output = command.output(&tried).await?;
    // The client's own failures give 125; a command's 125 is rare, and its text is passed on too.
    let code = output.status.code().unwrap_or(-1);
    if code == 125 || (code == 1 && output.stderr.starts_with(b"Error response from daemon")) {
        return Err(command.failure(&tried, &output));
    }
    Ok(ExecOutput { code, stdout: output.stdout, stderr: output.stderr })
}

/// Cuts a server's power. Its disks keep what was written; its address stays its own.
pub async fn stop(options: &LabOptions, server: &str) -> Result<()> {
    let lab = load(options)?;
    server::switch_off(&lab.server(server)?.container).await
}

/// Switches a server on and waits until it has booted and its sshd answers. A cut cable is in
/// again afterwards.
pub async fn start(options: &LabOptions, server: &str) -> Result<()> {
    let lab = load(options)?;
    let server = lab.server(server)?;
    server::switch_on(&server.container).await?;
    server::booted(server).await.map(drop)
}

/// Pulls a server's network cable: nothing gets in or out, connections hang, the address stays.
pub async fn cut(options: &LabOptions, server: &str) -> Result<()> {
    let lab = load(options)?;
    network::plug(&lab.server(server)?.container, false).await
}

/// Puts a server's network cable in again.
pub async fn heal(options: &LabOptions, server: &str) -> Result<()> {
    let lab = load(options)?;
    network::plug(&lab.server(server)?.container, true).await
}

impl Lab {
    /// The network in the outer engine.
    pub(crate) fn name_of_network(&self) -> String {
        format!("reconcile-lab-{}", self.name)
    }

    /// What marks the lab's objects in the outer engine as its own.
    fn labels(&self, dir: &Path) -> Vec<String> {
        vec![format!("{LABEL}={}", self.name), format!("{LABEL}.dir={}", dir.display())]
    }
}

/// Marks what belongs to a lab, by name; with `.dir`, the lab's folder.
const LABEL: &str = "reconcile-lab";

fn load(options: &LabOptions) -> Result<Lab> {
    options.check()?;
    Lab::load(&options.state_dir()?)?
        .ok_or_else(|| LabError::NoLab { name: options.name.clone(), dir: options.dir.clone() })
}

async fn lab_lock(name: &str) -> Result<Lock> {
    machine::lock(shared("locks").join(name)).await
}

/// Everything that labs share: programs, engine, mirror, images.
async fn prepare(docker: bool, progress: &dyn Progress) -> Result<()> {
    let _lock = machine::lock(shared("lock")).await?;
    staged(progress, Stage::Packages, async {
        let lacking = machine::lacking();
        if lacking.is_empty() {
            return Ok(());
        }
        detail(progress, Stage::Packages, format!("installing {}", lacking.join(" ")));
        machine::install(&lacking).await
    })
    .await?;
    staged(progress, Stage::Engine, engine::ensure()).await?;
    staged(progress, Stage::Mirror, mirror::ensure(progress)).await?;
    staged(progress, Stage::ServerImage, image::ensure(docker, progress)).await?;
    staged(progress, Stage::UtilityImages, registry::ensure_images(progress)).await
}

async fn plan(options: &LabOptions) -> Result<Lab> {
    let subnet = network::choose(&options.name).await?;
    let gateway = subnet.gateway();
    let registry = format!("{gateway}:{}", registry::PORT);
    let images = UTILITIES
        .iter()
        .flat_map(|utility| {
            let registry = &registry;
            utility.tags.iter().map(move |tag| format!("{registry}/{}:{tag}", utility.repository))
        })
        .collect();
    Ok(Lab {
        name: options.name.clone(),
        subnet: subnet.cidr(),
        gateway,
        images,
        registry,
        docker: options.docker,
        servers: Vec::new(),
    })
}

fn subnet(lab: &Lab) -> Result<network::Subnet> {
    network::parse(&lab.subnet).ok_or_else(|| LabError::Malformed {
        what: format!("state of lab `{}`", lab.name),
        reason: format!("`{}` is not a subnet 10.x.y.0/24", lab.subnet),
    })
}

fn grow(mut lab: Lab, servers: u8) -> Lab {
    let there: BTreeSet<String> = lab.servers.iter().map(|server| server.name.clone()).collect();
    if let Some(subnet) = network::parse(&lab.subnet) {
        for number in 1..=servers {
            let name = format!("node{number}");
            if !there.contains(&name) {
                lab.servers.push(Server {
                    address: subnet.server(number),
                    container: format!("{}-{name}", lab.name),
                    name,
                    host_key: None,
                });
            }
        }
    }
    lab
}

/// Has every server run, all at once, and takes down their host keys.
async fn boot(mut lab: Lab, dir: &Path, key: &str, progress: &dyn Progress) -> Result<Lab> {
    let image = image::reference(lab.docker);
    let labels = lab.labels(dir);
    let boots = lab.servers.iter().map(|server| {
        let (lab, image, labels) = (&lab, &image, &labels);
        async move {
            let start = Instant::now();
            match server::power(&server.container).await? {
                Power::On => {}
                Power::Off => server::switch_on(&server.container).await?,
                Power::Absent => server::create(lab, server, image, key, labels).await?,
            }
            let host_key = server::booted(server).await?;
            let took = start.elapsed().as_secs_f32();
            detail(
                progress,
                Stage::Servers,
                format!("{} is up at {} ({took:.1} s)", server.name, server.address),
            );
            Ok(host_key)
        }
    });
    // All get their time, even if one fails: the failure is told after the others are known.
    let keys: Vec<Result<String>> = join_all(boots).await;
    let mut failed = None;
    for (server, key) in lab.servers.iter_mut().zip(keys) {
        match key {
            Ok(key) => server.host_key = Some(key),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    lab.save(dir)?;
    match failed {
        Some(error) => Err(error),
        None => Ok(lab),
    }
}

async fn look(server: &Server, engine_answers: bool) -> Result<ServerStatus> {
    let mut status = ServerStatus {
        name: server.name.clone(),
        address: server.address,
        container: server.container.clone(),
        power: "unknown",
        boot: None,
        cut: None,
        ssh: server::ssh_answers(server.address).await.is_ok(),
    };
    if !engine_answers {
        return Ok(status);
    }
    status.power = match server::power(&server.container).await? {
        Power::On => "on",
        Power::Off => "off",
        Power::Absent => "absent",
    };
    if status.power == "on" {
        status.boot = Some(server::boot_state(&server.container, false).await?);
        status.cut = Some(!network::plugged(&server.container).await?);
    }
    Ok(status)
}

/// Names are shared by the whole machine: a lab of another folder is not this one's to touch.
async fn refuse_foreign(name: &str, dir: &Path) -> Result<()> {
    let filter = format!("label={LABEL}={name}");
    let format = format!("{{{{.Label \"{LABEL}.dir\"}}}}");
    let found = docker(["network", "ls", "--filter", &filter, "--format", &format])
        .run(&format!("find the folder of lab `{name}`"))
        .await?;
    match found.lines().find(|line| Path::new(line) != dir) {
        Some(other) => Err(LabError::Refused(format!(
            "lab `{name}` belongs to {other}: choose another name, or take that one down"
        ))),
        None => Ok(()),
    }
}

/// Removes every object of a lab from the outer engine, by label.
async fn remove_objects(name: &str) -> Result<()> {
    let filter = format!("label={LABEL}={name}");
    let kinds: [(&str, &[&str], &[&str]); 3] = [
        ("containers", &["ps", "--all"], &["rm", "--force", "--volumes"]),
        ("volumes", &["volume", "ls"], &["volume", "rm"]),
        ("networks", &["network", "ls"], &["network", "rm"]),
    ];
    for (kind, listing, removal) in kinds {
        let tried = format!("list the {kind} of lab `{name}`");
        let args = [listing, &["--quiet", "--filter", &filter]].concat();
        let found = list(&tried, &args).await?;
        try_join_all(found.iter().map(|object| async move {
            docker(removal).arg(object).run(&format!("remove {kind} of lab `{name}`")).await
        }))
        .await?;
    }
    Ok(())
}

/// Removes what labs share, unless another lab is left.
async fn remove_shared(progress: &dyn Progress) -> Result<()> {
    let _lock = machine::lock(shared("lock")).await?;
    if machine::find("dockerd").is_some() {
        let filter = format!("label={LABEL}");
        let args = ["network", "ls", "--quiet", "--filter", &filter];
        if !list("look for other labs", &args).await?.is_empty() {
            return Err(LabError::Refused(
                "another lab is left, and uses the image, the mirror and the registry: \
                 take it down first"
                    .to_owned(),
            ));
        }
        let format = "{{.Repository}}:{{.Tag}}";
        let args = ["image", "ls", "--format", format, "reconcile-lab/*"];
        for reference in list("list the lab's images", &args).await? {
            detail(progress, Stage::Removal, format!("image {reference}"));
            docker(["rmi", "--force", &reference])
                .run(&format!("remove image {reference}"))
                .await?;
        }
        engine::stop_own().await?;
    }
    image::remove(Path::new(machine::SHARED))
}

//! The lab as a whole: up, down, reset, and what can be done to a server meanwhile.
//!
//! Must not know how any of it is done; the other modules do.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use futures::future::{join_all, try_join_all};

use crate::engine::{self, docker, list};
use crate::error::{LabError, Result};
use crate::machine::{self, Lock, shared};
use crate::options::LabOptions;
use crate::progress::{Progress, Stage, detail, staged};
use crate::recipe::UTILITIES;
use crate::server::{self, Power};
use crate::state::{self, Lab, Server};
use crate::{image, mirror, network, registry};

/// How much [`down`] takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The lab; the image, the mirror and the registry's storage stay for the next one.
    Lab,
    /// The lab and, if it was the last, all that labs share, with the processes started for them.
    Everything,
}

/// Has the lab run: installs, builds, creates and starts whatever is missing, and touches nothing
/// that is there. Running servers stay as they are, but for a cut cable, which is in again.
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
    refuse_foreign(&options.name, &dir).await?;
    let public_key = state::ensure_folder(&dir).await?;
    let lab = staged(progress, Stage::Network, async {
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
    staged(progress, Stage::Registry, async { registry::ensure(lab.gateway, &lab.name).await })
        .await?;
    staged(progress, Stage::Servers, boot(lab, &dir, &public_key, progress)).await
}

/// Puts every server, or `only` this one, back to bare, as after the first `up`: new disks, new host keys, the same
/// names and addresses. Cut cables are in again.
pub async fn reset(
    options: &LabOptions,
    only: Option<&str>,
    progress: &dyn Progress,
) -> Result<Lab> {
    let dir = options.state_dir()?;
    machine::require_root()?;
    let _lab_lock = lab_lock(&options.name).await?;
    let lab = options.load()?;
    let bare: Vec<&Server> = match only {
        Some(name) => vec![lab.server(name)?],
        None => lab.servers.iter().collect(),
    };
    prepare(lab.docker, progress).await?;
    let public_key = state::ensure_folder(&dir).await?;
    refuse_foreign(&options.name, &dir).await?;
    network::ensure(&lab.name_of_network(), subnet(&lab)?, &lab.labels(&dir)).await?;
    registry::ensure(lab.gateway, &lab.name).await?;
    staged(progress, Stage::Removal, async {
        try_join_all(bare.into_iter().map(server::remove)).await
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
            registry::stop(&options.name).await?;
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
    let mut boots = Vec::new();
    for server in &lab.servers {
        let (lab, image, labels) = (&lab, &image, &labels);
        boots.push(async move {
            let start = Instant::now();
            match server::power(&server.container).await? {
                Power::On => network::plug(&server.container, true).await?,
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
        });
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::progress::Silent;

    #[test]
    fn a_lab_grows_and_keeps_what_it_has() {
        let lab = Lab {
            name: "lab".to_owned(),
            subnet: "10.201.7.0/24".to_owned(),
            gateway: Ipv4Addr::new(10, 201, 7, 1),
            registry: String::new(),
            images: Vec::new(),
            docker: true,
            servers: Vec::new(),
        };
        let one = grow(lab, 1);
        let three = grow(one.clone(), 3);
        assert_eq!(three.servers[0], one.servers[0]);
        assert_eq!(three.servers[2].container, "lab-node3");
        assert_eq!(three.servers[2].address, Ipv4Addr::new(10, 201, 7, 13));
    }

    #[test]
    fn work_can_be_spawned() {
        fn sendable<T: Send>(_: &T) {}
        let options = LabOptions::default();
        sendable(&up(&options, &Silent));
        sendable(&reset(&options, None, &Silent));
        sendable(&down(&options, Scope::Lab, &Silent));
    }
}

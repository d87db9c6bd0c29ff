//! From our words to the engine's, entirely from the desired service: what the engine holds is
//! never written back, since bollard's model would lose fields of it.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    EndpointSpec, EndpointSpecModeEnum, NetworkAttachmentConfig, ServiceSpec as EngineSpec,
    ServiceSpecMode, ServiceSpecModeReplicated, ServiceSpecRollbackConfig,
    ServiceSpecRollbackConfigFailureActionEnum, ServiceSpecUpdateConfig, TaskSpec,
    TaskSpecContainerSpec, TaskSpecContainerSpecConfigs, TaskSpecContainerSpecFile,
    TaskSpecContainerSpecFile1, TaskSpecContainerSpecSecrets, TaskSpecPlacement,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};
use reconcile_core::model::{FileMount, ServiceMode, ServiceSpec, UpdateRule, sha256_hex};

use super::NANOS_PER_MILLI;
use crate::labels::{RESOLVED_IMAGE, SPEC_HASH, UNMODELLED};

/// Ids of the configs and secrets that a service mounts, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    /// Config ids.
    pub configs: BTreeMap<String, String>,
    /// Secret ids.
    pub secrets: BTreeMap<String, String>,
}

/// The request for a service. The error says in words what the specification lacks.
pub fn to_engine(spec: &ServiceSpec, ids: &Ids) -> Result<EngineSpec, String> {
    let (update, rollback) = rules(&spec.update)?;
    Ok(EngineSpec {
        name: Some(spec.name.clone()),
        labels: Some(labels(spec)),
        task_template: Some(task(spec, ids)?),
        mode: Some(mode(&spec.mode)?),
        update_config: Some(update),
        rollback_config: Some(rollback),
        networks: None,
        endpoint_spec: Some(endpoint(spec)),
    })
}

fn labels(spec: &ServiceSpec) -> HashMap<String, String> {
    // Plain data with string keys always serialises.
    let hash = sha256_hex(&serde_json::to_vec(spec).unwrap_or_default());
    let mut labels: HashMap<_, _> = spec.labels.clone().into_iter().collect();
    labels.remove(UNMODELLED);
    labels.insert(SPEC_HASH.to_owned(), hash);
    labels.insert(RESOLVED_IMAGE.to_owned(), spec.image.clone());
    labels
}

fn task(spec: &ServiceSpec, ids: &Ids) -> Result<TaskSpec, String> {
    let image = match &spec.digest {
        Some(digest) => format!("{}@{digest}", spec.image),
        None => spec.image.clone(),
    };
    let configs = spec.configs.iter().map(|mount| config(mount, ids)).collect::<Result<_, _>>()?;
    let secrets = spec.secrets.iter().map(|mount| secret(mount, ids)).collect::<Result<_, _>>()?;
    Ok(TaskSpec {
        container_spec: Some(TaskSpecContainerSpec {
            image: Some(image),
            labels: Some(spec.container_labels.clone().into_iter().collect()),
            command: Some(spec.command.clone()),
            args: Some(spec.args.clone()),
            env: Some(spec.env.clone()),
            user: Some(spec.user.clone()),
            configs: Some(configs),
            secrets: Some(secrets),
            stop_signal: Some(spec.stop_signal.clone()).filter(|signal| !signal.is_empty()),
            stop_grace_period: Some(nanos(spec.stop_grace_ms, "stop grace period")?),
            init: Some(spec.init),
            ..TaskSpecContainerSpec::default()
        }),
        restart_policy: Some(TaskSpecRestartPolicy {
            condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
            delay: Some(nanos(spec.restart_delay_ms, "restart delay")?),
            ..TaskSpecRestartPolicy::default()
        }),
        placement: Some(TaskSpecPlacement {
            constraints: Some(sorted(&spec.constraints)),
            ..TaskSpecPlacement::default()
        }),
        networks: Some(networks(spec)),
        ..TaskSpec::default()
    })
}

/// Networks by name: the engine puts ids in their place, for the predefined `host` the id that
/// it has in the Swarm and not the server's own.
fn networks(spec: &ServiceSpec) -> Vec<NetworkAttachmentConfig> {
    let mut networks = spec.networks.clone();
    networks.sort();
    networks
        .into_iter()
        .map(|attached| NetworkAttachmentConfig {
            target: Some(attached.network),
            aliases: Some(sorted(&attached.aliases)),
            driver_opts: None,
        })
        .collect()
}

#[expect(clippy::zero_sized_map_values, reason = "bollard's type for an empty object")]
fn mode(mode: &ServiceMode) -> Result<ServiceSpecMode, String> {
    Ok(match mode {
        ServiceMode::Global => {
            ServiceSpecMode { global: Some(HashMap::new()), ..ServiceSpecMode::default() }
        }
        ServiceMode::Replicated(replicas) => ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated {
                replicas: Some(number(*replicas, "number of replicas")?),
            }),
            ..ServiceSpecMode::default()
        },
    })
}

fn endpoint(spec: &ServiceSpec) -> EndpointSpec {
    let mut ports = spec.ports.clone();
    ports.sort();
    EndpointSpec {
        mode: Some(if spec.dnsrr {
            EndpointSpecModeEnum::DNSRR
        } else {
            EndpointSpecModeEnum::VIP
        }),
        ports: Some(
            ports
                .into_iter()
                .map(|port| EndpointPortConfig {
                    name: None,
                    protocol: Some(EndpointPortConfigProtocolEnum::TCP),
                    target_port: Some(port.target.into()),
                    published_port: Some(port.published.into()),
                    publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
                })
                .collect(),
        ),
    }
}

fn config(mount: &FileMount, ids: &Ids) -> Result<TaskSpecContainerSpecConfigs, String> {
    Ok(TaskSpecContainerSpecConfigs {
        file: Some(TaskSpecContainerSpecFile1 {
            name: Some(mount.target.clone()),
            uid: Some(mount.uid.to_string()),
            gid: Some(mount.gid.to_string()),
            mode: Some(mount.mode),
        }),
        runtime: None,
        config_id: Some(id(&ids.configs, mount, "config")?),
        config_name: Some(mount.source.clone()),
    })
}

fn secret(mount: &FileMount, ids: &Ids) -> Result<TaskSpecContainerSpecSecrets, String> {
    Ok(TaskSpecContainerSpecSecrets {
        file: Some(TaskSpecContainerSpecFile {
            name: Some(mount.target.clone()),
            uid: Some(mount.uid.to_string()),
            gid: Some(mount.gid.to_string()),
            mode: Some(mount.mode),
        }),
        secret_id: Some(id(&ids.secrets, mount, "secret")?),
        secret_name: Some(mount.source.clone()),
    })
}

fn id(ids: &BTreeMap<String, String>, mount: &FileMount, kind: &str) -> Result<String, String> {
    ids.get(&mount.source)
        .cloned()
        .ok_or_else(|| format!("the {kind} {} does not exist in the Swarm", mount.source))
}

/// A rollback that fails can only stop: there is nothing left to roll back to.
fn rules(
    rule: &UpdateRule,
) -> Result<(ServiceSpecUpdateConfig, ServiceSpecRollbackConfig), String> {
    let parallelism = Some(number(rule.parallelism, "update parallelism")?);
    let delay = Some(nanos(rule.delay_ms, "update delay")?);
    let monitor = Some(nanos(rule.monitor_ms, "update monitor period")?);
    let unknown = |what: &str, word: &str| format!("no such {what}: {word:?}");
    let update = ServiceSpecUpdateConfig {
        parallelism,
        delay,
        failure_action: Some(
            rule.failure_action
                .parse()
                .map_err(|_| unknown("update failure action", &rule.failure_action))?,
        ),
        monitor,
        max_failure_ratio: None,
        order: Some(rule.order.parse().map_err(|_| unknown("update order", &rule.order))?),
    };
    let rollback = ServiceSpecRollbackConfig {
        parallelism,
        delay,
        failure_action: Some(ServiceSpecRollbackConfigFailureActionEnum::PAUSE),
        monitor,
        max_failure_ratio: None,
        order: Some(rule.order.parse().map_err(|_| unknown("update order", &rule.order))?),
    };
    Ok((update, rollback))
}

fn nanos(millis: u64, what: &str) -> Result<i64, String> {
    number(millis.saturating_mul(NANOS_PER_MILLI), what)
}

fn number(value: u64, what: &str) -> Result<i64, String> {
    i64::try_from(value).map_err(|_| format!("the {what} is too large"))
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list
}

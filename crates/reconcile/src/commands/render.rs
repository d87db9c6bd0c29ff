//! `reconcile render`: every file of every server, and the stack, so that nobody is locked in.

use std::{collections::BTreeMap, path::Path};

use reconcile_core::{
    desired::{Desired, Secrets, desired},
    model::SecretText,
};
use reconcile_spec::{ValidSpec, secrets::required_secrets};

use crate::{
    cli::{Cli, RenderArgs},
    failure::{Failure, Outcome},
    output, source,
};

pub(super) fn run(cli: &Cli, arguments: &RenderArgs) -> Result<Outcome, Failure> {
    let source = source::read(cli)?;
    for spec in &source.clusters {
        if arguments.spec {
            output::print(&reconcile_spec::to_yaml(spec))?;
            continue;
        }
        let files = files(spec)?;
        match &arguments.dir {
            Some(dir) => write_all(&dir.join(spec.name.as_str()), &files)?,
            None => {
                for (path, text) in &files {
                    output::print(&format!("==> {path} <==\n{text}\n"))?;
                }
            }
        }
    }
    Ok(Outcome::Done)
}

/// Placeholders instead of secrets: what is rendered can be shown to anyone.
fn placeholders(spec: &ValidSpec) -> Secrets {
    required_secrets(spec)
        .into_iter()
        .map(|need| (need.name.to_string(), SecretText::new(format!("<secret:{}>", need.name))))
        .collect()
}

fn files(spec: &ValidSpec) -> Result<BTreeMap<String, String>, Failure> {
    let desired = desired(spec, &placeholders(spec))
        .map_err(|_| Failure::new("the placeholders do not cover every secret"))?;
    let mut files = BTreeMap::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for (host, server) in &desired.servers {
        for (path, managed) in &server.files {
            files.insert(format!("{host}{path}"), text(managed.file.content.bytes()));
        }
    }
    let swarm = &desired.swarm;
    for file in swarm.configs.iter().chain(&swarm.secrets) {
        files.insert(format!("stack/{}", file.name), text(file.content.bytes()));
    }
    files.insert("stack/compose.yaml".to_owned(), compose(&desired)?);
    Ok(files)
}

/// The stack for `docker stack deploy -c compose.yaml <stack>`.
fn compose(desired: &Desired) -> Result<String, Failure> {
    use reconcile_core::model::{FileMount, ServiceMode, ServiceSpec};
    use serde_json::{Map, Value, json};

    let stack = desired.swarm.labels.get(reconcile_core::desired::swarm::STACK_LABEL);
    let prefix = format!("{}_", stack.map_or("", String::as_str));
    let mounts = |mounts: &[FileMount]| -> Vec<Value> {
        mounts
            .iter()
            .map(|mount| {
                json!({
                    "source": mount.source, "target": mount.target,
                    "uid": mount.uid.to_string(), "gid": mount.gid.to_string(), "mode": mount.mode,
                })
            })
            .collect()
    };
    let seconds = |millis: u64| format!("{millis}ms");
    let service = |spec: &ServiceSpec| {
        let networks: Map<String, Value> = spec
            .networks
            .iter()
            .map(|network| {
                let aliases = json!({ "aliases": network.aliases });
                let value = if network.aliases.is_empty() { json!({}) } else { aliases };
                (network.network.clone(), value)
            })
            .collect();
        let ports: Vec<_> = spec
            .ports
            .iter()
            .map(|port| {
                json!({ "target": port.target, "published": port.published, "protocol": "tcp", "mode": "host" })
            })
            .collect();
        let mut deploy = json!({
            "restart_policy": { "condition": "any", "delay": seconds(spec.restart_delay_ms) },
            "update_config": {
                "parallelism": spec.update.parallelism,
                "delay": seconds(spec.update.delay_ms),
                "monitor": seconds(spec.update.monitor_ms),
                "failure_action": spec.update.failure_action,
                "order": spec.update.order,
            },
        });
        match spec.mode {
            ServiceMode::Global => deploy["mode"] = json!("global"),
            ServiceMode::Replicated(count) => deploy["replicas"] = json!(count),
        }
        if spec.dnsrr {
            deploy["endpoint_mode"] = json!("dnsrr");
        }
        let mut service = json!({
            "image": spec.image, "entrypoint": spec.command, "user": spec.user,
            "networks": networks, "configs": mounts(&spec.configs),
            "stop_signal": spec.stop_signal, "stop_grace_period": seconds(spec.stop_grace_ms),
            "deploy": deploy,
        });
        if !ports.is_empty() {
            service["ports"] = json!(ports);
        }
        if !spec.secrets.is_empty() {
            service["secrets"] = json!(mounts(&spec.secrets));
        }
        service
    };
    let services: Map<String, Value> = desired
        .swarm
        .services
        .iter()
        .map(|spec| (spec.name.trim_start_matches(&prefix).to_owned(), service(spec)))
        .collect();
    let external = |names: Vec<&String>| -> Map<String, Value> {
        names
            .into_iter()
            .map(|name| (name.clone(), json!({ "name": name, "file": format!("./{name}") })))
            .collect()
    };
    let document = json!({
        "version": "3.8",
        "services": services,
        "networks": {
            "host": { "name": "host", "external": true },
            (desired.swarm.network.name.clone()): { "name": desired.swarm.network.name, "external": true },
        },
        "configs": external(desired.swarm.configs.iter().map(|file| &file.name).collect()),
        "secrets": external(desired.swarm.secrets.iter().map(|file| &file.name).collect()),
    });
    serde_yaml::to_string(&document)
        .map_err(|error| Failure::from_error("write the stack as compose YAML", &error))
}

fn write_all(dir: &Path, files: &BTreeMap<String, String>) -> Result<(), Failure> {
    for (path, text) in files {
        let path = dir.join(path);
        let attempt = || format!("write {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| Failure::from_error(attempt(), &error))?;
        }
        std::fs::write(&path, text).map_err(|error| Failure::from_error(attempt(), &error))?;
    }
    output::note(&format!("wrote {} files below {}", files.len(), dir.display()));
    Ok(())
}

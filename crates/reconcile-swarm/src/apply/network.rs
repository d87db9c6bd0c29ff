//! The overlay network.

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use reconcile_core::{
    model::NetworkSpec,
    ports::{EffectError, Retry},
};

use super::Task;
use crate::{
    engine::filters, fault::Fault, labels::same_cluster, observe::network_fact, wire::Network,
};

/// Creates the network; one of ours that is there already is success.
pub(super) async fn create(task: &Task<'_>, spec: &NetworkSpec) -> Result<(), EffectError> {
    if let Some(there) = find(task, spec).await? {
        return accept(task, spec, there);
    }
    let request = NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some(spec.driver.clone()),
        attachable: Some(spec.attachable),
        ipam: spec.subnet.as_ref().map(|subnet| Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.clone()),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        }),
        options: spec.encrypted.then(|| [("encrypted".to_owned(), String::new())].into()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        ..NetworkCreateRequest::default()
    };
    match task.engine.call(|docker| docker.create_network(request)).await {
        Ok(_) => Ok(()),
        // Somebody was faster, perhaps ourselves in a run that was cut short.
        Err(Fault::Refused { status: 409, message }) => match find(task, spec).await? {
            Some(there) => accept(task, spec, there),
            None => Err(task.error(message, Retry::Soon)),
        },
        Err(fault) => Err(task.failed()(fault)),
    }
}

async fn find(task: &Task<'_>, spec: &NetworkSpec) -> Result<Option<Network>, EffectError> {
    let path = format!("/networks{}", filters("name", &[&spec.name]));
    let found: Vec<Network> = task.engine.get(&path).await.map_err(task.failed())?;
    // The filter takes parts of names too.
    Ok(found.into_iter().find(|network| network.name == spec.name))
}

fn accept(task: &Task<'_>, spec: &NetworkSpec, there: Network) -> Result<(), EffectError> {
    let there = network_fact(there);
    if same_cluster(&there.labels, &spec.labels) && there.scope == "swarm" {
        return Ok(());
    }
    let cause = format!(
        "a network of that name exists that is none of ours (id {}, driver {}, scope {})",
        there.id, there.driver, there.scope
    );
    Err(task.error(cause, Retry::AfterChange))
}

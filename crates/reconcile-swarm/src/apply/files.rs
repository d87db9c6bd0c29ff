//! Configs and secrets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reconcile_core::{
    action::SwarmFile,
    ports::{EffectError, Retry},
};
use serde_json::json;

use super::Task;
use crate::{
    engine::filters,
    fault::Fault,
    labels::{CLUSTER, same_cluster},
    wire::File,
};

/// Config or secret: the engine treats them alike, but for reading content back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Config,
    Secret,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Self::Config => "/configs",
            Self::Secret => "/secrets",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Secret => "secret",
        }
    }
}

/// Creates it; one of ours that is there already is success. The content travels past bollard,
/// which would write it to its log.
pub(super) async fn create(
    task: &Task<'_>,
    kind: Kind,
    file: &SwarmFile,
) -> Result<(), EffectError> {
    let data = STANDARD.encode(file.content.bytes());
    let request = json!({ "Name": file.name, "Labels": file.labels, "Data": data });
    match task.engine.post(&format!("{}/create", kind.path()), &request).await {
        Ok(_) => Ok(()),
        Err(Fault::Refused { status: 409, message }) => match find(task, kind, &file.name).await? {
            Some(there) => accept(task, kind, file, &there, &data),
            None => Err(task.error(message, Retry::Soon)),
        },
        Err(fault) => Err(task.failed()(fault)),
    }
}

fn accept(
    task: &Task<'_>,
    kind: Kind,
    file: &SwarmFile,
    there: &File,
    data: &str,
) -> Result<(), EffectError> {
    let word = kind.word();
    if !same_cluster(&there.spec.labels, &file.labels) {
        let cause = format!("a {word} of that name exists that is none of ours");
        return Err(task.error(cause, Retry::AfterChange));
    }
    // Secrets cannot be read back; their names carry a hash of the content.
    if kind == Kind::Config && there.spec.data != data {
        let cause = format!("a {word} of ours of that name exists with other content");
        return Err(task.error(cause, Retry::AfterChange));
    }
    Ok(())
}

/// Removes it, if it is ours and no service uses it.
pub(super) async fn remove(task: &Task<'_>, kind: Kind, name: &str) -> Result<(), EffectError> {
    let Some(there) = find(task, kind, name).await? else { return Ok(()) };
    if !there.spec.labels.contains_key(CLUSTER) {
        let cause = format!("the {} is none of ours", kind.word());
        return Err(task.error(cause, Retry::AfterChange));
    }
    let removed = match kind {
        Kind::Config => task.engine.call(|docker| docker.delete_config(&there.id)).await,
        Kind::Secret => task.engine.call(|docker| docker.delete_secret(&there.id)).await,
    };
    match removed {
        Err(fault) if fault.status() != Some(404) => Err(task.failed()(fault)),
        _ => Ok(()),
    }
}

async fn find(task: &Task<'_>, kind: Kind, name: &str) -> Result<Option<File>, EffectError> {
    let path = format!("{}{}", kind.path(), filters("name", &[name]));
    let found: Vec<File> = task.engine.get(&path).await.map_err(task.failed())?;
    // The filter takes prefixes of names too.
    Ok(found.into_iter().find(|file| file.spec.name == name))
}

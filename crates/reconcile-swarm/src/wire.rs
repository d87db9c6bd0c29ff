//! What the engine answers, as far as we look: every field may be missing or null, every word of an
//! enumeration is plain text, and unknown fields are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Null and missing are both empty: Go writes either.
pub(crate) fn lenient<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Version {
    pub(crate) index: u64,
}

/// Name and labels, which head every specification.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Annotations {
    pub(crate) name: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) labels: Labels,
}

/// `GET /swarm` without its join tokens.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Swarm {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) spec: Annotations,
}

/// `GET /nodes/…`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) spec: NodeSpec,
    pub(crate) description: NodeDescription,
    pub(crate) status: NodeStatus,
    #[serde(deserialize_with = "lenient")]
    pub(crate) manager_status: ManagerStatus,
}

impl Node {
    pub(crate) fn ready(&self) -> bool {
        self.status.state == "ready"
    }

    /// The host name, or the id while the node has not told its name yet.
    pub(crate) fn label(&self) -> &str {
        let name = &self.description.hostname;
        if name.is_empty() { &self.id } else { name }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodeSpec {
    pub(crate) role: String,
    pub(crate) availability: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodeDescription {
    pub(crate) hostname: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct NodeStatus {
    pub(crate) state: String,
    pub(crate) message: String,
    pub(crate) addr: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ManagerStatus {
    pub(crate) leader: bool,
    pub(crate) reachability: String,
    pub(crate) addr: String,
}

/// An entry of `GET /networks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) driver: String,
    pub(crate) scope: String,
    pub(crate) attachable: bool,
    #[serde(deserialize_with = "lenient")]
    pub(crate) options: Labels,
    #[serde(rename = "IPAM", deserialize_with = "lenient")]
    pub(crate) ipam: Ipam,
    #[serde(deserialize_with = "lenient")]
    pub(crate) labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Ipam {
    #[serde(deserialize_with = "lenient")]
    pub(crate) config: Vec<Subnet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Subnet {
    pub(crate) subnet: String,
}

/// An entry of `GET /configs` or `GET /secrets`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct File {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) created_at: String,
    pub(crate) spec: FileSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct FileSpec {
    pub(crate) name: String,
    #[serde(deserialize_with = "lenient")]
    pub(crate) labels: Labels,
    /// Base64; the engine gives it for configs and never for secrets.
    pub(crate) data: String,
}

/// An entry of `GET /services`. The specification stays raw: see `convert`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) version: Version,
    pub(crate) spec: Value,
    /// What it was before its last change; null where there was none.
    pub(crate) previous_spec: Value,
    #[serde(deserialize_with = "lenient")]
    pub(crate) update_status: UpdateStatus,
}

impl Service {
    pub(crate) fn name(&self) -> &str {
        self.spec["Name"].as_str().unwrap_or_default()
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.spec["Labels"][name].as_str()
    }

    pub(crate) fn global(&self) -> bool {
        self.spec["Mode"].get("Global").is_some()
    }

    pub(crate) fn force_update(&self) -> u64 {
        self.spec["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0)
    }
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct UpdateStatus {
    pub(crate) state: String,
    pub(crate) message: String,
}

/// An entry of `GET /tasks`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Task {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) created_at: String,
    #[serde(rename = "ServiceID")]
    pub(crate) service_id: String,
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    pub(crate) slot: u64,
    pub(crate) spec: Value,
    pub(crate) desired_state: String,
    pub(crate) status: TaskStatus,
}

impl Task {
    /// Orders tasks by age. Go drops trailing zeros of the fraction, so the `Z` must go too for
    /// texts to compare as times.
    pub(crate) fn age_key(&self) -> &str {
        self.created_at.trim_end_matches('Z')
    }

    /// True for a task that the Swarm wants (or is about to want) to run.
    pub(crate) fn wanted(&self) -> bool {
        matches!(self.desired_state.as_str(), "running" | "ready" | "accepted")
    }

    /// True for a task that ended in an error.
    pub(crate) fn broke(&self) -> bool {
        matches!(self.status.state.as_str(), "failed" | "rejected")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct TaskStatus {
    pub(crate) state: String,
    pub(crate) message: String,
    pub(crate) err: String,
}

impl TaskStatus {
    /// The error, or else the message.
    pub(crate) fn reason(&self) -> String {
        crate::fault::one_line(if self.err.is_empty() { &self.message } else { &self.err })
    }
}

/// The `Swarm` part of `GET /info`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Info {
    #[serde(deserialize_with = "lenient")]
    pub(crate) swarm: LocalSwarm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct LocalSwarm {
    pub(crate) local_node_state: String,
    #[serde(rename = "NodeID")]
    pub(crate) node_id: String,
    pub(crate) control_available: bool,
    pub(crate) error: String,
}

/// The join tokens of `GET /swarm`. No Debug: whoever holds one can join.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tokens {
    pub(crate) join_tokens: JoinTokens,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct JoinTokens {
    pub(crate) worker: String,
    pub(crate) manager: String,
}

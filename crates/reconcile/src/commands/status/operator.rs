//! Whether an operator is alive, as the servers know it.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use reconcile_core::{
    lease::{Standing, standing},
    status::Status,
};
use serde::Serialize;
use tokio::time::timeout;

use crate::{commands::Prepared, lease::named};

/// A server that answered a moment ago does so again within this.
const ANSWER: Duration = Duration::from_secs(5);

/// Who keeps the cluster at its desired state.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Operator {
    /// Somebody, for now.
    Present {
        /// User and machine.
        name: String,
        /// Number of the process there.
        process: String,
        /// When the lease was granted or renewed last.
        renewed_seconds_ago: u64,
    },
    /// Nobody.
    None {
        /// Who did last.
        last: Option<String>,
    },
    /// The servers that answered cannot tell.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Asks the servers that were seen just now; the others are unknown.
pub(super) async fn ask(prepared: &Prepared, status: &Status) -> Operator {
    let asked = status.hosts.iter().map(async |host| {
        let answer = match &host.unreachable {
            Some(reason) => Err(reason.clone()),
            None => match timeout(ANSWER, prepared.fleet.lease_seen(&host.name)).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("{} gave no answer in time", host.name)),
            },
        };
        (host.name.clone(), answer)
    });
    Operator::of(standing(&join_all(asked).await.into_iter().collect::<BTreeMap<_, _>>()))
}

impl Operator {
    fn of(standing: Standing) -> Self {
        match standing {
            Standing::Held { holder, renewed_ms } => {
                let (name, process) = named(&holder);
                Self::Present {
                    name: name.to_owned(),
                    process: process.to_owned(),
                    renewed_seconds_ago: renewed_ms / 1000,
                }
            }
            Standing::Free { last } => Self::None { last: last.as_deref().map(who) },
            Standing::Unknown { answered, voters, perhaps, why } => {
                let mut said = format!("{answered} of {voters} servers answer");
                if let Some(holder) = perhaps {
                    said.push_str(&format!(", and there {} holds the lease", who(&holder)));
                }
                Self::Unknown { why: format!("{said}: {why}") }
            }
        }
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Present { name, process, renewed_seconds_ago } => format!(
                "Operator  {name} (process {process}), lease renewed {renewed_seconds_ago} s ago\n"
            ),
            Self::None { last } => {
                let last = last.as_ref().map(|last| format!("; {last} did last"));
                format!(
                    "Operator  none: nobody keeps the cluster at its desired state{}\n",
                    last.unwrap_or_default()
                )
            }
            Self::Unknown { why } => {
                format!("Operator  unknown: {}\n", why.lines().next().unwrap_or_default())
            }
        }
    }
}

fn who(holder: &str) -> String {
    let (name, process) = named(holder);
    format!("{name} (process {process})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_there_or_not_or_not_known() {
        let holder = || "ada@ops1/4711/1795341600".to_owned();
        let held = Operator::of(Standing::Held { holder: holder(), renewed_ms: 3_900 });
        assert_eq!(held.line(), "Operator  ada@ops1 (process 4711), lease renewed 3 s ago\n");
        assert_eq!(
            serde_json::to_value(&held).expect("JSON"),
            serde_json::json!({ "state": "present", "name": "ada@ops1", "process": "4711",
                                "renewedSecondsAgo": 3 })
        );
        let free = Operator::of(Standing::Free { last: Some(holder()) });
        assert_eq!(
            free.line(),
            "Operator  none: nobody keeps the cluster at its desired state; ada@ops1 (process 4711) did last\n"
        );
        let never = Operator::of(Standing::Free { last: None });
        assert_eq!(never.line(), "Operator  none: nobody keeps the cluster at its desired state\n");
        let unknown = Operator::of(Standing::Unknown {
            answered: 1,
            voters: 3,
            perhaps: Some(holder()),
            why: "connect to node2: refused\nat length".to_owned(),
        });
        assert_eq!(
            unknown.line(),
            "Operator  unknown: 1 of 3 servers answer, and there ada@ops1 (process 4711) holds the lease: connect to node2: refused\n"
        );
        assert_eq!(serde_json::to_value(&unknown).expect("JSON")["state"], "unknown");
    }
}

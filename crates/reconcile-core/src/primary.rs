//! Which server has the primary, as far as it is known.

use crate::{
    desired::Desired,
    model::{HostName, Observation, Observed, PatroniRole},
};

/// Why no server can be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPrimary {
    /// Each member was asked and none is it.
    #[error("there is no primary: {0}")]
    Nowhere(String),
    /// One that did not answer may be it.
    #[error("no primary is known: {0}")]
    Unknown(String),
    /// They say different things; the next look may know more.
    #[error("more than one member says that it is the primary: {0}")]
    Several(String),
}

/// The server whose running PostgreSQL is the primary by Patroni's word.
pub fn primary(desired: &Desired, observed: &Observed) -> Result<HostName, NoPrimary> {
    let (mut primaries, mut others, mut unknown) = (Vec::new(), Vec::new(), false);
    for host in desired.patroni.members.keys() {
        let patroni = match observed.hosts.get(host) {
            Some(Observation::Known(facts)) => &facts.patroni,
            Some(Observation::Unknown { reason }) => &Observation::unknown(reason.as_str()),
            None => &Observation::unknown("it was not asked"),
        };
        match patroni {
            Observation::Unknown { reason } => {
                unknown = true;
                others.push(format!("{host} is unknown ({reason})"));
            }
            Observation::Known(None) => others.push(format!("{host} runs no Patroni")),
            Observation::Known(Some(fact)) => {
                let role = match fact.role {
                    PatroniRole::Primary if fact.state == "running" => {
                        primaries.push(host);
                        continue;
                    }
                    PatroniRole::Primary => "primary",
                    PatroniRole::Replica => "replica",
                    PatroniRole::StandbyLeader => "standby leader",
                    PatroniRole::Other => "without a role",
                };
                others.push(format!("{host} is {role}, {}", fact.state));
            }
        }
    }
    match primaries.as_slice() {
        [primary] => Ok((*primary).clone()),
        [] if unknown => Err(NoPrimary::Unknown(others.join("; "))),
        [] => Err(NoPrimary::Nowhere(others.join("; "))),
        several => {
            let names: Vec<_> = several.iter().map(|host| host.as_str()).collect();
            Err(NoPrimary::Several(names.join(" and ")))
        }
    }
}

//! All restarts of PostgreSQL that are due, in the order in which they will come: only the next one is
//! a step, and who reads the plan wants to know how many follow.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Direction, Wanting};
use crate::model::HostName;

/// A restart of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// Server.
    pub host: HostName,
    /// How.
    pub how: How,
}

/// How a member restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// A replica, while the others serve.
    Replica,
    /// The primary, where it is; clients wait in the poolers.
    PrimaryInPlace,
    /// The primary, which hands over and starts anew as a replica.
    PrimaryBySwitchover,
}

impl std::fmt::Display for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = match self.how {
            How::Replica => "",
            How::PrimaryInPlace => " (primary, in place)",
            How::PrimaryBySwitchover => " (primary, by a switchover)",
        };
        write!(f, "{}{how}", self.host)
    }
}

/// The restarts from the next one on, as things are: by the rules of [`super::next`]. `in_place`: the
/// primary does not hand over.
pub(super) fn order(
    wanting: &[Wanting<'_>],
    leader: &HostName,
    directions: &BTreeMap<&HostName, Direction>,
    lowers: bool,
    in_place: bool,
) -> Vec<Restart> {
    let replicas = || wanting.iter().filter(|member| member.host != leader);
    let replica = |member: &Wanting<'_>| Restart { host: member.host.clone(), how: How::Replica };
    let before = |member: &&Wanting<'_>| {
        !lowers || directions[member.host].raises || member.more_than_limits()
    };
    // One that restarts before the primary has lowered something starts with what that still has.
    let after = |member: &&Wanting<'_>| !before(member) || lowers && directions[member.host].lowers;
    // Who leaves hands over, and restarts nowhere.
    let primary = wanting.iter().find(|member| member.host == leader && !member.leaves);
    let how = if in_place { How::PrimaryInPlace } else { How::PrimaryBySwitchover };
    let primary = primary.map(|member| Restart { host: member.host.clone(), how });
    let first = replicas().filter(before).map(replica);
    first.chain(primary).chain(replicas().filter(after).map(replica)).collect()
}

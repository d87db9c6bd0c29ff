//! The labels by which reconcile knows its own, and those for its own bookkeeping.

use std::collections::BTreeMap;

pub use reconcile_core::desired::swarm::OWNER_LABEL as CLUSTER;

/// On services: digest of the specification as reconcile wrote it, for people and other tools.
pub const SPEC_HASH: &str = "reconcile.io/spec-hash";
/// On services: the image reference that the digest in the image was resolved from.
pub const RESOLVED_IMAGE: &str = "reconcile.io/resolved-image";
/// On nodes: an update of our services is under way elsewhere and yet to come to it, and it is we who set
/// it to `pause`.
pub(crate) const WAITS: &str = "reconcile.io/waits-for-update";
/// Never written. An observed service of ours carries it where somebody set fields that
/// [`reconcile_core::model::ServiceSpec`] has no word for (a mount, a limit), so that such a
/// change differs from the desired service too; its value names the fields.
pub const UNMODELLED: &str = "reconcile.io/unmodelled";

/// True where both sets of labels name the same cluster.
pub(crate) fn same_cluster(
    one: &BTreeMap<String, String>,
    other: &BTreeMap<String, String>,
) -> bool {
    one.contains_key(CLUSTER) && one.get(CLUSTER) == other.get(CLUSTER)
}

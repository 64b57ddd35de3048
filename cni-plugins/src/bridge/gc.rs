//! GC: links, elements and addresses of attachments that are not valid.

use super::plan::Collection;
use crate::attach::{masquerade, veth};
use crate::failure::Outcome;

/// Removes them. Each step runs even when one before it failed; the first failure is told.
pub(super) fn gc(plan: Collection) -> Outcome<()> {
    let Collection { network, keep, ipam } = plan;
    let steps = [
        veth::collect(&network, &keep),
        masquerade::collect(&network, &keep),
        ipam.and_then(|ipam| ipam.gc(&keep)),
    ];
    steps.into_iter().collect()
}

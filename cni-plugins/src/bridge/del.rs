//! DEL.
//!
//! ```text
//!  plugin                                         child, without standard streams
//!   host end down and off the bridge
//!   addresses freed, rules deleted
//!   veth deleted (10 to 20 ms; not when the namespace goes away)
//!   fork ------------------------------------->   close the nf_tables socket (8 to 15 ms)
//!   exit: the caller goes on
//! ```
//!
//! Both waits are the kernel's grace periods. Nothing can be observed by the child's; but that of the veth is waited for,
//! since a caller that keeps the namespace would see the interface in it. Each step runs even when one before it failed.

use super::plan::Removal;
use crate::attach::{masquerade, veth};
use crate::failure::Outcome;
use crate::linger;

/// Detaches the container. What is not there is fine; an empty or missing namespace is too.
pub(super) fn del(plan: Removal) -> Outcome<()> {
    let veth = veth::host_end(&plan.owner);
    let disconnected = match &veth {
        Ok(Some(link)) => veth::disconnect(*link),
        Ok(None) | Err(_) => Ok(()),
    };
    let freed = plan.ipam.and_then(|ipam| ipam.del());
    let mut addresses = plan.addresses;
    addresses.extend(freed.as_deref().unwrap_or_default());
    // Whatever the configuration says by now: elements that ADD made under an earlier one go too.
    let rules = masquerade::remove(&plan.owner, &addresses);
    let deleted = match &veth {
        Ok(Some(link)) if !plan.netns_goes_away => veth::delete(*link),
        Ok(_) | Err(_) => Ok(()),
    };
    let rules = rules.map(|rules| rules.map_or((), linger::hold));
    [veth.map(drop), disconnected, freed.map(drop), rules, deleted]
        .into_iter()
        .collect()
}

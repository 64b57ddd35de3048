//! DEL.
//!
//! ```text
//!  plugin                                         child, without standard streams
//!   host end down and off the bridge
//!   addresses freed, rules deleted
//!   fork ------------------------------------->   delete the veth (10 to 20 ms; not when the namespace goes away)
//!   exit: the caller goes on                      close the nf_tables socket (8 to 15 ms)
//! ```
//!
//! Both waits are the kernel's grace periods, and nothing can be observed by them any more. Each step runs even when
//! one before it failed.

use super::plan::Removal;
use crate::attach::{masquerade, veth};
use crate::failure::{Failure, Outcome};
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
    let (veth, veth_error) = apart(veth);
    let (rules, rules_error) = apart(rules);
    linger::hold(rules, veth.filter(|_| !plan.netns_goes_away));
    match [veth_error, disconnected.err(), freed.err(), rules_error]
        .into_iter()
        .flatten()
        .next()
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn apart<T>(found: Outcome<Option<T>>) -> (Option<T>, Option<Failure>) {
    match found {
        Ok(found) => (found, None),
        Err(error) => (None, Some(error)),
    }
}

//! CHECK: the attachment is as ADD left it.

use super::BridgeError;
use super::plan::Plan;
use crate::attach::result::own_addresses;
use crate::attach::{check, masquerade};
use crate::failure::Outcome;
use coracle_linux::netlink::{Protocol, Socket};

/// Compares the kernel with the result of ADD.
pub(super) fn check(plan: &Plan) -> Outcome<()> {
    let prev = plan.prev.as_ref().ok_or(BridgeError::NoResult)?;
    plan.ipam.check()?;
    check_host(plan)?;
    check::container(&plan.owner, &plan.netns, prev)?;
    let addresses = own_addresses(prev, &plan.owner, &plan.netns);
    if plan.masquerade && !masquerade::is_complete(&plan.owner, &addresses)? {
        return Err(BridgeError::NotMasqueraded.into());
    }
    Ok(())
}

fn check_host(plan: &Plan) -> Outcome<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let bridge = check::up(&mut socket, &plan.bridge.name)?;
    let veth = check::up(&mut socket, &plan.owner.veth())?;
    if veth.master != Some(bridge.index) {
        let (port, bridge) = (veth.name, bridge.name);
        return Err(BridgeError::NotAPort { port, bridge }.into());
    }
    if plan.port.hairpin && !veth.hairpin {
        return Err(BridgeError::NoHairpin(veth.name).into());
    }
    Ok(())
}

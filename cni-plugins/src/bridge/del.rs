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

use super::plan::Plan;
use crate::failure::{Outcome, PluginErrorFrom};
use crate::ipam::Ipam;
use crate::linger;
use crate::owner::Owner;
use crate::rules::layout::{self, NetworkChain};
use crate::rules::{Key, Rules};
use coracle_cni_protocol::caller::NETNS_GOES_AWAY;
use coracle_cni_protocol::plugin::Request;
use coracle_linux::netlink::route::link::{self, Change, Which};
use coracle_linux::netlink::{Protocol, Socket};
use ipnet::IpNet;
use nix::errno::Errno;
use std::net::IpAddr;

/// Detaches the container. What is not there is fine; an empty or missing namespace is too.
pub(super) fn del(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let owner = Owner::of(request);
    let veth = disconnect(&owner);
    let freed = Ipam::of(request).and_then(|ipam| ipam.del(request));
    let rules = if plan.masquerade {
        forget(request, &owner, freed.as_deref().unwrap_or_default()).map(Some)
    } else {
        Ok(None)
    };
    let goes_away = request.environment.text(NETNS_GOES_AWAY) == "1";
    let (veth_error, name) = match veth {
        Ok(name) => (None, name),
        Err(error) => (Some(error), Some(owner.veth())),
    };
    let (rules, rules_error) = match rules {
        Ok(rules) => (rules, None),
        Err(error) => (None, Some(error)),
    };
    linger::hold(rules, name.filter(|_| !goes_away));
    match [veth_error, freed.err(), rules_error]
        .into_iter()
        .flatten()
        .next()
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Where the masquerade element of an address is.
pub(super) fn masquerade_place(network: &str, address: IpNet) -> Key {
    let key = match address.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    (NetworkChain::Masquerade(address).name(network), key)
}

/// Takes the host end off the network, so that its address can be given to the next one. Returns its name if it exists.
fn disconnect(owner: &Owner) -> Outcome<Option<String>> {
    let name = owner.veth();
    let mut socket = Socket::open(Protocol::Route)?;
    let Some(found) = link::find(&mut socket, Which::Name(&name))? else {
        return Ok(None);
    };
    if found
        .alias
        .as_deref()
        .is_some_and(|alias| alias != owner.comment())
    {
        return Ok(None);
    }
    let off = Change {
        up: Some(false),
        master: Some(0),
        ..Change::default()
    };
    match socket.request(&[link::change(Which::Index(found.index), &off)]) {
        // It went with its namespace this moment.
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(PluginErrorFrom::from(error)),
        Ok(()) => Ok(Some(name)),
    }
}

/// Deletes the masquerade elements: by the addresses that are known, or, when none are, by looking through all.
fn forget(request: &Request, owner: &Owner, freed: &[IpNet]) -> Outcome<Rules> {
    // A result that cannot be read is as good as none.
    let prev = request.config.prev_result().ok().flatten().unwrap_or_default();
    let known = prev.ips.iter().map(|ip| ip.address).chain(freed.iter().copied());
    let mut places: Vec<_> = known
        .map(|address| masquerade_place(&request.network, address))
        .collect();
    places.sort_unstable();
    places.dedup();
    let mut rules = Rules::open()?;
    rules.remove_owner(owner, &places, &[layout::MASQUERADE])?;
    Ok(rules)
}

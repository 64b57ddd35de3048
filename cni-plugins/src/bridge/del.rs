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
    // What ADD refuses must not stop DEL, least of all one that takes back a refused ADD: then all is looked for.
    let masquerade = Plan::of(request).map_or(true, |plan| plan.masquerade);
    let owner = Owner::of(request);
    let veth = host_end(&owner);
    let disconnected = match &veth {
        Ok(Some(link)) => disconnect(*link),
        _ => Ok(()),
    };
    let freed = Ipam::of(request).and_then(|ipam| ipam.del(request));
    let rules = if masquerade {
        forget(request, &owner, freed.as_deref().unwrap_or_default()).map(Some)
    } else {
        Ok(None)
    };
    let goes_away = request.environment.text(NETNS_GOES_AWAY) == "1";
    let (veth, veth_error) = apart(veth);
    let (rules, rules_error) = apart(rules);
    linger::hold(rules, veth.filter(|_| !goes_away));
    match [veth_error, disconnected.err(), freed.err(), rules_error]
        .into_iter()
        .flatten()
        .next()
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn apart<T>(found: Outcome<Option<T>>) -> (Option<T>, Option<PluginErrorFrom>) {
    match found {
        Ok(found) => (found, None),
        Err(error) => (None, Some(error)),
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

/// The number of the attachment's host end, if it exists and is ours.
fn host_end(owner: &Owner) -> Outcome<Option<u32>> {
    let found = link::find(&mut Socket::open(Protocol::Route)?, Which::Name(&owner.veth()))?;
    // Without alias it is one that a killed ADD did not come to name.
    let own = |link: &link::Link| link.alias.as_ref().is_none_or(|alias| *alias == owner.comment());
    Ok(found.filter(own).map(|link| link.index))
}

/// Takes the host end off the network, so that its address can be given to the next one.
fn disconnect(host_end: u32) -> Outcome<()> {
    let off = Change {
        master: Some(0),
        ..Change::default()
    };
    let down = Change {
        up: Some(false),
        ..Change::default()
    };
    // Off the bridge first: a port that goes down makes the bridge look through all others, and so does one that leaves.
    let which = Which::Index(host_end);
    let changes = [link::change(which, &off), link::change(which, &down)];
    match Socket::open(Protocol::Route)?.request(&changes) {
        // It went with its namespace this moment.
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => Ok(other?),
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

//! The way back of answers: settings of links without which a published port answers to some and not to others.

use super::PortmapError;
use super::plan::Plan;
use crate::failure::Outcome;
use crate::record;
use coracle_linux::netlink::route::link::{self, Change, Which};
use coracle_linux::netlink::route::route;
use coracle_linux::netlink::{Protocol, Socket};
use std::net::IpAddr;

/// Lets answers to masqueraded connections from 127.0.0.1 in where they come from, and lets a bridge send a container's
/// own packets back to it (with `br_netfilter` a translated packet stays on the bridge).
pub(super) fn open(plan: &Plan) -> Outcome<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut bridges = Vec::new();
    for address in &plan.addresses {
        bridges.push(route_localnet(&mut socket, plan.owner.network(), address.addr())?);
    }
    for link in plan.prev.interfaces.iter().filter(|one| one.sandbox.is_empty()) {
        hairpin(&mut socket, &link.name, &bridges)?;
    }
    Ok(())
}

/// Returns the number of the link that leads to the address.
fn route_localnet(socket: &mut Socket, network: &str, address: IpAddr) -> Outcome<u32> {
    let way = route::towards(socket, address)?.ok_or(PortmapError::NoRoute(address))?;
    if address.is_ipv6() {
        return Ok(way.link);
    }
    let link = link::find(socket, Which::Index(way.link))?.ok_or(PortmapError::NoRoute(address))?;
    // A route to this address alone is this container's own link, which goes with it; anything wider is the network's.
    if way.prefix < 32 {
        record::keep_sysctl(network, &format!("net/ipv4/conf/{}/route_localnet", link.name))?;
    }
    if !link.route_localnet {
        let on = Change {
            route_localnet: Some(true),
            ..Change::default()
        };
        socket.request(&[link::change(Which::Index(link.index), &on)])?;
    }
    Ok(way.link)
}

fn hairpin(socket: &mut Socket, name: &str, bridges: &[u32]) -> Outcome<()> {
    let Some(port) = link::find(socket, Which::Name(name))? else {
        return Ok(());
    };
    if port.master.is_some_and(|master| bridges.contains(&master)) && !port.hairpin {
        let on = Change {
            hairpin: Some(true),
            ..Change::default()
        };
        socket.request(&[link::change(Which::Index(port.index), &on)])?;
    }
    Ok(())
}

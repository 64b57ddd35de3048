//! The host's side: the bridge, its addresses, forwarding.

use super::BridgeError;
use super::plan::Plan;
use crate::failure::Outcome;
use crate::owner;
use crate::record::{self, Lock, Record};
use crate::sysctl;
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use coracle_linux::netlink::route::{address, forwarding};
use coracle_linux::netlink::{Protocol, Socket};
use ipnet::IpNet;
use nix::errno::Errno;

/// Finds the bridge or makes it. A standing one costs one question.
pub(super) fn ensure_bridge(socket: &mut Socket, plan: &Plan) -> Outcome<Link> {
    let (network, name) = (plan.owner.network(), &plan.bridge.name);
    let found = match find(socket, name)? {
        Some(found) => found,
        None => make_bridge(socket, plan)?,
    };
    if !found.up {
        prepare(plan)?;
    }
    let promiscuous = plan.bridge.promiscuous;
    if !found.up || promiscuous && !found.promiscuous {
        let change = Change {
            up: Some(true),
            promiscuous: promiscuous.then_some(true),
            ..Change::default()
        };
        socket.request(&[link::change(Which::Index(found.index), &change)])?;
    }
    if Record::load(network)?.bridge.as_ref() != Some(name) {
        keep_mac(socket, &found)?;
        let lock = Lock::take()?;
        Record::change(network, &lock, |record| record.bridge = Some(name.clone()))?;
    }
    Ok(found)
}

/// A bridge that nobody gave a MAC address takes the smallest one of its ports: ours could be that, and the containers
/// that are on it would lose their gateway. Giving it the one that it has makes it stay.
fn keep_mac(socket: &mut Socket, bridge: &Link) -> Outcome<()> {
    let same = Change {
        mac: bridge.mac,
        ..Change::default()
    };
    Ok(socket.request(&[link::change(Which::Index(bridge.index), &same)])?)
}

/// STATUS: whether the bridge is there or could be made.
pub(super) fn status(plan: &Plan) -> Outcome<()> {
    find(&mut Socket::open(Protocol::Route)?, &plan.bridge.name).map(drop)
}

fn find(socket: &mut Socket, name: &str) -> Outcome<Option<Link>> {
    match link::find(socket, Which::Name(name))? {
        Some(found) if found.kind.as_deref() != Some("bridge") => {
            Err(BridgeError::NotABridge(name.to_owned()).into())
        }
        found => Ok(found),
    }
}

fn make_bridge(socket: &mut Socket, plan: &Plan) -> Outcome<Link> {
    let name = &plan.bridge.name;
    let lock = Lock::take()?;
    // Recorded first: a record of a bridge that was never made does no harm.
    Record::change(plan.owner.network(), &lock, |record| {
        record.bridge = Some(name.clone());
        record.bridge_made = true;
    })?;
    // A fixed MAC address: else the bridge takes its ports' smallest one, and changes it when pods come and go.
    let mac = owner::local_mac(owner::hash(name.as_bytes()) ^ boot_hash());
    match socket.request(&[link::new_bridge(name, mac, plan.bridge.mtu)]) {
        Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
        _ => {}
    }
    let made = link::find(socket, Which::Name(name))?;
    made.ok_or_else(|| BridgeError::Vanished(name.clone()).into())
}

/// Settings of a bridge that is not up yet: whoever is killed between making it and here leaves it down, and the next ADD
/// finds it so.
fn prepare(plan: &Plan) -> Outcome<()> {
    // The host does not configure itself from what containers advertise.
    let setting = |key: &str| format!("net/ipv6/conf/{}/{key}", plan.bridge.name);
    sysctl::ensure(&setting("accept_ra"), "0")?;
    if !plan.detect_duplicates {
        // The bridge asks for its containers' MAC addresses from its link-local address: while that one is checked for
        // duplicates, a second or two, nothing that is forwarded reaches them.
        sysctl::ensure(&setting("accept_dad"), "0")?;
    }
    Ok(())
}

/// Gives the bridge its gateway addresses and lets the host forward.
pub(super) fn ensure_gateways(
    socket: &mut Socket,
    plan: &Plan,
    bridge: &Link,
    gateways: &[IpNet],
) -> Outcome<()> {
    let present = address::list(socket, bridge.index)?;
    for gateway in gateways {
        let same = |found: &&address::Address| {
            found.address == gateway.addr() && found.prefix == gateway.prefix_len()
        };
        if present.iter().any(|found| same(&found)) {
            continue;
        }
        for other in present.iter().filter(|found| is_rival(found, *gateway)) {
            if !plan.bridge.force_address {
                return Err(BridgeError::OtherAddress {
                    bridge: plan.bridge.name.clone(),
                    wanted: *gateway,
                }
                .into());
            }
            socket.request(&[address::delete(bridge.index, other.address, other.prefix)])?;
        }
        let add = address::add(
            bridge.index,
            gateway.addr(),
            gateway.prefix_len(),
            plan.detect_duplicates,
        );
        match socket.request(&[add]) {
            Err(error) if error.errno() != Some(Errno::EEXIST) => return Err(error.into()),
            _ => {}
        }
    }
    ensure_forwarding(socket, plan.owner.network(), gateways)
}

fn ensure_forwarding(socket: &mut Socket, network: &str, gateways: &[IpNet]) -> Outcome<()> {
    let record = Record::load(network)?;
    for (v6, setting) in [
        (false, "net/ipv4/ip_forward"),
        (true, "net/ipv6/conf/all/forwarding"),
    ] {
        let needed = gateways.iter().any(|gateway| gateway.addr().is_ipv6() == v6);
        let done = needed && record.sysctls.contains_key(setting) && forwarding::is_on(socket, v6)?;
        if needed && !done {
            // Forwarding switches these off; switching it off again does not bring back what they were.
            if !v6 {
                record::keep_sysctl(network, "net/ipv4/conf/all/accept_redirects")?;
            }
            record::set_sysctl(network, setting, "1")?;
        }
    }
    Ok(())
}

/// An IPv4 bridge has one address; IPv6 ones may be several as long as they do not overlap.
fn is_rival(found: &address::Address, wanted: IpNet) -> bool {
    if found.address.is_ipv4() != wanted.addr().is_ipv4() {
        return false;
    }
    let Ok(network) = IpNet::new(found.address, found.prefix) else {
        return false;
    };
    found.address.is_ipv4() || network.contains(&wanted.addr()) || wanted.contains(&found.address)
}

/// Different on every host and in every boot, so that two bridges of one name on one wire differ.
fn boot_hash() -> u64 {
    owner::hash(&std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default())
}

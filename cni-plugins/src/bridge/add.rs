//! ADD.
//!
//! ```text
//!  bridge there -> addresses -> veth pair -> container's side up -> gateways, masquerading -> host end joins the bridge
//! ```
//!
//! Joining comes last, so that what the container's interface says when it comes up reaches nobody: a bridge copies it to
//! every port, and with 900 of them that was most of an ADD. It comes before the container's side where somebody must hear
//! that (see [`Plan::is_announced`]).

use super::host;
use super::plan::{Plan, Port};
use crate::attach::veth::{self, Macs, Pair};
use crate::attach::{container, masquerade, result};
use crate::failure::Outcome;
use crate::netns::Netns;
use crate::record::{Lock, Record};
use crate::undo::{Undo, or_undo};
use coracle_cni_protocol::{CniResult, Interface};
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use coracle_linux::netlink::{Protocol, Socket};
use ipnet::IpNet;
use std::path::Path;

/// Attaches the container; takes everything back when a step fails.
pub(super) fn add(plan: &Plan) -> Outcome<CniResult> {
    let netns = Netns::open(&plan.netns)?;
    let mut inside = netns.socket()?;
    let mut host = Socket::open(Protocol::Route)?;
    let bridge = host::ensure_bridge(&mut host, plan)?;
    veth::refuse_existing(&plan.owner, &mut inside, &mut host)?;
    let result = or_undo(|undo| {
        let pair = Pair::of(&plan.owner, &netns, plan.mac, plan.bridge.mtu);
        let (mut result, macs) = make(plan, &pair, &bridge, &mut host, undo)?;
        container::configure(
            &mut inside,
            &netns,
            plan.owner.ifname(),
            plan.detect_duplicates,
            &result,
        )?;
        if plan.bridge.gateway {
            host::ensure_gateways(&mut host, plan, &bridge, &result::gateways(&result))?;
        }
        if plan.masquerade {
            let addresses: Vec<IpNet> = result.ips.iter().map(|ip| ip.address).collect();
            masquerade::add(&plan.owner, &addresses, undo)?;
        }
        pair.wait_until_operational(&mut host)?;
        if !plan.is_announced() {
            join(&mut host, pair.host_name(), &bridge, &plan.port)?;
        }
        if plan.detect_duplicates {
            container::wait_for_addresses(&mut inside, plan.owner.ifname())?;
        }
        result.interfaces = interfaces(plan, &bridge, macs);
        result.ips.iter_mut().for_each(|ip| ip.interface = Some(2));
        Ok(result)
    })?;
    Ok(result::joined(plan.prev.clone(), result))
}

/// Addresses and the pair of links: the pair first where the address manager asks through it.
fn make<'a>(
    plan: &'a Plan,
    pair: &Pair<'_>,
    bridge: &Link,
    host: &mut Socket,
    undo: &mut Undo<'a>,
) -> Outcome<(CniResult, Macs)> {
    if plan.ipam.asks_through_interface() {
        let macs = pair.make(host, None, undo)?;
        join(host, pair.host_name(), bridge, &plan.port)?;
        return Ok((addresses(plan, undo)?, macs));
    }
    let result = addresses(plan, undo)?;
    let macs = pair.make(host, result.ips.first().map(|ip| ip.address.addr()), undo)?;
    if plan.is_announced() {
        join(host, pair.host_name(), bridge, &plan.port)?;
    }
    Ok((result, macs))
}

fn addresses<'a>(plan: &'a Plan, undo: &mut Undo<'a>) -> Outcome<CniResult> {
    if let Some(data_dir) = plan.ipam.data_dir() {
        remember_data_dir(plan.owner.network(), data_dir)?;
    }
    let mut result = plan.ipam.add()?;
    undo.push("addresses", || plan.ipam.take_back());
    if let Some(dns) = &plan.dns {
        result.dns = dns.clone();
    }
    if plan.bridge.gateway {
        result::fill_gateways(&mut result);
    }
    if plan.default_gateway {
        result::add_default_routes(&mut result)?;
    }
    Ok(result)
}

/// Where host-local keeps addresses, for `uninstall-network`.
fn remember_data_dir(network: &str, data_dir: &Path) -> Outcome<()> {
    if !Record::load(network)?.data_dirs.contains(data_dir) {
        let lock = Lock::take()?;
        Record::change(network, &lock, |record| {
            record.data_dirs.insert(data_dir.to_owned());
        })?;
    }
    Ok(())
}

/// Makes the host end a port of the bridge: one that forwards from the beginning.
fn join(socket: &mut Socket, host_end: &str, bridge: &Link, port: &Port) -> Outcome<()> {
    let join = Change {
        master: Some(bridge.index),
        ..Change::default()
    };
    let settings = Change {
        hairpin: port.hairpin.then_some(true),
        isolated: port.isolated.then_some(true),
        ..Change::default()
    };
    let mut messages = vec![link::change(Which::Name(host_end), &join)];
    if port.hairpin || port.isolated {
        messages.push(link::change(Which::Name(host_end), &settings));
    }
    Ok(socket.request(&messages)?)
}

/// In upstream's order: others look for the bridge first and for the container last.
fn interfaces(plan: &Plan, bridge: &Link, macs: Macs) -> Vec<Interface> {
    let mtu = plan.bridge.mtu;
    vec![
        result::interface(&plan.bridge.name, bridge.mac, None),
        result::interface(&plan.owner.veth(), Some(macs.host), mtu),
        result::of_container(
            result::interface(plan.owner.ifname(), Some(macs.container), mtu),
            &plan.netns,
        ),
    ]
}

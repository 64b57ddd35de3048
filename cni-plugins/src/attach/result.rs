//! What ADD answers: gateways and default routes filled in, and joined with what came before in the chain.

use crate::failure::{Coded, Outcome};
use crate::owner::Owner;
use coracle_cni_protocol::{CniResult, Code, Interface, IpConfig, Route};
use coracle_linux::netlink::route::link::Mac;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address manager's default route contradicts `isDefaultGateway`.
#[derive(Debug, thiserror::Error)]
#[error("isDefaultGateway ineffective because IPAM sets default route via {0}")]
pub(crate) struct OtherDefaultRoute(IpAddr);

impl Coded for OtherDefaultRoute {
    fn code(&self) -> Code {
        Code::INTERNAL
    }
}

/// Gives each address without a gateway the first one of its network.
pub(crate) fn fill_gateways(result: &mut CniResult) {
    for ip in result.ips.iter_mut().filter(|ip| ip.gateway.is_none()) {
        ip.gateway = ip.address.hosts().next();
    }
}

/// The gateways, each with the length of its network.
pub(crate) fn gateways(result: &CniResult) -> Vec<IpNet> {
    let gateway = |ip: &IpConfig| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok();
    let mut all: Vec<_> = result.ips.iter().filter_map(gateway).collect();
    all.dedup();
    all
}

/// Adds a default route for each family that has a gateway, unless the address manager gave one.
pub(crate) fn add_default_routes(result: &mut CniResult) -> Outcome<()> {
    for v4 in [true, false] {
        let gateway = result
            .ips
            .iter()
            .filter(|ip| ip.address.addr().is_ipv4() == v4)
            .find_map(|ip| ip.gateway);
        let Some(gateway) = gateway else { continue };
        let default = |route: &&Route| route.dst.prefix_len() == 0 && route.dst.addr().is_ipv4() == v4;
        match result.routes.iter().find(default) {
            Some(Route { gw: Some(other), .. }) if *other != gateway => {
                return Err(OtherDefaultRoute(*other).into());
            }
            Some(_) => {}
            None => result.routes.push(default_route(gateway)),
        }
    }
    Ok(())
}

fn default_route(gateway: IpAddr) -> Route {
    let any: IpAddr = match gateway {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Route {
        dst: IpNet::new_assert(any, 0),
        gw: Some(gateway),
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
    }
}

/// An interface of the host; [`of_container`] makes one of the container.
pub(crate) fn interface(name: &str, mac: Option<Mac>, mtu: Option<u32>) -> Interface {
    Interface {
        name: name.to_owned(),
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        mtu,
        ..Interface::default()
    }
}

/// The same, inside the network namespace of this path.
pub(crate) fn of_container(interface: Interface, netns: &str) -> Interface {
    Interface {
        sandbox: netns.to_owned(),
        ..interface
    }
}

/// Later in a chain: what came before stays, ours is added (specification, section 2, "prevResult").
pub(crate) fn joined(prev: Option<CniResult>, mut result: CniResult) -> CniResult {
    let Some(mut all) = prev else { return result };
    let shift = i64::try_from(all.interfaces.len()).unwrap_or(0);
    for ip in &mut result.ips {
        ip.interface = ip.interface.map(|at| at + shift);
    }
    all.interfaces.append(&mut result.interfaces);
    all.ips.append(&mut result.ips);
    all.routes.append(&mut result.routes);
    if !result.dns.is_empty() {
        all.dns = result.dns;
    }
    all
}

/// The addresses of the interface the request is about, not of others in the chain.
pub(crate) fn own_addresses(result: &CniResult, owner: &Owner, netns: &str) -> Vec<IpNet> {
    let own = |at: i64| {
        let interface = usize::try_from(at).ok().and_then(|at| result.interfaces.get(at));
        interface.is_some_and(|one| one.name == owner.ifname() && one.sandbox == netns)
    };
    let mine = result.ips.iter().filter(|ip| ip.interface.is_some_and(own));
    mine.map(|ip| ip.address).collect()
}

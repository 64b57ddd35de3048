//! CHECK: the attachment is as ADD left it.

use super::BridgeError;
use super::del::masquerade_place;
use super::plan::Plan;
use crate::failure::Outcome;
use crate::ipam::Ipam;
use crate::netns::Netns;
use crate::owner::Owner;
use crate::rules::Rules;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code, PluginError, Route};
use coracle_linux::netlink::route::link::{self, Link, Which};
use coracle_linux::netlink::route::{address, route};
use coracle_linux::netlink::{Protocol, Socket};

/// Compares the kernel with the result of ADD.
pub(super) fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let prev = request.config.prev_result()?;
    let prev = prev.ok_or_else(|| PluginError::new(Code::INVALID_CONFIG, "prevResult is missing"))?;
    Ipam::of(request)?.check(request)?;
    check_host(request, &plan)?;
    check_container(request, &prev)?;
    if plan.masquerade {
        let places: Vec<_> = own_addresses(request, &prev)
            .map(|net| masquerade_place(&request.network, net))
            .collect();
        if Rules::open()?.owned(&Owner::of(request), &places)?.len() != places.len() {
            return Err(different("masquerading of the container's addresses is missing"));
        }
    }
    Ok(())
}

fn check_host(request: &Request, plan: &Plan) -> Outcome<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let bridge = find(&mut socket, &plan.bridge)?;
    let veth = find(&mut socket, &Owner::of(request).veth())?;
    if veth.master != Some(bridge.index) {
        return Err(different(&format!(
            "{} is not a port of {}",
            veth.name, bridge.name
        )));
    }
    for link in [&bridge, &veth] {
        if !link.up {
            return Err(different(&format!("{} is down", link.name)));
        }
    }
    if plan.hairpin && !veth.hairpin {
        return Err(different(&format!("hairpin mode of {} is off", veth.name)));
    }
    Ok(())
}

fn check_container(request: &Request, prev: &CniResult) -> Outcome<()> {
    let mut socket = Netns::open(&request.netns)?.socket()??;
    let link = find(&mut socket, &request.ifname)?;
    if !link.up {
        return Err(different(&format!("{} is down", link.name)));
    }
    let shown = prev
        .interfaces
        .iter()
        .find(|one| one.name == request.ifname && one.sandbox == request.netns);
    if let (Some(shown), Some(mac)) = (shown, link.mac)
        && !shown.mac.is_empty()
        && !shown.mac.eq_ignore_ascii_case(&mac.to_string())
    {
        return Err(different(&format!(
            "{} has MAC address {mac}, not {}",
            link.name, shown.mac
        )));
    }
    let present = address::list(&mut socket, link.index)?;
    for wanted in own_addresses(request, prev) {
        let same =
            |found: &address::Address| found.address == wanted.addr() && found.prefix == wanted.prefix_len();
        if !present.iter().any(same) {
            return Err(different(&format!("{} lacks address {wanted}", link.name)));
        }
    }
    check_routes(&mut socket, &link, prev)
}

fn check_routes(socket: &mut Socket, link: &Link, prev: &CniResult) -> Outcome<()> {
    let mut present = route::list(socket, link.index, false)?;
    present.extend(route::list(socket, link.index, true)?);
    // With several interfaces in one container each finds its own routes; a route of another one's is not missing.
    let reachable = |wanted: &&Route| {
        let family = prev
            .ips
            .iter()
            .any(|ip| ip.address.addr().is_ipv4() == wanted.dst.addr().is_ipv4());
        family
            && prev
                .interfaces
                .iter()
                .filter(|one| !one.sandbox.is_empty())
                .count()
                == 1
    };
    for wanted in prev.routes.iter().filter(reachable) {
        let same = |found: &route::Route| {
            found.destination == wanted.dst.network()
                && found.prefix == wanted.dst.prefix_len()
                && wanted.gw.is_none_or(|gateway| found.gateway == Some(gateway))
        };
        if !present.iter().any(same) {
            return Err(different(&format!("route {} is missing", wanted.dst)));
        }
    }
    Ok(())
}

/// The addresses of this plugin's interface, not of others in the chain.
fn own_addresses<'a>(request: &'a Request, prev: &'a CniResult) -> impl Iterator<Item = ipnet::IpNet> + 'a {
    let own = move |at: i64| {
        let interface = usize::try_from(at).ok().and_then(|at| prev.interfaces.get(at));
        interface.is_some_and(|one| one.name == request.ifname && one.sandbox == request.netns)
    };
    prev.ips
        .iter()
        .filter(move |ip| ip.interface.is_some_and(own))
        .map(|ip| ip.address)
}

fn find(socket: &mut Socket, name: &str) -> Outcome<Link> {
    link::find(socket, Which::Name(name))?.ok_or_else(|| different(&format!("interface {name} is missing")))
}

fn different(what: &str) -> crate::failure::PluginErrorFrom {
    BridgeError::Check(what.to_owned()).into()
}

//! ADD.
//!
//! ```text
//!  bridge there -> addresses -> veth pair -> container's side up -> gateways, masquerading -> host end joins the bridge
//! ```
//!
//! Joining comes last, so that what the container's interface says when it comes up reaches nobody: a bridge copies it to
//! every port, and with 900 of them that was most of an ADD. It comes before the container's side where somebody must hear
//! that (see [`is_announced`]).

use super::BridgeError;

use super::host;
use super::plan::Plan;

use crate::attach::{container, veth};
use crate::failure::Outcome;
use crate::ipam::Ipam;
use crate::netns::Netns;
use crate::owner::Owner;
use crate::record::{Lock, Record};
use crate::rules::layout::{self, NetworkChain};
use crate::rules::{Entry, Rules, WhenTaken};
use crate::undo::{Undo, or_undo};
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Dns, Interface, IpConfig};
use coracle_linux::netlink::nftables::{Data, Element};
use coracle_linux::netlink::route::link::{self, Link, Mac, Which};
use coracle_linux::netlink::{Protocol, Socket};
use ipnet::IpNet;

/// Attaches the container; takes everything back when a step fails.
pub(super) fn add(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    let ipam = Ipam::of(request)?;
    let prev = request.config.prev_result()?;
    let netns = Netns::open(&request.netns)?;
    let mut socket = Socket::open(Protocol::Route)?;
    let bridge = host::ensure_bridge(&mut socket, &request.network, &plan)?;
    let mut inside = netns.socket()??;
    refuse_existing(request, &mut inside, &mut socket)?;
    let result = or_undo(|undo| {
        let pair = veth::Pair::of(request, &plan, &netns, &bridge);
        let announced = is_announced(&plan, &ipam);
        let (mut result, macs);
        if ipam.asks_through_interface() {
            macs = pair.make(&mut socket, None, undo)?;
            pair.join(&mut socket)?;
            result = addresses(request, &plan, &ipam, undo)?;
        } else {
            result = addresses(request, &plan, &ipam, undo)?;
            macs = pair.make(&mut socket, result.ips.first().map(|ip| ip.address.addr()), undo)?;
            if announced {
                pair.join(&mut socket)?;
            }
        }
        container::configure(&mut inside, &netns, &request.ifname, &plan, &result)?;
        if plan.gateway {
            host::ensure_gateways(&mut socket, &request.network, &plan, &bridge, &gateways(&result))?;
        }
        if plan.masquerade {
            masquerade(request, &result, undo)?;
        }
        pair.wait_until_operational(&mut socket)?;
        if !announced {
            pair.join(&mut socket)?;
        }
        if plan.detect_duplicates {
            container::wait_for_addresses(&mut inside, &request.ifname)?;
        }
        result.interfaces = interfaces(request, &plan, &bridge, macs);
        result.ips.iter_mut().for_each(|ip| ip.interface = Some(2));
        Ok(result)
    })?;
    Ok(after(prev, result))
}

/// Whether the container's interface comes up as a port of the bridge: so that others hear its search for duplicates, its
/// questions for an address, and that an address now is at a MAC address that does not follow from it.
fn is_announced(plan: &Plan, ipam: &Ipam) -> bool {
    plan.detect_duplicates || plan.mac.is_some() || ipam.asks_through_interface()
}

/// A second ADD must not take the first one's veth for its own. But one that a DEL has disconnected, and whose deletion
/// its child waits for, may go now.
fn refuse_existing(request: &Request, inside: &mut Socket, host: &mut Socket) -> Outcome<()> {
    if link::find(inside, Which::Name(&request.ifname))?.is_none() {
        return Ok(());
    }
    let owner = Owner::of(request);
    let disconnected = link::find(host, Which::Name(&owner.veth()))?
        .is_some_and(|link| link.alias == Some(owner.comment()) && !link.up && link.master.is_none());
    if disconnected {
        veth::remove_stale(host, &owner.veth(), &owner.comment())?;
    }
    // Also when the child was faster just now.
    if link::find(inside, Which::Name(&request.ifname))?.is_some() {
        return Err(BridgeError::InterfaceExists(request.ifname.clone()).into());
    }
    Ok(())
}

fn addresses<'a>(
    request: &'a Request,
    plan: &Plan,
    ipam: &'a Ipam,
    undo: &mut Undo<'a>,
) -> Outcome<CniResult> {
    if let Some(data_dir) = data_dir(request, ipam)? {
        remember_data_dir(&request.network, data_dir)?;
    }
    let mut result = ipam.add(request)?;
    undo.push("addresses", || ipam.del(request).map(drop));
    let conf_dns: Option<Dns> = request.config.get("dns")?;
    if let Some(dns) = conf_dns.filter(|dns| !dns.is_empty()) {
        result.dns = dns;
    }
    if plan.gateway {
        for ip in result.ips.iter_mut().filter(|ip| ip.gateway.is_none()) {
            ip.gateway = ip.address.hosts().next();
        }
    }
    if plan.default_gateway {
        container::add_default_routes(&mut result)?;
    }
    Ok(result)
}

/// Where host-local keeps addresses, for `uninstall-network`.
fn data_dir(request: &Request, ipam: &Ipam) -> Outcome<Option<std::path::PathBuf>> {
    match ipam {
        Ipam::HostLocal => Ok(Some(crate::host_local::Plan::of(request)?.data_dir)),
        _ => Ok(None),
    }
}

fn remember_data_dir(network: &str, data_dir: std::path::PathBuf) -> Outcome<()> {
    if !Record::load(network)?.data_dirs.contains(&data_dir) {
        let lock = Lock::take()?;
        Record::change(network, &lock, |record| {
            record.data_dirs.insert(data_dir);
        })?;
    }
    Ok(())
}

fn gateways(result: &CniResult) -> Vec<IpNet> {
    let gateway = |ip: &IpConfig| IpNet::new(ip.gateway?, ip.address.prefix_len()).ok();
    let mut all: Vec<_> = result.ips.iter().filter_map(gateway).collect();
    all.dedup();
    all
}

fn masquerade<'a>(request: &'a Request, result: &CniResult, undo: &mut Undo<'a>) -> Outcome<()> {
    let entries: Vec<_> = result.ips.iter().map(|ip| entry(request, ip.address)).collect();
    let chains: Vec<_> = result
        .ips
        .iter()
        .map(|ip| NetworkChain::Masquerade(ip.address))
        .collect();
    let places: Vec<_> = entries
        .iter()
        .map(|entry| (entry.set.clone(), entry.element.key.clone()))
        .collect();
    undo.push("masquerading", move || {
        Rules::open()?.remove_owner(&Owner::of(request), &places, &[layout::MASQUERADE])?;
        Ok(())
    });
    Ok(Rules::open()?.add(&entries, &request.network, &chains)?)
}

fn entry(request: &Request, address: IpNet) -> Entry {
    let (set, key) = super::del::masquerade_place(&request.network, address);
    let data = Data::None;
    Entry {
        set,
        element: Element {
            key,
            data,
            comment: Owner::of(request).comment(),
        },
        when_taken: WhenTaken::Replace,
    }
}

/// In upstream's order: others look for the bridge first and for the container last.
fn interfaces(request: &Request, plan: &Plan, bridge: &Link, macs: (Mac, Mac)) -> Vec<Interface> {
    let interface = |name: &str, mac: Option<Mac>| Interface {
        name: name.to_owned(),
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ..Interface::default()
    };
    let mut host = interface(&Owner::of(request).veth(), Some(macs.0));
    let mut container = interface(&request.ifname, Some(macs.1));
    host.mtu = plan.mtu;
    container.mtu = plan.mtu;
    container.sandbox.clone_from(&request.netns);
    vec![interface(&plan.bridge, bridge.mac), host, container]
}

/// Later in a chain: what came before stays, ours is added (specification, section 2, "prevResult").
fn after(prev: Option<CniResult>, mut result: CniResult) -> CniResult {
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

//! `portmap`: ports of the host that lead to the container.
//!
//! ```text
//!  other host, this host, 127.0.0.1 --> host address:hostPort --map element--> container address:containerPort
//! ```
//!
//! From 127.0.0.1 and from containers of the same bridge the source becomes the host's address, or the answer would not
//! find its way back. ::1 is not translated: IPv6 has no `route_localnet`.

mod plan;

use crate::failure::Outcome;
use crate::host_local;
use crate::linger;
use crate::owner::Owner;
use crate::record;
use crate::rules::layout::{self, NetworkChain};
use crate::rules::{Key, Rules};
use crate::undo::or_undo;
use coracle_cni_protocol::plugin::{Plugin, Request};
use coracle_cni_protocol::{CniResult, Code, PluginError};
use coracle_linux::netlink::route::link::{self, Change, Which};
use coracle_linux::netlink::route::route;
use coracle_linux::netlink::{Protocol, Socket, conntrack};
use ipnet::IpNet;
use plan::{Plan, Source, addresses};
use std::net::IpAddr;

/// Ports could not be published or are not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortmapError {
    /// Nobody made an interface before.
    #[error("prevResult is missing: portmap must be called as chained plugin")]
    NotChained,
    /// The host does not know the way to the container.
    #[error("no route to the container's address {0}")]
    NoRoute(IpAddr),
    /// CHECK found a difference.
    #[error("{0} is not published for this container")]
    Missing(String),
}

impl PortmapError {
    /// The protocol's code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotChained => Code::INVALID_CONFIG,
            _ => Code::INTERNAL,
        }
    }
}

/// How the names of the sets in which attachments have elements begin.
const SETS: [&str; 2] = ["ports", layout::PUBLISHED];

/// The plugin.
pub(crate) struct Portmap;

impl Plugin for Portmap {
    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        add(request).map_err(|error| error.0)
    }

    fn del(&self, request: &Request) -> Result<(), PluginError> {
        del(request).map_err(|error| error.0)
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check(request).map_err(|error| error.0)
    }

    fn gc(&self, request: &Request) -> Result<(), PluginError> {
        collect(request).map_err(|error| error.0)
    }

    fn status(&self, request: &Request) -> Result<(), PluginError> {
        Plan::of(request).map(drop).map_err(|error| error.0)
    }

    fn is_own_namespace(&self, netns: &str) -> Result<bool, PluginError> {
        host_local::own_namespace(netns)
    }
}

fn add(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    let prev = request.config.prev_result()?.ok_or(PortmapError::NotChained)?;
    let addresses = addresses(request, &prev);
    if plan.mappings.is_empty() || addresses.is_empty() {
        return Ok(prev);
    }
    let owner = &Owner::of(request);
    or_undo(|undo| {
        let entries = plan.entries(&request.network, owner, &addresses);
        let places: Vec<_> = entries
            .iter()
            .map(|entry| (entry.set.clone(), entry.element.key.clone()))
            .collect();
        if plan.source != Source::Keep {
            let links = prev.interfaces.iter().filter(|one| one.sandbox.is_empty());
            open_ways_back(&request.network, &addresses, links.map(|one| one.name.as_str()))?;
        }
        undo.push("published ports", move || {
            Rules::open()?.remove_owner(owner, &places, &SETS)?;
            Ok(())
        });
        let chains: Vec<_> = addresses
            .iter()
            .map(|address| NetworkChain::Published(*address))
            .collect();
        Rules::open()?.add(&entries, &request.network, &chains)?;
        forget_datagrams(&plan, &addresses)
    })?;
    Ok(prev)
}

/// A configuration that ADD refused published nothing, or was another one then: everything of the attachment is looked for.
/// An error would keep callers that stop at one from the rest of the chain.
fn del(request: &Request) -> Outcome<()> {
    let owner = Owner::of(request);
    let Ok(plan) = Plan::of(request) else {
        let mut rules = Rules::open()?;
        if !rules.remove_owner(&owner, &[], &SETS)?.is_empty() {
            linger::hold(Some(rules), None);
        }
        return Ok(());
    };
    // A result that cannot be read is as good as none.
    let prev = request.config.prev_result().ok().flatten().unwrap_or_default();
    let addresses = addresses(request, &prev);
    let published: Vec<_> = addresses
        .iter()
        .map(|address| plan.published_place(&request.network, *address))
        .collect();
    let mut rules = Rules::open()?;
    let removed = if addresses.is_empty() {
        rules.remove_owner(&owner, &[], &SETS)?
    } else if !plan.mappings.is_empty() {
        rules.remove_owner(&owner, &port_places(&plan, &addresses, published), &SETS)?
    } else if rules.owned(&owner, &published)?.is_empty() {
        Vec::new()
    } else {
        // It has ports, and the caller does not say which.
        rules.remove_owner(&owner, &[], &SETS)?
    };
    if !removed.is_empty() {
        linger::hold(Some(rules), None);
        forget_datagrams(&plan, &addresses)?;
    }
    Ok(())
}

fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let prev = request.config.prev_result()?.ok_or(PortmapError::NotChained)?;
    let addresses = addresses(request, &prev);
    let owner = Owner::of(request);
    let mut rules = Rules::open()?;
    for address in &addresses {
        for mapping in plan
            .mappings
            .iter()
            .filter(|mapping| mapping.fits(address.addr()))
        {
            if rules.owned(&owner, &[mapping.place(address.addr())])?.is_empty() {
                return Err(PortmapError::Missing(format!("host port {}", mapping.text())).into());
            }
        }
    }
    Ok(())
}

fn collect(request: &Request) -> Outcome<()> {
    Plan::of(request)?;
    let Some(valid) = request.config.valid_attachments()? else {
        return Ok(());
    };
    let keep: Vec<_> = valid
        .iter()
        .map(|one| Owner::valid(&request.network, one))
        .collect();
    Rules::open()?.collect(&request.network, &keep, &SETS)?;
    Ok(())
}

fn port_places(plan: &Plan, addresses: &[IpNet], mut places: Vec<Key>) -> Vec<Key> {
    for address in addresses {
        places.extend(
            plan.mappings
                .iter()
                .filter(|one| one.fits(address.addr()))
                .map(|one| one.place(address.addr())),
        );
    }
    places
}

/// Lets answers to masqueraded connections from 127.0.0.1 in where they come from, and lets a bridge send a container's
/// own packets back to it (with `br_netfilter` a translated packet stays on the bridge).
fn open_ways_back<'a>(
    network: &str,
    addresses: &[IpNet],
    links: impl Iterator<Item = &'a str>,
) -> Outcome<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut bridges = Vec::new();
    for address in addresses.iter().map(IpNet::addr) {
        let way = route::towards(&mut socket, address)?.ok_or(PortmapError::NoRoute(address))?;
        bridges.push(way.link);
        if address.is_ipv4() {
            let link =
                link::find(&mut socket, Which::Index(way.link))?.ok_or(PortmapError::NoRoute(address))?;
            // A route to this address alone is this container's own link, which goes with it; anything wider is the
            // network's.
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
        }
    }
    for port in links {
        let Some(port) = link::find(&mut socket, Which::Name(port))? else {
            continue;
        };
        if port.master.is_some_and(|master| bridges.contains(&master)) && !port.hairpin {
            let on = Change {
                hairpin: Some(true),
                ..Change::default()
            };
            socket.request(&[link::change(Which::Index(port.index), &on)])?;
        }
    }
    Ok(())
}

/// Senders of datagrams to a host port keep an old translation, or none, until they pause.
fn forget_datagrams(plan: &Plan, addresses: &[IpNet]) -> Outcome<()> {
    let datagrams = plan
        .mappings
        .iter()
        .filter(|mapping| mapping.protocol == plan::Protocol::Udp);
    let ports: Vec<_> = datagrams.map(|mapping| mapping.host_port).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Netfilter)?;
    for address in addresses {
        match conntrack::forget(
            &mut socket,
            address.addr().is_ipv6(),
            plan::Protocol::Udp as u8,
            &ports,
        ) {
            // A kernel without connection tracking by netlink: nothing can be forgotten there.
            Err(error) if error.errno() == Some(nix::errno::Errno::EINVAL) => {}
            other => other?,
        }
    }
    Ok(())
}

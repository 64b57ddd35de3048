//! `portmap`: ports of the host that lead to the container.
//!
//! ```text
//!  other host, this host, 127.0.0.1 --> host address:hostPort --map element--> container address:containerPort
//! ```
//!
//! From 127.0.0.1 and from containers of the same bridge the source becomes the host's address, or the answer would not
//! find its way back. ::1 is not translated: IPv6 has no `route_localnet`.

mod plan;
mod way_back;

use crate::failure::{Coded, Outcome};
use crate::linger;
use crate::owner::Owner;
use crate::rules::layout::{self, NetworkChain};
use crate::rules::{Key, Rules};
use crate::undo::or_undo;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code};
use coracle_linux::netlink::{Protocol, Socket, conntrack};
use ipnet::IpNet;
use plan::{Mapping, Plan, Removal, Source};
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
    #[error("host port {0} is not published for this container")]
    Missing(String),
}

impl Coded for PortmapError {
    fn code(&self) -> Code {
        match self {
            Self::NotChained => Code::INVALID_CONFIG,
            Self::NoRoute(_) | Self::Missing(_) => Code::INTERNAL,
        }
    }
}

/// How the names of the sets in which attachments have elements begin.
const SETS: [&str; 2] = ["ports", layout::PUBLISHED];

/// ADD.
pub(crate) fn add(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    if !plan.mappings.is_empty() && !plan.addresses.is_empty() {
        publish(&plan)?;
    }
    Ok(plan.prev)
}

/// DEL.
pub(crate) fn del(request: &Request) -> Outcome<()> {
    let plan = Removal::of(request);
    let mut rules = Rules::open()?;
    if !remove(&plan, &mut rules)?.is_empty() {
        linger::hold(rules);
        forget_datagrams(plan.mappings.as_deref().unwrap_or_default(), &plan.addresses)?;
    }
    Ok(())
}

/// CHECK: each port leads to this container.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let mut rules = Rules::open()?;
    for address in plan.addresses.iter().map(IpNet::addr) {
        for mapping in plan.mappings.iter().filter(|mapping| mapping.fits(address)) {
            if rules.owned(&plan.owner, &[mapping.place(address)])?.is_empty() {
                return Err(PortmapError::Missing(mapping.text()).into());
            }
        }
    }
    Ok(())
}

/// GC.
pub(crate) fn gc(request: &Request) -> Outcome<()> {
    if let Some(keep) = Owner::kept(request)? {
        Rules::open()?.collect(&request.network, &keep, &SETS)?;
    }
    Ok(())
}

/// STATUS: the configuration is usable, and so are rules.
pub(crate) fn status(request: &Request) -> Outcome<()> {
    plan::check(request)?;
    Ok(Rules::open()?.usable()?)
}

fn publish(plan: &Plan) -> Outcome<()> {
    or_undo(|undo| {
        let entries = plan.entries();
        let places: Vec<_> = entries
            .iter()
            .map(|entry| (entry.set.clone(), entry.element.key.clone()))
            .collect();
        if plan.source != Source::Keep {
            way_back::open(plan)?;
        }
        undo.push("published ports", move || {
            Rules::open()?.remove_owner(&plan.owner, &places, &SETS)?;
            Ok(())
        });
        let chains: Vec<_> = plan
            .addresses
            .iter()
            .copied()
            .map(NetworkChain::Published)
            .collect();
        Rules::open()?.add(&entries, plan.owner.network(), &chains)?;
        forget_datagrams(&plan.mappings, &plan.addresses)
    })
}

/// Deletes the attachment's elements, under whatever configuration they were made: where the request says that they
/// are, or, when it says too little or something else, wherever they are.
fn remove(plan: &Removal, rules: &mut Rules) -> Outcome<Vec<Key>> {
    let published = plan.published_places();
    let (ports, known) = match &plan.mappings {
        Some(mappings) => (plan::port_places(mappings, &plan.addresses), true),
        None => (Vec::new(), false),
    };
    let all_named = !ports.is_empty() && rules.owned(&plan.owner, &ports)?.len() == ports.len();
    let has_ports = !rules.owned(&plan.owner, &published)?.is_empty();
    let places = if plan.addresses.is_empty() || !known || has_ports && !all_named {
        Vec::new()
    } else {
        [ports, published].concat()
    };
    Ok(rules.remove_owner(&plan.owner, &places, &SETS)?)
}

/// Senders of datagrams to a host port keep an old translation, or none, until they pause.
fn forget_datagrams(mappings: &[Mapping], addresses: &[IpNet]) -> Outcome<()> {
    let datagrams = mappings
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

//! `bridge`: a veth pair between the container and a bridge of the host.
//!
//! ```text
//!  host namespace                                            container
//!  bridge (gateway addresses) -- veth(hash of the owner) ==== CNI_IFNAME (addresses, routes)
//!  `inet coracle`: pod address -> masquerade chain of the network
//! ```
//!
//! Names follow from the attachment, so that DEL finds everything from the attachment's name alone. The container's MAC
//! address follows from its IP address: who knew the last holder of that address reaches the next one.

mod add;
mod check;
mod del;
mod host;
pub(crate) mod plan;

use crate::failure::Outcome;
use crate::ipam::Ipam;
use crate::owner::Owner;
use crate::rules::{Rules, layout};
use crate::{host_local, owner};
use coracle_cni_protocol::plugin::{Plugin, Request};
use coracle_cni_protocol::{CniResult, PluginError};
use coracle_linux::netlink::route::link::{self, Link, Which};
use coracle_linux::netlink::{Protocol, Socket};
pub(crate) use plan::{parse_mac, wanted_mac};

use plan::Plan;
use std::net::IpAddr;

/// An attachment could not be made or is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The name is taken by something else.
    #[error("bridge: {0} exists and is not a bridge")]
    NotABridge(String),
    /// The bridge has another address and `forceAddress` is not set.
    #[error("{bridge:?} already has an IP address different from {wanted}")]
    OtherAddress {
        /// The bridge.
        bridge: String,
        /// What it should have.
        wanted: ipnet::IpNet,
    },
    /// The container has an interface of this name.
    #[error("container interface {0:?} already exists")]
    InterfaceExists(String),
    /// The host has a link of the name that the attachment's would have.
    #[error("host interface {0:?} exists and belongs to something else")]
    HostInterfaceExists(String),
    /// A link that was just made is gone.
    #[error("interface {0:?} disappeared")]
    Vanished(String),
    /// Somebody else on the network has the address.
    #[error("address {0} is already used by another host of the network")]
    Duplicate(IpAddr),
    /// The search for duplicates does not end.
    #[error("the search for duplicates of address {0} did not end")]
    Tentative(IpAddr),
    /// The pair of links does not come to carry packets.
    #[error("interface {0:?} stays down")]
    NotOperational(String),
    /// The address manager's default route contradicts `isDefaultGateway`.
    #[error("isDefaultGateway ineffective because IPAM sets default route via {0}")]
    OtherDefaultRoute(IpAddr),
    /// CHECK found a difference.
    #[error("{0}")]
    Check(String),
}

/// The plugin.
pub(crate) struct Bridge;

impl Plugin for Bridge {
    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        add::add(request).map_err(|error| error.0)
    }

    fn del(&self, request: &Request) -> Result<(), PluginError> {
        del::del(request).map_err(|error| error.0)
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check::check(request).map_err(|error| error.0)
    }

    fn gc(&self, request: &Request) -> Result<(), PluginError> {
        collect(request).map_err(|error| error.0)
    }

    fn status(&self, request: &Request) -> Result<(), PluginError> {
        status(request).map_err(|error| error.0)
    }

    fn is_own_namespace(&self, netns: &str) -> Result<bool, PluginError> {
        host_local::own_namespace(netns)
    }
}

/// The host's links that are ours, with the comment that names their owner.
pub(crate) fn host_ends(socket: &mut Socket, network: &str) -> Outcome<Vec<Link>> {
    let mut links = link::list(socket)?;
    links.retain(|link| {
        let alias = link.alias.as_deref().unwrap_or_default();
        link.kind.as_deref() == Some("veth") && alias.contains('/') && owner::network_of(alias) == network
    });
    Ok(links)
}

/// GC: links, rules and addresses of attachments that are not valid.
fn collect(request: &Request) -> Outcome<()> {
    Plan::of(request)?;
    let Some(valid) = request.config.valid_attachments()? else {
        return Ok(());
    };
    let keep: Vec<_> = valid
        .iter()
        .map(|one| Owner::valid(&request.network, one))
        .collect();
    let comments: Vec<_> = keep.iter().map(Owner::comment).collect();
    let mut socket = Socket::open(Protocol::Route)?;
    let mut stale = host_ends(&mut socket, &request.network)?;
    stale.retain(|link| !comments.contains(&link.alias.clone().unwrap_or_default()));
    for refusal in socket.request_each(
        &stale
            .iter()
            .map(|l| link::delete(Which::Index(l.index)))
            .collect::<Vec<_>>(),
    )? {
        if refusal.errno != nix::errno::Errno::ENODEV {
            return Err(coracle_linux::netlink::NetlinkError::Refused(refusal).into());
        }
    }
    Rules::open()?.collect(&request.network, &keep, &[layout::MASQUERADE])?;
    Ipam::of(request)?.gc(request)
}

/// STATUS: the configuration is usable and addresses can be given.
fn status(request: &Request) -> Outcome<()> {
    Plan::of(request)?;
    Ipam::of(request)?.status(request)
}

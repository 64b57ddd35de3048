//! CHECK: the container's interface is as ADD left it.

use super::result::own_addresses;
use crate::failure::{Coded, Outcome};
use crate::netns::Netns;
use crate::owner::Owner;
use coracle_cni_protocol::{CniResult, Code};
use coracle_linux::netlink::Socket;
use coracle_linux::netlink::route::link::{self, Link, Mac, Which};
use coracle_linux::netlink::route::{address, route};
use ipnet::IpNet;

/// What is not as ADD left it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Difference {
    /// A link is gone.
    #[error("interface {0} is missing")]
    Missing(String),
    /// A link does not carry packets.
    #[error("{0} is down")]
    Down(String),
    /// Somebody changed the MAC address.
    #[error("{link} has MAC address {found}, not {wanted}")]
    Mac {
        /// The interface.
        link: String,
        /// What it has.
        found: Mac,
        /// What it had.
        wanted: String,
    },
    /// An address is gone.
    #[error("{link} lacks address {address}")]
    Address {
        /// The interface.
        link: String,
        /// The address.
        address: IpNet,
    },
    /// A route is gone.
    #[error("route {0} is missing")]
    Route(IpNet),
}

impl Coded for Difference {
    fn code(&self) -> Code {
        match self {
            Self::Missing(_) | Self::Down(_) | Self::Mac { .. } | Self::Address { .. } | Self::Route(_) => {
                Code::INTERNAL
            }
        }
    }
}

/// Compares the container's interface with the result of ADD.
pub(crate) fn container(owner: &Owner, netns: &str, prev: &CniResult) -> Outcome<()> {
    let mut socket = Netns::open(netns)?.socket()?;
    let link = up(&mut socket, owner.ifname())?;
    let shown = prev
        .interfaces
        .iter()
        .find(|one| one.name == owner.ifname() && one.sandbox == netns);
    if let (Some(shown), Some(mac)) = (shown, link.mac)
        && !shown.mac.is_empty()
        && !shown.mac.eq_ignore_ascii_case(&mac.to_string())
    {
        return Err(Difference::Mac {
            link: link.name,
            found: mac,
            wanted: shown.mac.clone(),
        }
        .into());
    }
    let present = address::list(&mut socket, link.index)?;
    for wanted in own_addresses(prev, owner, netns) {
        let same =
            |found: &address::Address| found.address == wanted.addr() && found.prefix == wanted.prefix_len();
        if !present.iter().any(same) {
            return Err(Difference::Address {
                link: link.name,
                address: wanted,
            }
            .into());
        }
    }
    routes(&mut socket, &link, prev)
}

/// The link of this name, which must be there and up.
pub(crate) fn up(socket: &mut Socket, name: &str) -> Outcome<Link> {
    let found = link::find(socket, Which::Name(name))?;
    let found = found.ok_or_else(|| Difference::Missing(name.to_owned()))?;
    if !found.up {
        return Err(Difference::Down(found.name).into());
    }
    Ok(found)
}

fn routes(socket: &mut Socket, link: &Link, prev: &CniResult) -> Outcome<()> {
    // With several interfaces in one container each finds its own routes; a route of another one's is not missing.
    if prev
        .interfaces
        .iter()
        .filter(|one| !one.sandbox.is_empty())
        .count()
        != 1
    {
        return Ok(());
    }
    let mut present = route::list(socket, link.index, false)?;
    present.extend(route::list(socket, link.index, true)?);
    let reachable = |v4: bool| prev.ips.iter().any(|ip| ip.address.addr().is_ipv4() == v4);
    for wanted in &prev.routes {
        let same = |found: &route::Route| {
            found.destination == wanted.dst.network()
                && found.prefix == wanted.dst.prefix_len()
                && wanted.gw.is_none_or(|gateway| found.gateway == Some(gateway))
        };
        if reachable(wanted.dst.addr().is_ipv4()) && !present.iter().any(same) {
            return Err(Difference::Route(wanted.dst).into());
        }
    }
    Ok(())
}

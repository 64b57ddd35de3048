//! The container's side: addresses and routes of the new interface.

use crate::failure::{Coded, Outcome};
use crate::netns::Netns;
use crate::sysctl;
use coracle_cni_protocol::{CniResult, Code, Route};
use coracle_linux::netlink::route::address::{self, State};
use coracle_linux::netlink::route::link::{self, Change, Link, Mac, Which};
use coracle_linux::netlink::route::route;
use coracle_linux::netlink::{Message, NetlinkError, Socket};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The kernel asks once and waits a second, after up to a second of delay, unless it is told otherwise.
const DUPLICATES_LIMIT: Duration = Duration::from_secs(10);
const DUPLICATES_PAUSE: Duration = Duration::from_millis(20);
const SCOPE_LINK: u8 = 253;

/// The interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    /// It was just made and is gone.
    #[error("interface {0:?} disappeared")]
    Vanished(String),
    /// Somebody else on the network has the address.
    #[error("address {0} is already used by another host of the network")]
    Duplicate(IpAddr),
    /// The search for duplicates does not end.
    #[error("the search for duplicates of address {0} did not end")]
    Tentative(IpAddr),
}

impl Coded for ContainerError {
    fn code(&self) -> Code {
        match self {
            Self::Vanished(_) | Self::Duplicate(_) | Self::Tentative(_) => Code::INTERNAL,
        }
    }
}

/// Gives the interface its addresses, sets it up and adds the routes. `socket` is one of the container's namespace.
///
/// Settings go by netlink where it can carry them: a look-up in `/proc/sys/net` walks the entries of all namespaces.
pub(crate) fn configure(
    socket: &mut Socket,
    netns: &Netns,
    ifname: &str,
    detect_duplicates: bool,
    result: &CniResult,
) -> Outcome<()> {
    let link = find(socket, ifname)?;
    let v6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    if v6 && link.ipv6_disabled {
        netns.inside(|| {
            let setting = format!("net/ipv6/conf/{ifname}/disable_ipv6");
            Ok(sysctl::ensure(&setting, "0")?)
        })?;
    }
    let own_link_local = link.mac.filter(|_| v6 && !detect_duplicates);
    let mut messages = addresses(&link, own_link_local, detect_duplicates, result);
    let routes_from = messages.len();
    messages.extend(routes(result, link.index));
    for refusal in socket.request_each(&messages)? {
        // The very same route from another network of this container is as good.
        if refusal.index < routes_from || refusal.errno != Errno::EEXIST {
            return Err(NetlinkError::Refused(refusal).into());
        }
    }
    // Reading a link brings its state up to date: what it says when it is ready, it says now.
    link::find(socket, Which::Index(link.index))?;
    Ok(())
}

/// Settings, addresses, up: in this order.
fn addresses(
    link: &Link,
    own_link_local: Option<Mac>,
    detect_duplicates: bool,
    result: &CniResult,
) -> Vec<Message> {
    let which = Which::Index(link.index);
    let settings = Change {
        // Neighbours learn at once when an address moves to another MAC address.
        arp_notify: Some(true),
        no_link_local: own_link_local.is_some(),
        ..Change::default()
    };
    let up = Change {
        up: Some(true),
        ..Change::default()
    };
    let mut messages = vec![link::change(which, &settings)];
    // The kernel would look for duplicates of its own link-local address for a second or two, and ask no neighbour
    // meanwhile.
    messages.extend(own_link_local.map(|mac| address::add(link.index, link_local(mac).into(), 64, false)));
    messages.extend(result.ips.iter().map(|ip| {
        address::add(
            link.index,
            ip.address.addr(),
            ip.address.prefix_len(),
            detect_duplicates,
        )
    }));
    messages.push(link::change(which, &up));
    messages
}

/// Waits until the kernel has looked for duplicates of the addresses: a second or two.
pub(crate) fn wait_for_addresses(socket: &mut Socket, ifname: &str) -> Outcome<()> {
    let link = find(socket, ifname)?;
    let end = Instant::now() + DUPLICATES_LIMIT;
    loop {
        let present = address::list(socket, link.index)?;
        if let Some(found) = present.iter().find(|found| found.state == State::Duplicate) {
            return Err(ContainerError::Duplicate(found.address).into());
        }
        let Some(found) = present.iter().find(|found| found.state == State::Tentative) else {
            return Ok(());
        };
        if Instant::now() > end {
            return Err(ContainerError::Tentative(found.address).into());
        }
        std::thread::sleep(DUPLICATES_PAUSE);
    }
}

/// The address the kernel would make from the MAC address (RFC 4291, appendix A).
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    )
}

fn routes(result: &CniResult, link: u32) -> Vec<Message> {
    let gateway_of = |v4: bool| {
        let ip = result
            .ips
            .iter()
            .find(|ip| ip.address.addr().is_ipv4() == v4 && ip.gateway.is_some());
        ip.and_then(|ip| ip.gateway)
    };
    let plan = |wanted: &Route| {
        let destination = wanted.dst.network();
        let on_link = wanted.scope == Some(SCOPE_LINK);
        route::add(&route::Route {
            destination,
            prefix: wanted.dst.prefix_len(),
            gateway: wanted
                .gw
                .or_else(|| gateway_of(destination.is_ipv4()).filter(|_| !on_link)),
            link,
            mtu: wanted.mtu,
            advmss: wanted.advmss,
            priority: wanted.priority,
            table: wanted.table,
            scope: wanted.scope,
        })
    };
    result.routes.iter().map(plan).collect()
}

fn find(socket: &mut Socket, ifname: &str) -> Outcome<Link> {
    let found = link::find(socket, Which::Name(ifname))?;
    Ok(found.ok_or_else(|| ContainerError::Vanished(ifname.to_owned()))?)
}

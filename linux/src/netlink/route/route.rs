//! Routes (`RTM_NEWROUTE`, `RTM_GETROUTE`).

use super::super::{Attributes, Message, NetlinkError, Socket};
use super::{CREATE, REPLACE, family, from_octets, octets};
use std::net::IpAddr;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_METRICS: u16 = 8;
const RTA_TABLE: u16 = 15;
const RTAX_MTU: u16 = 2;
const RTAX_ADVMSS: u16 = 8;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_MAIN: u32 = 254;
const SCOPE_LINK: u8 = 253;
/// Answer with the entry that matched instead of the resolved route.
const RTM_F_FIB_MATCH: u32 = 0x2000;

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination network.
    pub destination: IpAddr,
    /// Length of its network part, in bits; 0 is the default route.
    pub prefix: u8,
    /// Next hop; without one the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The link's number.
    pub link: u32,
    /// Largest packet along this route, in bytes.
    pub mtu: Option<u32>,
    /// Largest TCP segment to announce, in bytes.
    pub advmss: Option<u32>,
    /// Lower wins.
    pub priority: Option<u32>,
    /// Routing table; the main one without.
    pub table: Option<u32>,
    /// 0 global, 253 link, 254 host; derived from the gateway without.
    pub scope: Option<u8>,
}

/// Adds a route beside others to the same destination; refused with `EEXIST` when this very route is there.
pub fn add(route: &Route) -> Message {
    message(route, CREATE)
}

/// Adds a route in place of one to the same destination with the same priority.
pub fn replace(route: &Route) -> Message {
    message(route, CREATE | REPLACE)
}

/// The routes of the main and other tables of one family that leave through `link`.
pub fn list(socket: &mut Socket, link: u32, v6: bool) -> Result<Vec<Route>, NetlinkError> {
    let mut header = [0; 12];
    header[0] = if v6 { 10 } else { 2 };
    let request = Message::new("list routes", RTM_GETROUTE, 0, &header).with_u32(RTA_OIF, link);
    let found = socket.dump(&request)?;
    Ok(found
        .iter()
        .filter_map(|body| parse(body))
        .filter(|route| route.link == link)
        .collect())
}

/// The entry a packet to `destination` takes: the link, and how long the matching prefix is.
pub fn towards(socket: &mut Socket, destination: IpAddr) -> Result<Option<Route>, NetlinkError> {
    let mut header = [0; 12];
    header[0] = family(destination);
    header[1] = if destination.is_ipv4() { 32 } else { 128 };
    header[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
    let request = Message::new("look up route", RTM_GETROUTE, 0, &header).with(RTA_DST, &octets(destination));
    Ok(socket.fetch(&request)?.first().and_then(|body| parse(body)))
}

fn message(route: &Route, flags: u16) -> Message {
    let table = route.table.unwrap_or(RT_TABLE_MAIN);
    // An on-link route has link scope: the kernel refuses a gateway that is no nearer than the route itself.
    let derived = if route.gateway.is_some() || route.destination.is_ipv6() {
        0
    } else {
        SCOPE_LINK
    };
    let scope = route.scope.unwrap_or(derived);
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
    let mut header = [
        family(route.destination),
        route.prefix,
        0,
        0,
        0,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    header[4] = u8::try_from(table).unwrap_or(0);
    let mut message = Message::new("add route", RTM_NEWROUTE, flags, &header).with_u32(RTA_OIF, route.link);
    if route.prefix > 0 {
        message = message.with(RTA_DST, &octets(route.destination));
    }
    if let Some(gateway) = route.gateway {
        message = message.with(RTA_GATEWAY, &octets(gateway));
    }
    if let Some(priority) = route.priority {
        message = message.with_u32(RTA_PRIORITY, priority);
    }
    if route.table.is_some() {
        message = message.with_u32(RTA_TABLE, table);
    }
    if route.mtu.is_none() && route.advmss.is_none() {
        return message;
    }
    message.with_nested(RTA_METRICS, |mut metrics| {
        for (kind, value) in [(RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)] {
            if let Some(value) = value {
                metrics = metrics.with_u32(kind, value);
            }
        }
        metrics
    })
}

fn parse(body: &[u8]) -> Option<Route> {
    let attributes = Attributes(body.get(12..)?);
    let any = if body.first() == Some(&2) {
        IpAddr::from([0u8; 4])
    } else {
        IpAddr::from([0u8; 16])
    };
    let metrics = attributes.inside(RTA_METRICS);
    Some(Route {
        destination: attributes.find(RTA_DST).and_then(from_octets).unwrap_or(any),
        prefix: *body.get(1)?,
        gateway: attributes.find(RTA_GATEWAY).and_then(from_octets),
        link: attributes.u32(RTA_OIF)?,
        mtu: metrics.u32(RTAX_MTU),
        advmss: metrics.u32(RTAX_ADVMSS),
        priority: attributes.u32(RTA_PRIORITY),
        table: attributes.u32(RTA_TABLE),
        scope: body.get(6).copied(),
    })
}

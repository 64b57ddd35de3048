//! What the kernel says about a link.

use super::kind::bridge::{IFLA_BRPORT_ISOLATED, IFLA_BRPORT_MODE};
use super::{
    AF_INET, AF_INET6, IFF_ALLMULTI, IFF_PROMISC, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_IFALIAS,
    IFLA_IFNAME, IFLA_INET_CONF, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU,
    IFLA_TXQLEN, IPV4_DEVCONF_ROUTE_LOCALNET, Link, Mac,
};
use crate::netlink::Attributes;

// Position in the array of a link's IPv6 settings (linux/ipv6.h).
const DEVCONF_DISABLE_IPV6: usize = 26;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_LINK: u16 = 5;
const IFF_LOOPBACK: u32 = 0x8;

// Operational states (RFC 2863) in which packets pass.
const OPERSTATE_UNKNOWN: u8 = 0;
const OPERSTATE_UP: u8 = 6;

pub(super) fn parse(body: &[u8]) -> Option<Link> {
    let word = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let flags = word(8)?;
    let attributes = Attributes(body.get(16..)?);
    let info = attributes.inside(IFLA_LINKINFO);
    let port = info.inside(IFLA_INFO_SLAVE_DATA);
    let families = attributes.inside(IFLA_AF_SPEC);
    let setting = |family: u16, array: u16, at: usize| {
        let all = families.inside(family).find(array)?;
        Some(u32::from_ne_bytes(all.get(at * 4..at * 4 + 4)?.try_into().ok()?))
    };
    // The array of IPv4 begins with setting 1.
    let localnet = setting(
        AF_INET,
        IFLA_INET_CONF,
        usize::from(IPV4_DEVCONF_ROUTE_LOCALNET) - 1,
    );
    Some(Link {
        route_localnet: localnet.is_some_and(|value| value != 0),
        ipv6_disabled: setting(AF_INET6, IFLA_INET6_CONF, DEVCONF_DISABLE_IPV6)
            .is_some_and(|value| value != 0),
        index: word(4)?,
        name: attributes.text(IFLA_IFNAME)?,
        mac: attributes
            .find(IFLA_ADDRESS)
            .and_then(|mac| mac.try_into().ok())
            .map(Mac),
        mtu: attributes.u32(IFLA_MTU)?,
        up: flags & IFF_UP != 0,
        operational: flags & IFF_UP != 0
            && matches!(
                attributes.find(IFLA_OPERSTATE),
                None | Some(&[OPERSTATE_UNKNOWN | OPERSTATE_UP])
            ),
        loopback: flags & IFF_LOOPBACK != 0,
        promiscuous: flags & IFF_PROMISC != 0
            || attributes.u32(IFLA_PROMISCUITY).is_some_and(|count| count > 0),
        all_multicast: flags & IFF_ALLMULTI != 0,
        queue_length: attributes.u32(IFLA_TXQLEN).unwrap_or_default(),
        master: attributes.u32(IFLA_MASTER),
        peer: attributes.u32(IFLA_LINK),
        kind: info.text(IFLA_INFO_KIND),
        alias: attributes.text(IFLA_IFALIAS),
        hairpin: port.find(IFLA_BRPORT_MODE) == Some(&[1]),
        isolated: port.find(IFLA_BRPORT_ISOLATED) == Some(&[1]),
    })
}

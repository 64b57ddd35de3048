//! Changing a link of any kind.

use super::kind::bridge::with_port;
use super::{
    AF_INET, AF_INET6, IFF_ALLMULTI, IFF_PROMISC, IFF_UP, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_IFALIAS,
    IFLA_INET_CONF, IFLA_MASTER, IFLA_MTU, IFLA_TXQLEN, IPV4_DEVCONF_ROUTE_LOCALNET, Mac, RTM_NEWLINK, Which,
    address, header, optional_u32,
};
use crate::netlink::Message;

const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

/// What to change on a link; `None` leaves it.
#[derive(Debug, Clone, Default)]
pub struct Change<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// Largest packet, in bytes.
    pub mtu: Option<u32>,
    /// MAC address.
    pub mac: Option<Mac>,
    /// Free text; the kernel takes up to 255 bytes.
    pub alias: Option<&'a str>,
    /// Bridge to become a port of; 0 leaves the bridge.
    pub master: Option<u32>,
    /// Receive all packets.
    pub promiscuous: Option<bool>,
    /// Receive all multicast packets.
    pub all_multicast: Option<bool>,
    /// Length of the transmit queue, in packets.
    pub queue_length: Option<u32>,
    /// Bridge port: send packets back out where they came in.
    pub hairpin: Option<bool>,
    /// Bridge port: exchange packets with ports that are not isolated only.
    pub isolated: Option<bool>,
    /// Make no IPv6 link-local address by itself (a bridge port needs none).
    pub no_link_local: bool,
    /// Announce IPv4 addresses when they are added to it or it is set up.
    pub arp_notify: Option<bool>,
    /// Let packets to and from 127.0.0.0/8 pass.
    pub route_localnet: Option<bool>,
}

/// Changes a link.
pub fn change(which: Which<'_>, change: &Change<'_>) -> Message {
    let mut flags = 0;
    let mut mask = 0;
    let switches = [
        (change.up, IFF_UP),
        (change.promiscuous, IFF_PROMISC),
        (change.all_multicast, IFF_ALLMULTI),
    ];
    for (wanted, bit) in switches {
        if let Some(on) = wanted {
            mask |= bit;
            flags |= if on { bit } else { 0 };
        }
    }
    let mut message = address(
        Message::new("change link", RTM_NEWLINK, 0, &header(which, flags, mask)),
        which,
    );
    message = optional_u32(message, IFLA_MTU, change.mtu);
    message = optional_u32(message, IFLA_MASTER, change.master);
    message = optional_u32(message, IFLA_TXQLEN, change.queue_length);
    if let Some(mac) = change.mac {
        message = message.with(IFLA_ADDRESS, &mac.0);
    }
    if let Some(alias) = change.alias {
        message = message.with_text(IFLA_IFALIAS, alias);
    }
    with_port(with_families(message, change), change.hairpin, change.isolated)
}

fn with_families(message: Message, change: &Change<'_>) -> Message {
    let ipv4 = [
        (IPV4_DEVCONF_ARP_NOTIFY, change.arp_notify),
        (IPV4_DEVCONF_ROUTE_LOCALNET, change.route_localnet),
    ];
    let ipv4: Vec<_> = ipv4
        .into_iter()
        .filter_map(|(setting, on)| Some((setting, on?)))
        .collect();
    if !change.no_link_local && ipv4.is_empty() {
        return message;
    }
    message.with_nested(IFLA_AF_SPEC, |families| {
        with_ipv6(with_ipv4(families, &ipv4), change.no_link_local)
    })
}

fn with_ipv4(families: Message, settings: &[(u16, bool)]) -> Message {
    if settings.is_empty() {
        return families;
    }
    families.with_nested(AF_INET, |v4| {
        v4.with_nested(IFLA_INET_CONF, |all| {
            settings
                .iter()
                .fold(all, |all, (setting, on)| all.with_u32(*setting, u32::from(*on)))
        })
    })
}

fn with_ipv6(families: Message, no_link_local: bool) -> Message {
    if !no_link_local {
        return families;
    }
    families.with_nested(AF_INET6, |v6| {
        v6.with_u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE)
    })
}

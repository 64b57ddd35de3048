//! Links: veth pairs, bridges and their ports (`RTM_NEWLINK`, `RTM_GETLINK`, `RTM_DELLINK`).

use super::super::{Attributes, Message, NetlinkError, Socket};
use super::{CREATE, EXCLUSIVE};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_PROMISCUITY: u16 = 30;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
// Positions in the arrays of a link's settings (linux/ip.h, linux/ipv6.h).
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;
const DEVCONF_DISABLE_IPV6: usize = 26;

// Operational states (RFC 2863) in which packets pass.
const OPERSTATE_UNKNOWN: u8 = 0;
const OPERSTATE_UP: u8 = 6;

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_PROMISC: u32 = 0x100;
const IFF_ALLMULTI: u32 = 0x200;

/// A MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Which link a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// By number.
    Index(u32),
    /// By name.
    Name(&'a str),
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// MAC address, for links that have one.
    pub mac: Option<Mac>,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Packets pass: it is up, and with a veth so is the other end. Since Linux 6.8 the kernel brings this up to date for
    /// whoever reads the link; before, it follows a moment after the cause.
    pub operational: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Receives all packets.
    pub promiscuous: bool,
    /// Receives all multicast packets.
    pub all_multicast: bool,
    /// Length of the transmit queue, in packets.
    pub queue_length: u32,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// The number of the link below or, for veth, of the peer in its namespace.
    pub peer: Option<u32>,
    /// Driver kind: `bridge`, `veth` ...
    pub kind: Option<String>,
    /// Free text.
    pub alias: Option<String>,
    /// For a bridge port: sends packets back out where they came in.
    pub hairpin: bool,
    /// For a bridge port: exchanges packets with ports that are not isolated only.
    pub isolated: bool,
    /// Packets to and from 127.0.0.0/8 pass it.
    pub route_localnet: bool,
    /// IPv6 is off.
    pub ipv6_disabled: bool,
}

/// A veth pair; the peer is born in another namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Name of this end.
    pub name: &'a str,
    /// MAC address of this end.
    pub mac: Mac,
    /// Name of the peer.
    pub peer_name: &'a str,
    /// MAC address of the peer.
    pub peer_mac: Mac,
    /// The peer's network namespace.
    pub peer_namespace: BorrowedFd<'a>,
    /// MTU of both ends.
    pub mtu: Option<u32>,
}

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

/// Finds a link by name or number.
pub fn find(socket: &mut Socket, which: Which<'_>) -> Result<Option<Link>, NetlinkError> {
    let message = address(
        without_statistics(Message::new("read link", RTM_GETLINK, 0, &header(which, 0, 0))),
        which,
    );
    match socket.fetch(&message) {
        Ok(bodies) => Ok(bodies.first().and_then(|body| parse(body))),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace.
pub fn list(socket: &mut Socket) -> Result<Vec<Link>, NetlinkError> {
    let message = without_statistics(Message::new(
        "list links",
        RTM_GETLINK,
        0,
        &header(Which::Index(0), 0, 0),
    ));
    Ok(socket
        .dump(&message)?
        .iter()
        .filter_map(|body| parse(body))
        .collect())
}

/// Makes a veth pair.
pub fn new_veth(veth: &Veth<'_>) -> Message {
    let peer = |m: Message| {
        optional_u32(
            m.with_raw(&[0; 16]).with_text(IFLA_IFNAME, veth.peer_name),
            IFLA_MTU,
            veth.mtu,
        )
        .with(IFLA_ADDRESS, &veth.peer_mac.0)
        .with(IFLA_NET_NS_FD, &veth.peer_namespace.as_raw_fd().to_ne_bytes())
    };
    let message = Message::new("make veth", RTM_NEWLINK, CREATE | EXCLUSIVE, &[0; 16])
        .with_text(IFLA_IFNAME, veth.name)
        .with(IFLA_ADDRESS, &veth.mac.0)
        .with_nested(IFLA_LINKINFO, |info| {
            info.with_text(IFLA_INFO_KIND, "veth")
                .with_nested(IFLA_INFO_DATA, |data| data.with_nested(VETH_INFO_PEER, peer))
        });
    optional_u32(message, IFLA_MTU, veth.mtu)
}

/// Makes a bridge. An explicit MAC address stays when ports come and go.
pub fn new_bridge(name: &str, mac: Mac, mtu: Option<u32>) -> Message {
    let message = Message::new("make bridge", RTM_NEWLINK, CREATE | EXCLUSIVE, &[0; 16])
        .with_text(IFLA_IFNAME, name)
        .with(IFLA_ADDRESS, &mac.0)
        .with_nested(IFLA_LINKINFO, |info| info.with_text(IFLA_INFO_KIND, "bridge"));
    optional_u32(message, IFLA_MTU, mtu)
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
    with_port(with_families(message, change), change)
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

fn with_port(message: Message, change: &Change<'_>) -> Message {
    if change.hairpin.is_none() && change.isolated.is_none() {
        return message;
    }
    message.with_nested(IFLA_LINKINFO, |info| {
        info.with_text(IFLA_INFO_SLAVE_KIND, "bridge")
            .with_nested(IFLA_INFO_SLAVE_DATA, |port| {
                let port = optional_u8(port, IFLA_BRPORT_MODE, change.hairpin);
                optional_u8(port, IFLA_BRPORT_ISOLATED, change.isolated)
            })
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

/// Counters are most of a link's description and nobody here reads them.
fn without_statistics(message: Message) -> Message {
    message.with_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
}

/// Deletes a link; with a veth its peer goes too.
pub fn delete(which: Which<'_>) -> Message {
    address(
        Message::new("delete link", RTM_DELLINK, 0, &header(which, 0, 0)),
        which,
    )
}

/// `struct ifinfomsg`: family, type, index, flags, mask of flags.
fn header(which: Which<'_>, flags: u32, mask: u32) -> [u8; 16] {
    let index = match which {
        Which::Index(index) => index,
        Which::Name(_) => 0,
    };
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&mask.to_ne_bytes());
    header
}

fn address(message: Message, which: Which<'_>) -> Message {
    match which {
        Which::Index(_) => message,
        Which::Name(name) => message.with_text(IFLA_IFNAME, name),
    }
}

fn optional_u32(message: Message, kind: u16, value: Option<u32>) -> Message {
    match value {
        Some(value) => message.with_u32(kind, value),
        None => message,
    }
}

fn optional_u8(message: Message, kind: u16, value: Option<bool>) -> Message {
    match value {
        Some(value) => message.with_u8(kind, u8::from(value)),
        None => message,
    }
}

fn parse(body: &[u8]) -> Option<Link> {
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

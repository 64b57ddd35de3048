//! Links of every kind (`RTM_NEWLINK`, `RTM_GETLINK`, `RTM_DELLINK`).

mod change;
mod kind;
mod parse;

use crate::netlink::{Message, NetlinkError, Socket};
use nix::errno::Errno;

pub use change::{Change, change};
pub use kind::bridge::new_bridge;
pub use kind::veth::{Veth, new_veth};
use parse::parse;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_INET_CONF: u16 = 1;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
// A position in the array of a link's IPv4 settings (linux/ip.h).
const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;

const IFF_UP: u32 = 0x1;
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

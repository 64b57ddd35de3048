//! Pairs of links, each the other end of the other (veth(4)).

use super::super::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, Mac, RTM_NEWLINK,
    optional_u32,
};
use crate::netlink::Message;
use crate::netlink::route::{CREATE, EXCLUSIVE};
use std::os::fd::{AsRawFd, BorrowedFd};

const VETH_INFO_PEER: u16 = 1;
const IFLA_NET_NS_FD: u16 = 28;

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

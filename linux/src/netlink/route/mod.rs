//! Links, addresses and routes (rtnetlink(7)).

pub mod address;
pub mod forwarding;
pub mod link;
#[expect(clippy::module_inception, reason = "the kernel calls this object a route")]
pub mod route;

use std::net::IpAddr;

/// Make the object when it does not exist.
const CREATE: u16 = 0x400;
/// Refuse when it exists.
const EXCLUSIVE: u16 = 0x200;
/// Replace it when it exists.
const REPLACE: u16 = 0x100;

/// `AF_INET` or `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// The address as the wire has it.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An address from its wire form.
fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

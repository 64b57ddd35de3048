//! Addresses of links (`RTM_NEWADDR`, `RTM_GETADDR`, `RTM_DELADDR`).

use super::super::{Attributes, Message, NetlinkError, Socket};
use super::{CREATE, EXCLUSIVE, family, from_octets, octets};
use std::net::{IpAddr, Ipv4Addr};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// The address is used at once: duplicates are not looked for (an allocator gave it out once).
const IFA_F_NODAD: u32 = 0x02;

/// It is being looked for duplicates and not used yet.
const IFA_F_TENTATIVE: u32 = 0x40;
/// Somebody else has it: it will not be used.
const IFA_F_DADFAILED: u32 = 0x08;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the network part, in bits.
    pub prefix: u8,
    /// 0 global, 253 link, 254 host.
    pub scope: u8,
    /// Whether it can be used yet.
    pub state: State,
}

/// How far the search for duplicates of an address is (RFC 4862, section 5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Tentative,
    /// There is one: the address is not used.
    Duplicate,
    /// It is over, or was not wanted.
    Usable,
}

/// Adds an address; refused with `EEXIST` when the link has it. `detect_duplicates` applies to IPv6.
pub fn add(link: u32, address: IpAddr, prefix: u8, detect_duplicates: bool) -> Message {
    let flags = CREATE | EXCLUSIVE;
    let mut message = Message::new("add address", RTM_NEWADDR, flags, &header(link, address, prefix))
        .with(IFA_LOCAL, &octets(address))
        .with(IFA_ADDRESS, &octets(address));
    match address {
        IpAddr::V4(address) if prefix < 31 => {
            message = message.with(IFA_BROADCAST, &broadcast(address, prefix).octets());
        }
        IpAddr::V6(_) if !detect_duplicates => message = message.with_u32(IFA_FLAGS, IFA_F_NODAD),
        _ => {}
    }
    message
}

/// Removes an address.
pub fn delete(link: u32, address: IpAddr, prefix: u8) -> Message {
    Message::new("delete address", RTM_DELADDR, 0, &header(link, address, prefix))
        .with(IFA_LOCAL, &octets(address))
        .with(IFA_ADDRESS, &octets(address))
}

/// The addresses of one link, of both families.
pub fn list(socket: &mut Socket, link: u32) -> Result<Vec<Address>, NetlinkError> {
    let mut header = [0; 8];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    let found = socket.dump(&Message::new("list addresses", RTM_GETADDR, 0, &header))?;
    Ok(found
        .iter()
        .filter_map(|body| parse(body))
        .filter(|address| address.link == link)
        .collect())
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, link.
fn header(link: u32, address: IpAddr, prefix: u8) -> [u8; 8] {
    let mut header = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from(u32::from(address) | host_bits)
}

fn parse(body: &[u8]) -> Option<Address> {
    let attributes = Attributes(body.get(8..)?);
    // IFA_LOCAL is the own address; on point-to-point links IFA_ADDRESS is the peer's (rtnetlink(7)).
    let address = attributes
        .find(IFA_LOCAL)
        .or_else(|| attributes.find(IFA_ADDRESS))?;
    Some(Address {
        link: u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?),
        address: from_octets(address)?,
        prefix: *body.get(1)?,
        scope: *body.get(3)?,
        state: state(attributes.u32(IFA_FLAGS).unwrap_or_default()),
    })
}

fn state(flags: u32) -> State {
    if flags & IFA_F_DADFAILED != 0 {
        State::Duplicate
    } else if flags & IFA_F_TENTATIVE != 0 {
        State::Tentative
    } else {
        State::Usable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_is_the_last_address() {
        assert_eq!(
            broadcast(Ipv4Addr::new(10, 1, 2, 3), 16),
            Ipv4Addr::new(10, 1, 255, 255)
        );
        assert_eq!(
            broadcast(Ipv4Addr::new(10, 1, 2, 3), 30),
            Ipv4Addr::new(10, 1, 2, 3)
        );
        assert_eq!(
            broadcast(Ipv4Addr::new(10, 1, 2, 3), 32),
            Ipv4Addr::new(10, 1, 2, 3)
        );
    }
}

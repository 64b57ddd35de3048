//! Whether the host forwards packets (`RTM_GETNETCONF`).
//!
//! The same can be read from `/proc/sys/net`, where each look-up walks the entries of all network namespaces (0.8 ms with
//! 900 of them).

use super::super::{Attributes, Message, NetlinkError, Socket};

const RTM_GETNETCONF: u16 = 82;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_IFINDEX_ALL: i32 = -1;

/// Whether packets of a family are forwarded between all links.
pub fn is_on(socket: &mut Socket, v6: bool) -> Result<bool, NetlinkError> {
    // struct netconfmsg is the family, padded.
    let header = [if v6 { 10 } else { 2 }, 0, 0, 0];
    let request = Message::new("read forwarding", RTM_GETNETCONF, 0, &header)
        .with(NETCONFA_IFINDEX, &NETCONFA_IFINDEX_ALL.to_ne_bytes());
    let found = socket.fetch(&request)?;
    let body = found
        .first()
        .and_then(|body| body.get(4..))
        .ok_or(NetlinkError::Malformed)?;
    Ok(Attributes(body).u32(NETCONFA_FORWARDING) == Some(1))
}

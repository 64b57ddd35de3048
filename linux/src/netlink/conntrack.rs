//! Known connections (`NFNL_SUBSYS_CTNETLINK`): finding and forgetting those whose translation is out of date.

use super::{Attributes, Message, NetlinkError, Socket};
use nix::errno::Errno;

const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION_PORT: u16 = 3;

/// Forgets the connections of one family that were opened to one of these ports with this protocol.
///
/// An entry of a datagram protocol lives as long as somebody sends: without this its packets keep the old translation.
pub fn forget(socket: &mut Socket, v6: bool, protocol: u8, ports: &[u16]) -> Result<(), NetlinkError> {
    let list = request("list connections", GET, v6);
    let mut stale = Vec::new();
    for body in socket.dump(&list)? {
        let original = Attributes(body.get(4..).unwrap_or_default())
            .find(TUPLE_ORIGINAL)
            .unwrap_or_default();
        let transport = Attributes(original).inside(TUPLE_PROTOCOL);
        let port = transport
            .find(PROTOCOL_DESTINATION_PORT)
            .and_then(|bytes| bytes.try_into().ok());
        let wanted = port.is_some_and(|port| ports.contains(&u16::from_be_bytes(port)));
        if wanted && transport.find(PROTOCOL_NUMBER) == Some(&[protocol]) {
            stale.push(
                request("forget connection", DELETE, v6)
                    .with_nested(TUPLE_ORIGINAL, |t| t.with_raw(original)),
            );
        }
    }
    for part in stale.chunks(100) {
        for refusal in socket.request_each(part)? {
            // It ended by itself meanwhile.
            if refusal.errno != Errno::ENOENT {
                return Err(NetlinkError::Refused(refusal));
            }
        }
    }
    Ok(())
}

fn request(label: &'static str, kind: u16, v6: bool) -> Message {
    Message::new(
        label,
        SUBSYSTEM << 8 | kind,
        0,
        &[if v6 { 10 } else { 2 }, 0, 0, 0],
    )
}

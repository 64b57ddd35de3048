//! Bridges and their ports.

use super::super::{
    IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_LINKINFO, IFLA_MTU, Mac,
    RTM_NEWLINK, optional_u32,
};
use crate::netlink::Message;
use crate::netlink::route::{CREATE, EXCLUSIVE};

const IFLA_INFO_SLAVE_KIND: u16 = 4;
pub(in super::super) const IFLA_BRPORT_MODE: u16 = 4;
pub(in super::super) const IFLA_BRPORT_ISOLATED: u16 = 33;

/// Makes a bridge. An explicit MAC address stays when ports come and go.
pub fn new_bridge(name: &str, mac: Mac, mtu: Option<u32>) -> Message {
    let message = Message::new("make bridge", RTM_NEWLINK, CREATE | EXCLUSIVE, &[0; 16])
        .with_text(IFLA_IFNAME, name)
        .with(IFLA_ADDRESS, &mac.0)
        .with_nested(IFLA_LINKINFO, |info| info.with_text(IFLA_INFO_KIND, "bridge"));
    optional_u32(message, IFLA_MTU, mtu)
}

/// The settings of a bridge port.
pub(in super::super) fn with_port(
    message: Message,
    hairpin: Option<bool>,
    isolated: Option<bool>,
) -> Message {
    if hairpin.is_none() && isolated.is_none() {
        return message;
    }
    message.with_nested(IFLA_LINKINFO, |info| {
        info.with_text(IFLA_INFO_SLAVE_KIND, "bridge")
            .with_nested(IFLA_INFO_SLAVE_DATA, |port| {
                let port = optional_u8(port, IFLA_BRPORT_MODE, hairpin);
                optional_u8(port, IFLA_BRPORT_ISOLATED, isolated)
            })
    })
}

fn optional_u8(message: Message, kind: u16, value: Option<bool>) -> Message {
    match value {
        Some(value) => message.with_u8(kind, u8::from(value)),
        None => message,
    }
}

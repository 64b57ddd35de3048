//! What the configuration asks for, checked.

use crate::failure::{Outcome, invalid, unsupported};
use coracle_cni_protocol::identifier;
use coracle_cni_protocol::plugin::Request;
use coracle_linux::netlink::route::link::Mac;
use serde_json::Value;

const DEFAULT_BRIDGE: &str = "cni0";
/// The smallest packet IPv4 hosts must take; the kernel's own lower bound for veth.
const SMALLEST_MTU: u32 = 68;
const LARGEST_MTU: u32 = 65535;

/// A checked configuration.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// The bridge gets the gateway's address.
    pub(crate) gateway: bool,
    /// The container's default route leads to it.
    pub(crate) default_gateway: bool,
    /// Another address of the bridge gives way.
    pub(crate) force_address: bool,
    /// Packets that leave the subnet get the host's address.
    pub(crate) masquerade: bool,
    /// MTU of bridge and veth; the kernel's default without.
    pub(crate) mtu: Option<u32>,
    /// The bridge sends packets back to the port they came from.
    pub(crate) hairpin: bool,
    /// The bridge receives all packets.
    pub(crate) promiscuous: bool,
    /// IPv6 addresses are checked for duplicates.
    pub(crate) detect_duplicates: bool,
    /// Ports of the bridge do not reach each other.
    pub(crate) isolated: bool,
    /// MAC address somebody wants for the container.
    pub(crate) mac: Option<Mac>,
}

impl Plan {
    /// Reads and checks the configuration.
    pub(crate) fn of(request: &Request) -> Outcome<Self> {
        refuse_unsupported(request)?;
        let flag = |key: &str| -> Outcome<bool> { Ok(request.config.get(key)?.unwrap_or_default()) };
        let named: String = request.config.get("bridge")?.unwrap_or_default();
        let bridge = if named.is_empty() {
            DEFAULT_BRIDGE.to_owned()
        } else {
            named
        };
        identifier::check_interface(&bridge).map_err(|error| invalid("bridge", error))?;
        if flag("hairpinMode")? && flag("promiscMode")? {
            return Err(invalid("promiscMode", "cannot be set together with hairpinMode"));
        }
        let mtu: u32 = request.config.get("mtu")?.unwrap_or_default();
        if mtu != 0 && !(SMALLEST_MTU..=LARGEST_MTU).contains(&mtu) {
            return Err(invalid(
                "mtu",
                format_args!("{mtu} is not between {SMALLEST_MTU} and {LARGEST_MTU}"),
            ));
        }
        Ok(Self {
            bridge,
            gateway: flag("isGateway")? || flag("isDefaultGateway")?,
            default_gateway: flag("isDefaultGateway")?,
            force_address: flag("forceAddress")?,
            masquerade: flag("ipMasq")?,
            mtu: Some(mtu).filter(|mtu| *mtu != 0),
            hairpin: flag("hairpinMode")?,
            promiscuous: flag("promiscMode")?,
            detect_duplicates: flag("enabledad")?,
            isolated: flag("portIsolation")?,
            mac: wanted_mac(request)?,
        })
    }
}

fn refuse_unsupported(request: &Request) -> Outcome<()> {
    let config = &request.config;
    let set = |key: &str| -> Outcome<bool> { Ok(config.get(key)?.unwrap_or_default()) };
    let refused = [
        (
            config.get("vlan")?.is_some_and(|id: u32| id != 0),
            "vlan",
            "VLANs are not supported yet",
        ),
        (
            config
                .get("vlanTrunk")?
                .is_some_and(|list: Vec<Value>| !list.is_empty()),
            "vlanTrunk",
            "VLANs are not supported yet",
        ),
        (
            set("macspoofchk")?,
            "macspoofchk",
            "the MAC spoofing check is not supported yet",
        ),
        (
            set("disableContainerInterface")?,
            "disableContainerInterface",
            "an interface that stays down is not supported yet",
        ),
    ];
    if let Some((_, key, why)) = refused.into_iter().find(|(set, _, _)| *set) {
        return Err(unsupported(key, why));
    }
    match config.get::<String>("ipMasqBackend")?.as_deref() {
        // Both names ask for masquerading; there is one way to do it here.
        None | Some("" | "nftables" | "iptables") => Ok(()),
        Some(other) => Err(invalid(
            "ipMasqBackend",
            format_args!("{other:?} is neither nftables nor iptables"),
        )),
    }
}

/// `CNI_ARGS` MAC, then `args.cni.mac`, then the capability `mac`: the last one that is set wins.
pub(crate) fn wanted_mac(request: &Request) -> Outcome<Option<Mac>> {
    let of_environment = request
        .args
        .iter()
        .find(|(key, _)| key == "MAC")
        .map(|(_, value)| value.clone());
    let args: Option<Value> = request.config.get_in("args", "cni")?;
    let of_args = args.and_then(|cni| cni.get("mac").and_then(Value::as_str).map(str::to_owned));
    let of_runtime: Option<String> = request.config.get_in("runtimeConfig", "mac")?;
    let named = [
        ("runtimeConfig.mac", of_runtime),
        ("args.cni.mac", of_args),
        ("CNI_ARGS: MAC", of_environment),
    ];
    match named
        .into_iter()
        .find_map(|(key, value)| Some((key, value.filter(|text| !text.is_empty())?)))
    {
        Some((key, text)) => parse_mac(&text)
            .map(Some)
            .ok_or_else(|| invalid(key, format_args!("{text:?} is no MAC address"))),
        None => Ok(None),
    }
}

/// `02:00:00:00:00:01`; not a multicast address and not zero.
pub(crate) fn parse_mac(text: &str) -> Option<Mac> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| {
            if part.len() == 2 {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        })
        .collect::<Option<_>>()?;
    let mac: [u8; 6] = bytes.try_into().ok()?;
    (mac[0] & 1 == 0 && mac != [0; 6]).then_some(Mac(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_unicast() {
        assert_eq!(parse_mac("02:00:00:00:00:0f"), Some(Mac([2, 0, 0, 0, 0, 15])));
        for bad in [
            "",
            "02:00:00:00:00",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "2:0:0:0:0:0:",
            "zz:00:00:00:00:00",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}

//! What the configuration asks for, checked.

use crate::failure::{Outcome, invalid, unsupported};
use coracle_cni_protocol::identifier;
use coracle_cni_protocol::plugin::Request;
use coracle_linux::netlink::route::link::Mac;
use serde::Deserialize;
use serde_json::Value;

const DEFAULT_BRIDGE: &str = "cni0";
/// The smallest packet IPv4 hosts must take; the kernel's own lower bound for veth.
const SMALLEST_MTU: u32 = 68;
const LARGEST_MTU: u32 = 65535;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: u32,
    vlan_trunk: Vec<Value>,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    port_isolation: bool,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Name of the bridge.
    pub(super) bridge: String,
    /// The bridge gets the gateway's address.
    pub(super) gateway: bool,
    /// The container's default route leads to it.
    pub(super) default_gateway: bool,
    /// Another address of the bridge gives way.
    pub(super) force_address: bool,
    /// Packets that leave the subnet get the host's address.
    pub(super) masquerade: bool,
    /// MTU of bridge and veth; the kernel's default without.
    pub(super) mtu: Option<u32>,
    /// The bridge sends packets back to the port they came from.
    pub(super) hairpin: bool,
    /// The bridge receives all packets.
    pub(super) promiscuous: bool,
    /// IPv6 addresses are checked for duplicates.
    pub(super) detect_duplicates: bool,
    /// Ports of the bridge do not reach each other.
    pub(super) isolated: bool,
    /// MAC address somebody wants for the container.
    pub(super) mac: Option<Mac>,
}

impl Plan {
    /// Reads and checks the configuration.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        let whole = serde_json::Value::Object(request.config.map().clone());
        let config: Config =
            serde_json::from_value(whole).map_err(|error| invalid("bridge configuration", error))?;
        refuse_unsupported(&config)?;
        let bridge = if config.bridge.is_empty() {
            DEFAULT_BRIDGE.to_owned()
        } else {
            config.bridge
        };
        identifier::check_interface(&bridge).map_err(|error| invalid("bridge", error))?;
        if config.hairpin_mode && config.promisc_mode {
            return Err(invalid("promiscMode", "cannot be set together with hairpinMode"));
        }
        if config.mtu != 0 && !(SMALLEST_MTU..=LARGEST_MTU).contains(&config.mtu) {
            return Err(invalid(
                "mtu",
                format_args!("{} is not between {SMALLEST_MTU} and {LARGEST_MTU}", config.mtu),
            ));
        }
        Ok(Self {
            bridge,
            gateway: config.is_gateway || config.is_default_gateway,
            default_gateway: config.is_default_gateway,
            force_address: config.force_address,
            masquerade: config.ip_masq,
            mtu: Some(config.mtu).filter(|mtu| *mtu != 0),
            hairpin: config.hairpin_mode,
            promiscuous: config.promisc_mode,
            detect_duplicates: config.enabledad,
            isolated: config.port_isolation,
            mac: wanted_mac(request)?,
        })
    }
}

fn refuse_unsupported(config: &Config) -> Outcome<()> {
    let refused = [
        (config.vlan != 0, "vlan", "VLANs are not supported yet"),
        (
            !config.vlan_trunk.is_empty(),
            "vlanTrunk",
            "VLANs are not supported yet",
        ),
        (
            config.macspoofchk,
            "macspoofchk",
            "the MAC spoofing check is not supported yet",
        ),
        (
            config.disable_container_interface,
            "disableContainerInterface",
            "an interface that stays down is not supported yet",
        ),
    ];
    if let Some((_, key, why)) = refused.into_iter().find(|(set, _, _)| *set) {
        return Err(unsupported(key, why));
    }
    match config.ip_masq_backend.as_deref() {
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

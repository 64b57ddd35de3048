//! What a request asks for, checked: nothing is touched before all of it has been read.

use crate::attach::mac;
use crate::failure::{Outcome, invalid, unsupported};
use crate::host_local;
use crate::ipam::Ipam;
use crate::owner::Owner;
use coracle_cni_protocol::caller::NETNS_GOES_AWAY;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Dns, identifier};
use coracle_linux::netlink::route::link::Mac;
use ipnet::IpNet;
use serde_json::Value;

const DEFAULT_BRIDGE: &str = "cni0";
/// The smallest packet IPv4 hosts must take; the kernel's own lower bound for veth.
const SMALLEST_MTU: u32 = 68;
const LARGEST_MTU: u32 = 65535;

/// What ADD makes and CHECK looks for.
#[derive(Debug)]
pub(super) struct Plan {
    /// The attachment.
    pub(super) owner: Owner,
    /// Path of the container's network namespace; empty for STATUS.
    pub(super) netns: String,
    /// The result of the plugins before, or on CHECK of ADD.
    pub(super) prev: Option<CniResult>,
    /// Who gives addresses, and which.
    pub(super) ipam: Ipam<host_local::Plan>,
    /// Name servers that are told in place of the address manager's.
    pub(super) dns: Option<Dns>,
    /// The bridge.
    pub(super) bridge: Bridge,
    /// The container's default route leads to the bridge.
    pub(super) default_gateway: bool,
    /// Packets that leave the subnet get the host's address.
    pub(super) masquerade: bool,
    /// IPv6 addresses are checked for duplicates.
    pub(super) detect_duplicates: bool,
    /// MAC address somebody wants for the container.
    pub(super) mac: Option<Mac>,
    /// How the host end joins the bridge.
    pub(super) port: Port,
}

/// The bridge as the configuration wants it.
#[derive(Debug)]
pub(super) struct Bridge {
    /// Its name.
    pub(super) name: String,
    /// It gets the gateway's address.
    pub(super) gateway: bool,
    /// Another address of it gives way.
    pub(super) force_address: bool,
    /// It receives all packets.
    pub(super) promiscuous: bool,
    /// MTU of bridge and veth; the kernel's default without.
    pub(super) mtu: Option<u32>,
}

/// The host end as a port of the bridge.
#[derive(Debug)]
pub(super) struct Port {
    /// The bridge sends packets back to the port they came from.
    pub(super) hairpin: bool,
    /// It does not reach other isolated ports.
    pub(super) isolated: bool,
}

impl Plan {
    /// Reads and checks the whole request.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        refuse_unsupported(request)?;
        let bridge = Bridge::of(request)?;
        let port = Port {
            hairpin: flag(request, "hairpinMode")?,
            isolated: flag(request, "portIsolation")?,
        };
        if port.hairpin && bridge.promiscuous {
            return Err(invalid("promiscMode", "cannot be set together with hairpinMode"));
        }
        let dns: Option<Dns> = request.config.get("dns")?;
        Ok(Self {
            owner: Owner::of(request),
            netns: request.netns.clone(),
            default_gateway: flag(request, "isDefaultGateway")?,
            masquerade: flag(request, "ipMasq")?,
            detect_duplicates: flag(request, "enabledad")?,
            mac: mac::wanted(request)?,
            prev: request.config.prev_result()?,
            dns: dns.filter(|dns| !dns.is_empty()),
            ipam: Ipam::of(request)?,
            bridge,
            port,
        })
    }

    /// Whether the container's interface comes up as a port of the bridge: so that others hear its search for
    /// duplicates, its questions for an address, and that an address now is at a MAC address that does not follow from
    /// it.
    pub(super) fn is_announced(&self) -> bool {
        self.detect_duplicates || self.mac.is_some() || self.ipam.asks_through_interface()
    }
}

impl Bridge {
    fn of(request: &Request) -> Outcome<Self> {
        let named: String = request.config.get("bridge")?.unwrap_or_default();
        let name = if named.is_empty() {
            DEFAULT_BRIDGE.to_owned()
        } else {
            named
        };
        identifier::check_interface(&name).map_err(|error| invalid("bridge", error))?;
        let mtu: u32 = request.config.get("mtu")?.unwrap_or_default();
        if mtu != 0 && !(SMALLEST_MTU..=LARGEST_MTU).contains(&mtu) {
            return Err(invalid(
                "mtu",
                format_args!("{mtu} is not between {SMALLEST_MTU} and {LARGEST_MTU}"),
            ));
        }
        Ok(Self {
            name,
            gateway: flag(request, "isGateway")? || flag(request, "isDefaultGateway")?,
            force_address: flag(request, "forceAddress")?,
            promiscuous: flag(request, "promiscMode")?,
            mtu: Some(mtu).filter(|mtu| *mtu != 0),
        })
    }
}

fn flag(request: &Request, key: &str) -> Outcome<bool> {
    Ok(request.config.get(key)?.unwrap_or_default())
}

/// What DEL looks for. What ADD refuses must not stop DEL, least of all one that takes back a refused ADD: only what is
/// needed to find things is read, and what cannot be read is looked for.
pub(super) struct Removal {
    /// The attachment.
    pub(super) owner: Owner,
    /// Addresses it had, as far as the caller says; a result that cannot be read is as good as none.
    pub(super) addresses: Vec<IpNet>,
    /// Who frees its addresses.
    pub(super) ipam: Outcome<Ipam<host_local::Place>>,
    /// The caller removes the namespace right after, and the veth with it.
    pub(super) netns_goes_away: bool,
}

impl Removal {
    /// Reads what there is.
    pub(super) fn of(request: &Request) -> Self {
        let prev = request.config.prev_result().ok().flatten().unwrap_or_default();
        Self {
            owner: Owner::of(request),
            addresses: prev.ips.iter().map(|ip| ip.address).collect(),
            ipam: Ipam::place(request),
            netns_goes_away: request.environment.text(NETNS_GOES_AWAY) == "1",
        }
    }
}

/// What GC keeps.
pub(super) struct Collection {
    /// The network.
    pub(super) network: String,
    /// The attachments that stay.
    pub(super) keep: Vec<Owner>,
    /// Who frees addresses.
    pub(super) ipam: Outcome<Ipam<host_local::Place>>,
}

impl Collection {
    /// Reads the valid attachments; none when the caller did not say which are.
    pub(super) fn of(request: &Request) -> Outcome<Option<Self>> {
        let Some(keep) = Owner::kept(request)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            network: request.network.clone(),
            keep,
            ipam: Ipam::place(request),
        }))
    }
}

fn refuse_unsupported(request: &Request) -> Outcome<()> {
    let config = &request.config;
    let vlan = config.get("vlan")?.is_some_and(|id: u32| id != 0);
    let trunk: Option<Vec<Value>> = config.get("vlanTrunk")?;
    let no_vlan = "VLANs are not supported yet";
    let refused = [
        (vlan, "vlan", no_vlan),
        (trunk.is_some_and(|list| !list.is_empty()), "vlanTrunk", no_vlan),
        (
            flag(request, "macspoofchk")?,
            "macspoofchk",
            "the MAC spoofing check is not supported yet",
        ),
        (
            flag(request, "disableContainerInterface")?,
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

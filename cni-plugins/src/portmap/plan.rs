//! What the configuration asks for, checked: which host ports lead to which addresses of the container.

use crate::failure::{Outcome, invalid, unsupported};
use crate::owner::Owner;
use crate::rules::layout::{self, NetworkChain};
use crate::rules::{Entry, Key, WhenTaken};
use coracle_cni_protocol::CniResult;
use coracle_cni_protocol::plugin::Request;
use coracle_linux::netlink::nftables::{Data, Element};
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortMapping {
    #[serde(default)]
    host_port: i64,
    #[serde(default)]
    container_port: i64,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Stream.
    Tcp = 6,
    /// Datagrams.
    Udp = 17,
    /// Congestion-controlled datagrams.
    Dccp = 33,
    /// Messages.
    Sctp = 132,
}

/// One checked mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Port of the host.
    pub(super) host_port: u16,
    /// Port of the container.
    pub(super) container_port: u16,
    /// Protocol of both.
    pub(super) protocol: Protocol,
    /// Address of the host; all without.
    pub(super) host_address: Option<IpAddr>,
    /// Only for this family (from an unspecified address).
    pub(super) only_v6: Option<bool>,
}

/// Whose packets get another source on their way to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Nobody's.
    Keep,
    /// Those whose answers would not come back: from localhost and from where they are sent back to.
    Local,
    /// All.
    All,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The mappings.
    pub(super) mappings: Vec<Mapping>,
    /// Translation of sources.
    pub(super) source: Source,
}

impl Plan {
    /// Reads and checks the configuration.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        refuse_unsupported(request)?;
        let snat = request.config.get("snat")?.unwrap_or(true);
        let all = request.config.get("masqAll")?.unwrap_or_default();
        let source = match (snat, all) {
            (true, true) => Source::All,
            (true, false) => Source::Local,
            (false, _) => Source::Keep,
        };
        let given: Vec<PortMapping> = request
            .config
            .get_in("runtimeConfig", "portMappings")?
            .unwrap_or_default();
        let mut mappings: Vec<_> = given
            .iter()
            .enumerate()
            .map(|(at, one)| mapping(at, one))
            .collect::<Outcome<_>>()?;
        for (at, one) in mappings.iter().enumerate() {
            let same = |other: &Mapping| {
                (one.host_port, one.protocol, one.host_address)
                    == (other.host_port, other.protocol, other.host_address)
                    && (one.only_v6 == other.only_v6)
                    && (one.container_port != other.container_port)
            };
            if mappings.iter().take(at).any(same) {
                let key = format!("runtimeConfig.portMappings[{at}]");
                return Err(invalid(
                    &key,
                    format_args!("host port {} is mapped twice", one.text()),
                ));
            }
        }
        let mut seen = Vec::new();
        mappings.retain(|one| {
            let new = !seen.contains(one);
            if new {
                seen.push(one.clone());
            }
            new
        });
        Ok(Self { mappings, source })
    }

    /// The elements for the container's addresses, at most one of each family.
    pub(super) fn entries(&self, network: &str, owner: &Owner, addresses: &[IpNet]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for subnet in addresses {
            let address = &subnet.addr();
            for mapping in self.mappings.iter().filter(|mapping| mapping.fits(*address)) {
                let (set, key) = mapping.place(*address);
                let mut data = octets(*address);
                data.extend_from_slice(&padded_port(mapping.container_port));
                let element = Element {
                    key,
                    data: Data::Value(data),
                    comment: owner.comment(),
                };
                entries.push(Entry {
                    set,
                    element,
                    when_taken: WhenTaken::Refuse(format!("host port {}", mapping.text())),
                });
            }
            let (set, key) = self.published_place(network, *subnet);
            let element = Element {
                key,
                data: Data::None,
                comment: owner.comment(),
            };
            entries.push(Entry {
                set,
                element,
                when_taken: WhenTaken::Replace,
            });
        }
        entries
    }
}

impl Plan {
    /// Where the element of a container's address with published ports is.
    pub(super) fn published_place(&self, network: &str, subnet: IpNet) -> Key {
        let family = usize::from(subnet.addr().is_ipv6());
        let set = match self.source {
            Source::Keep => layout::PUBLISHED_KEEP[family].to_owned(),
            Source::Local => NetworkChain::Published(subnet).name(network),
            Source::All => layout::PUBLISHED_ALL[family].to_owned(),
        };
        (set, octets(subnet.addr()))
    }
}

impl Mapping {
    /// Whether the mapping is for this family.
    pub(super) fn fits(&self, address: IpAddr) -> bool {
        let v6 = self
            .host_address
            .map_or(self.only_v6, |host| Some(host.is_ipv6()));
        v6.is_none_or(|v6| v6 == address.is_ipv6())
    }

    /// Set and key of the mapping in a family.
    pub(super) fn place(&self, address: IpAddr) -> Key {
        let family = usize::from(address.is_ipv6());
        let mut key = self.host_address.map(octets).unwrap_or_default();
        key.extend_from_slice(&[self.protocol as u8, 0, 0, 0]);
        key.extend_from_slice(&padded_port(self.host_port));
        let sets = if self.host_address.is_some() {
            layout::PORTS_AT
        } else {
            layout::PORTS
        };
        (sets[family].to_owned(), key)
    }

    /// For messages.
    pub(super) fn text(&self) -> String {
        let protocol = format!("{:?}", self.protocol).to_lowercase();
        match self.host_address {
            Some(address) => format!("{address} {}/{protocol}", self.host_port),
            None => format!("{}/{protocol}", self.host_port),
        }
    }
}

/// The container's first address of each family on the interface the request is about.
pub(super) fn addresses(request: &Request, prev: &CniResult) -> Vec<IpNet> {
    let own = |at: Option<i64>| {
        let interface = at
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| prev.interfaces.get(at));
        interface.is_none_or(|one| one.name == request.ifname && !one.sandbox.is_empty())
    };
    let mine = || {
        prev.ips
            .iter()
            .filter(|ip| own(ip.interface))
            .map(|ip| ip.address)
    };
    let first = |v6: bool| mine().find(|address| address.addr().is_ipv6() == v6);
    first(false).into_iter().chain(first(true)).collect()
}

fn refuse_unsupported(request: &Request) -> Outcome<()> {
    for key in ["conditionsV4", "conditionsV6"] {
        if request
            .config
            .get(key)?
            .is_some_and(|list: Vec<String>| !list.is_empty())
        {
            return Err(unsupported(key, "conditions are not supported"));
        }
    }
    let chain: String = request.config.get("externalSetMarkChain")?.unwrap_or_default();
    if !chain.is_empty() {
        return Err(unsupported(
            "externalSetMarkChain",
            "there is no iptables chain to call: rules are nf_tables",
        ));
    }
    // Ours needs no mark, so there is none to choose; what upstream refuses is still wrong.
    let bit: i64 = request.config.get("markMasqBit")?.unwrap_or_default();
    if !(0..=31).contains(&bit) {
        return Err(invalid(
            "markMasqBit",
            format_args!("{bit} is not between 0 and 31"),
        ));
    }
    match request.config.get::<String>("backend")?.as_deref() {
        None | Some("" | "nftables" | "iptables") => Ok(()),
        Some(other) => Err(invalid(
            "backend",
            format_args!("{other:?} is neither nftables nor iptables"),
        )),
    }
}

fn mapping(at: usize, given: &PortMapping) -> Outcome<Mapping> {
    let key = |field: &str| format!("runtimeConfig.portMappings[{at}].{field}");
    let port = |field: &str, value: i64| {
        let port = u16::try_from(value).ok().filter(|port| *port != 0);
        port.ok_or_else(|| invalid(&key(field), format_args!("{value} is not between 1 and 65535")))
    };
    let protocol = match given.protocol.to_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "dccp" => Protocol::Dccp,
        other => return Err(invalid(&key("protocol"), format_args!("{other:?} is unknown"))),
    };
    let address = match given.host_ip.as_str() {
        "" => None,
        text => {
            let parsed = text.parse::<IpAddr>();
            Some(parsed.map_err(|_| invalid(&key("hostIP"), format_args!("{text:?} is no IP address")))?)
        }
    };
    Ok(Mapping {
        host_port: port("hostPort", given.host_port)?,
        container_port: port("containerPort", given.container_port)?,
        protocol,
        only_v6: address
            .filter(IpAddr::is_unspecified)
            .map(|address| address.is_ipv6()),
        host_address: address.filter(|address| !address.is_unspecified()),
    })
}

fn padded_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

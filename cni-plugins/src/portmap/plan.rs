//! What the configuration asks for, checked: which host ports lead to which addresses of the container.

use super::PortmapError;
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

/// What ADD makes and CHECK looks for.
#[derive(Debug)]
pub(super) struct Plan {
    /// The attachment.
    pub(super) owner: Owner,
    /// The mappings.
    pub(super) mappings: Vec<Mapping>,
    /// Translation of sources.
    pub(super) source: Source,
    /// The result of the plugins before.
    pub(super) prev: CniResult,
    /// The container's addresses that ports lead to, at most one of each family.
    pub(super) addresses: Vec<IpNet>,
}

impl Plan {
    /// Reads and checks the whole request.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        let (source, mappings) = check(request)?;
        let prev = request.config.prev_result()?.ok_or(PortmapError::NotChained)?;
        Ok(Self {
            owner: Owner::of(request),
            mappings,
            source,
            addresses: addresses(request, &prev),
            prev,
        })
    }

    /// The elements for the container's addresses.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for subnet in &self.addresses {
            let address = subnet.addr();
            for mapping in self.mappings.iter().filter(|mapping| mapping.fits(address)) {
                let mut data = octets(address);
                data.extend_from_slice(&padded_port(mapping.container_port));
                let taken = WhenTaken::Refuse(format!("host port {}", mapping.text()));
                entries.push(self.entry(mapping.place(address), Data::Value(data), taken));
            }
            let place = published_place(self.source, self.owner.network(), *subnet);
            entries.push(self.entry(place, Data::None, WhenTaken::Replace));
        }
        entries
    }

    fn entry(&self, (set, key): Key, data: Data, when_taken: WhenTaken) -> Entry {
        let element = Element {
            key,
            data,
            comment: self.owner.comment(),
        };
        Entry {
            set,
            element,
            when_taken,
        }
    }
}

/// What DEL looks for. What ADD refuses must not stop it: callers that stop at a DEL that fails would leave the rest of
/// the chain.
pub(super) struct Removal {
    /// The attachment.
    pub(super) owner: Owner,
    /// The mappings; none when they cannot be read.
    pub(super) mappings: Option<Vec<Mapping>>,
    /// The container's addresses, as far as the caller says; a result that cannot be read is as good as none.
    pub(super) addresses: Vec<IpNet>,
}

impl Removal {
    /// Reads what there is.
    pub(super) fn of(request: &Request) -> Self {
        let prev = request.config.prev_result().ok().flatten().unwrap_or_default();
        Self {
            owner: Owner::of(request),
            mappings: check(request).ok().map(|(_, mappings)| mappings),
            addresses: addresses(request, &prev),
        }
    }

    /// Where the elements of the container's addresses may be: the translation of sources may have been another one
    /// when they were made.
    pub(super) fn published_places(&self) -> Vec<Key> {
        let sources = [Source::Keep, Source::Local, Source::All];
        let places =
            |subnet: &IpNet| sources.map(|source| published_place(source, self.owner.network(), *subnet));
        self.addresses.iter().flat_map(places).collect()
    }
}

/// Checks the configuration without what came before in the chain.
pub(super) fn check(request: &Request) -> Outcome<(Source, Vec<Mapping>)> {
    refuse_unsupported(request)?;
    let snat = request.config.get("snat")?.unwrap_or(true);
    let all = request.config.get("masqAll")?.unwrap_or_default();
    let source = match (snat, all) {
        (true, true) => Source::All,
        (true, false) => Source::Local,
        (false, _) => Source::Keep,
    };
    Ok((source, mappings(request)?))
}

fn mappings(request: &Request) -> Outcome<Vec<Mapping>> {
    let given: Vec<PortMapping> = request
        .config
        .get_in("runtimeConfig", "portMappings")?
        .unwrap_or_default();
    let mut mappings: Vec<Mapping> = Vec::new();
    for (at, one) in given.iter().enumerate() {
        let one = mapping(at, one)?;
        if mappings.contains(&one) {
            continue;
        }
        if mappings.iter().any(|other| one.same_host_port(other)) {
            let key = format!("runtimeConfig.portMappings[{at}]");
            let why = format!("host port {} is mapped twice", one.text());
            return Err(invalid(&key, why));
        }
        mappings.push(one);
    }
    Ok(mappings)
}

/// Where the elements of these ports are.
pub(super) fn port_places(mappings: &[Mapping], addresses: &[IpNet]) -> Vec<Key> {
    let of = |address: &IpNet| {
        let address = address.addr();
        let fitting = mappings.iter().filter(move |one| one.fits(address));
        fitting.map(move |one| one.place(address))
    };
    addresses.iter().flat_map(of).collect()
}

/// Where the element of a container's address with published ports is.
fn published_place(source: Source, network: &str, subnet: IpNet) -> Key {
    let family = usize::from(subnet.addr().is_ipv6());
    let set = match source {
        Source::Keep => layout::PUBLISHED_KEEP[family].to_owned(),
        Source::Local => NetworkChain::Published(subnet).name(network),
        Source::All => layout::PUBLISHED_ALL[family].to_owned(),
    };
    (set, octets(subnet.addr()))
}

impl Mapping {
    fn same_host_port(&self, other: &Self) -> bool {
        (self.host_port, self.protocol, self.host_address, self.only_v6)
            == (other.host_port, other.protocol, other.host_address, other.only_v6)
    }

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
fn addresses(request: &Request, prev: &CniResult) -> Vec<IpNet> {
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
            "rules are nf_tables, they cannot call an iptables chain",
        ));
    }
    // Our rules need no mark, so the bit is not used; but what upstream refuses is wrong here too.
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
            Some(parsed.map_err(|_| invalid(&key("hostIP"), format_args!("{text:?} is not an IP address")))?)
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

//! The one table: `inet coracle`. Its rules are fixed; attachments only add elements to sets and maps.
//!
//! ```text
//!  prerouting, raw      guard        packets from outside to or from 127.0.0.0/8 are dropped (before conntrack, so that
//!                                    answers to masqueraded localhost connections, which still have a host address, pass)
//!  prerouting, dstnat   prerouting   to an address of this host -> published_ports
//!  output, dstnat       output       the same for this host's own connections
//!                       published_ports   map (address . protocol . port | protocol . port) -> pod address . port
//!  forward, filter      forward      between bridges that are closed to each other: drop
//!  postrouting, srcnat  postrouting  published connections of pods whose sources are all translated
//!                       published_X  for a network X: published connections from localhost and from its own subnet
//!                       masquerade_X for a network X: what its pods send out of their subnet
//! ```
//!
//! A network's chain means the pods in the set of its name. (One map from pods to chains would do too, but each time an
//! element that names a chain is added the kernel looks through all of them for loops.)
//!
//! The cost of an ADD, and of a packet, is the same with one pod or a thousand.

use coracle_linux::netlink::Message;
use coracle_linux::netlink::nftables::{
    BaseChain, ChainKind, CtKey, Expressions, Hook, MetaKey, Register, Set, SetKind, Verdict, add_chain,
    add_rule, add_set, add_table,
};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The table.
pub(crate) const TABLE: &str = "coracle";

/// How the sets of pods whose packets are masqueraded begin: one for each network and subnet.
pub(crate) const MASQUERADE: &str = "masquerade_";
/// Protocol and port on any address of the host to pod address and port.
pub(crate) const PORTS: [&str; 2] = ["ports4", "ports6"];
/// The same on one address of the host.
pub(crate) const PORTS_AT: [&str; 2] = ["ports4_at", "ports6_at"];
/// How the sets of pods with published ports begin: one for each network and subnet, and those below.
pub(crate) const PUBLISHED: &str = "published_";
/// Pods whose published connections keep their sources.
pub(crate) const PUBLISHED_KEEP: [&str; 2] = ["published_keep4", "published_keep6"];
/// Pods whose published connections all get a source of the host.
pub(crate) const PUBLISHED_ALL: [&str; 2] = ["published_all4", "published_all6"];
/// Bridges whose pods other such bridges' pods do not reach.
pub(crate) const CLOSED: &str = "closed_bridges";
/// Pairs of one bridge with itself, within which pods reach each other.
pub(crate) const WITHIN: &str = "within_bridge";

const PUBLISHED_PORTS: &str = "published_ports";
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
/// Before masquerading: a pod's connection to a published port is translated for another reason.
const PUBLISHED_SRCNAT: i32 = 99;

// Data types as nft numbers them (its include/datatype.h); a concatenation has six bits for each part.
const IPV4_ADDR: u32 = 7;
const IPV6_ADDR: u32 = 8;
const INET_PROTO: u32 = 12;
const INET_SERVICE: u32 = 13;
const IFNAME: u32 = 41;
const IFNAME_BYTES: u32 = 16;

const CT_STATE_ESTABLISHED_OR_RELATED: u32 = 2 | 4;
const CT_STATUS_DNAT: u32 = 32;
const LOOPBACK4: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
const MULTICAST4: (IpAddr, u8) = (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4);
const MULTICAST6: (IpAddr, u8) = (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8);

/// Makes the table with everything that is always in it.
pub(super) fn table() -> Vec<Message> {
    let mut all = vec![add_table(TABLE, "Coracle CNI, layout 1")];
    for (id, set) in sets().iter().enumerate() {
        all.push(add_set(TABLE, set, u32::try_from(id + 1).unwrap_or(0)));
    }
    for (name, base) in chains() {
        all.push(add_chain(TABLE, name, base, ""));
    }
    all.extend(
        rules()
            .into_iter()
            .map(|(chain, rule)| add_rule(TABLE, chain, rule, "")),
    );
    all
}

/// A base chain of a network, made with the network's first pod. Its comment begins with the network's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkChain {
    /// Translates the source of what leaves this subnet, but for multicast.
    Masquerade(IpNet),
    /// Translates the source of published connections whose answers would not come back by themselves: those from
    /// localhost, and those from the subnet itself, whose members answer each other directly.
    Published(IpNet),
}

impl NetworkChain {
    /// The chain's name, which is its set's name too.
    pub(crate) fn name(self, network: &str) -> String {
        let (kind, subnet) = match self {
            Self::Masquerade(subnet) => (MASQUERADE, subnet),
            Self::Published(subnet) => (PUBLISHED, subnet),
        };
        format!(
            "{kind}{:016x}",
            crate::owner::hash(format!("{network}/{}", subnet.trunc()).as_bytes())
        )
    }

    /// Makes the chain and its set.
    pub(super) fn messages(self, network: &str) -> Vec<Message> {
        let name = self.name(network);
        let (subnet, priority, rules) = match self {
            Self::Masquerade(subnet) => (subnet, SRCNAT, masquerade_rules(subnet, &name)),
            Self::Published(subnet) => (subnet, PUBLISHED_SRCNAT, published_rules(subnet, &name)),
        };
        let base = BaseChain {
            kind: ChainKind::Nat,
            hook: Hook::Postrouting,
            priority,
        };
        let comment = format!("{network}/{}", subnet.trunc());
        let mut all = vec![
            add_set(TABLE, &addresses(&name, subnet.addr().is_ipv6()), 1),
            add_chain(TABLE, &name, Some(base), &comment),
        ];
        all.extend(rules.into_iter().map(|rule| add_rule(TABLE, &name, rule, "")));
        all
    }
}

fn masquerade_rules(subnet: IpNet, set: &str) -> Vec<Expressions> {
    let v6 = subnet.addr().is_ipv6();
    let multicast = if v6 { MULTICAST6 } else { MULTICAST4 };
    let from_pod = Expressions::new()
        .same_family(v6)
        .source(v6, Register(0))
        .in_set(set, Register(0));
    let out = from_pod.destination(v6, Register(0));
    let out = out.in_network(Register(0), subnet.network(), subnet.prefix_len(), false);
    let out = out
        .destination(v6, Register(0))
        .in_network(Register(0), multicast.0, multicast.1, false);
    vec![out.masquerade()]
}

fn published_rules(subnet: IpNet, set: &str) -> Vec<Expressions> {
    let v6 = subnet.addr().is_ipv6();
    let from = |(network, prefix)| {
        let from = published(v6, set).source(v6, Register(0));
        from.in_network(Register(0), network, prefix, true).masquerade()
    };
    // Ports are not published on the localhost of IPv6.
    let localhost = Some(LOOPBACK4).filter(|_| !v6).map(from);
    localhost
        .into_iter()
        .chain([from((subnet.network(), subnet.prefix_len()))])
        .collect()
}

/// A connection that came in through a published port of a pod in this set.
fn published(v6: bool, set: &str) -> Expressions {
    let translated = Expressions::new()
        .ct(CtKey::Status, Register(0))
        .any_bit(Register(0), CT_STATUS_DNAT);
    translated
        .same_family(v6)
        .destination(v6, Register(0))
        .in_set(set, Register(0))
}

/// A set of addresses.
fn addresses(name: &str, v6: bool) -> Set<'_> {
    let (key_type, key_bytes) = if v6 { (IPV6_ADDR, 16) } else { (IPV4_ADDR, 4) };
    Set {
        name,
        key_type,
        key_bytes,
        kind: SetKind::Set,
        host_order: false,
    }
}

/// An interface name as a key.
pub(crate) fn interface_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

fn sets() -> [Set<'static>; 10] {
    let pair = |a: u32, b: u32| a << 6 | b;
    let address = [(IPV4_ADDR, 4), (IPV6_ADDR, 16)];
    let map = |name, (kind, bytes): (u32, u32), at| Set {
        name,
        key_type: if at {
            pair(pair(kind, INET_PROTO), INET_SERVICE)
        } else {
            pair(INET_PROTO, INET_SERVICE)
        },
        key_bytes: if at { bytes + 8 } else { 8 },
        kind: SetKind::Map {
            data_type: pair(kind, INET_SERVICE),
            data_bytes: bytes + 4,
        },
        host_order: false,
    };
    let names = |name| Set {
        name,
        key_type: pair(IFNAME, IFNAME),
        key_bytes: 2 * IFNAME_BYTES,
        kind: SetKind::Set,
        host_order: false,
    };
    [
        map(PORTS[0], address[0], false),
        map(PORTS[1], address[1], false),
        map(PORTS_AT[0], address[0], true),
        map(PORTS_AT[1], address[1], true),
        addresses(PUBLISHED_KEEP[0], false),
        addresses(PUBLISHED_KEEP[1], true),
        addresses(PUBLISHED_ALL[0], false),
        addresses(PUBLISHED_ALL[1], true),
        Set {
            name: CLOSED,
            key_type: IFNAME,
            key_bytes: IFNAME_BYTES,
            kind: SetKind::Set,
            host_order: true,
        },
        names(WITHIN),
    ]
}

fn chains() -> Vec<(&'static str, Option<BaseChain>)> {
    let base = |kind, hook, priority| Some(BaseChain { kind, hook, priority });
    vec![
        (PUBLISHED_PORTS, None),
        ("guard", base(ChainKind::Filter, Hook::Prerouting, RAW)),
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, DSTNAT)),
        ("output", base(ChainKind::Nat, Hook::Output, DSTNAT)),
        ("forward", base(ChainKind::Filter, Hook::Forward, FILTER)),
        (
            "postrouting",
            base(ChainKind::Nat, Hook::Postrouting, PUBLISHED_SRCNAT),
        ),
    ]
}

fn rules() -> Vec<(&'static str, Expressions)> {
    let mut all = guard_rules();
    let to_ports = || {
        Expressions::new()
            .destination_is_local()
            .verdict(Verdict::Jump(PUBLISHED_PORTS.to_owned()))
    };
    all.push(("prerouting", to_ports()));
    all.push(("output", to_ports()));
    all.extend(port_rules());
    all.extend(forward_rules());
    for v6 in [false, true] {
        all.push((
            "postrouting",
            published(v6, PUBLISHED_ALL[usize::from(v6)]).masquerade(),
        ));
    }
    all
}

/// With `route_localnet` on a bridge its pods could reach what listens on 127.0.0.1 only (CVE-2020-8558).
fn guard_rules() -> Vec<(&'static str, Expressions)> {
    let from_outside = || {
        Expressions::new()
            .meta(MetaKey::InputName, Register(0))
            .differs(Register(0), &interface_key("lo"))
    };
    let loopback = |rule: Expressions| rule.in_network(Register(0), LOOPBACK4.0, LOOPBACK4.1, true);
    vec![
        (
            "guard",
            loopback(from_outside().same_family(false).destination(false, Register(0)))
                .verdict(Verdict::Drop),
        ),
        (
            "guard",
            loopback(from_outside().same_family(false).source(false, Register(0))).verdict(Verdict::Drop),
        ),
    ]
}

fn port_rules() -> Vec<(&'static str, Expressions)> {
    // There is no route_localnet for IPv6: a connection to ::1 cannot leave, so it is not translated.
    let localhost6 = Expressions::new()
        .same_family(true)
        .destination(true, Register(0));
    let localhost6 = localhost6
        .equals(Register(0), &Ipv6Addr::LOCALHOST.octets())
        .verdict(Verdict::Return);
    let mut all = vec![(PUBLISHED_PORTS, localhost6)];
    for v6 in [false, true] {
        let family = usize::from(v6);
        let words = if v6 { 4 } else { 1 };
        let transport = |rule: Expressions, at: u8| {
            rule.meta(MetaKey::Transport, Register(at))
                .destination_port(Register(at + 1))
        };
        let at = Expressions::new().same_family(v6).destination(v6, Register(0));
        let at = transport(at, words).map(PORTS_AT[family], Register(0), Register(0));
        all.push((PUBLISHED_PORTS, at.dnat(v6, Register(0), Register(words))));
        let any =
            transport(Expressions::new().same_family(v6), 0).map(PORTS[family], Register(0), Register(0));
        all.push((PUBLISHED_PORTS, any.dnat(v6, Register(0), Register(words))));
    }
    all
}

fn forward_rules() -> Vec<(&'static str, Expressions)> {
    let known = Expressions::new().ct(CtKey::State, Register(0));
    let known = known
        .any_bit(Register(0), CT_STATE_ESTABLISHED_OR_RELATED)
        .verdict(Verdict::Accept);
    let between = Expressions::new()
        .meta(MetaKey::InputName, Register(0))
        .in_set(CLOSED, Register(0))
        .meta(MetaKey::OutputName, Register(0))
        .in_set(CLOSED, Register(0));
    vec![
        ("forward", known),
        (
            "forward",
            interfaces().in_set(WITHIN, Register(0)).verdict(Verdict::Accept),
        ),
        ("forward", between.verdict(Verdict::Drop)),
    ]
}

fn interfaces() -> Expressions {
    Expressions::new()
        .meta(MetaKey::InputName, Register(0))
        .meta(MetaKey::OutputName, Register(4))
}

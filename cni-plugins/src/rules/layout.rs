//! The one table: `inet coracle`. Its rules are fixed; attachments only add elements to sets and maps.
//!
//! ```text
//!  prerouting, raw      guard        packets from outside to or from 127.0.0.0/8 are dropped (before conntrack, so that
//!                                    answers to masqueraded localhost connections, which still have a host address, pass)
//!  prerouting, dstnat   prerouting   to an address of this host -> published_ports
//!  output, dstnat       output       the same for this host's own connections
//!                       published_ports   map (address . protocol . port | protocol . port) -> pod address . port
//!  forward, filter      forward      between bridges that are closed to each other: drop
//!  postrouting, srcnat  postrouting  translated connections: pod address -> published chain of its network
//!                                    everything else: pod address -> masquerade chain of its network
//! ```
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

/// Pod address to its network's masquerade chain.
pub(crate) const MASQUERADE: [&str; 2] = ["masquerade4", "masquerade6"];
/// Protocol and port on any address of the host to pod address and port.
pub(crate) const PORTS: [&str; 2] = ["ports4", "ports6"];
/// The same on one address of the host.
pub(crate) const PORTS_AT: [&str; 2] = ["ports4_at", "ports6_at"];
/// Pod addresses with published ports to how their connections' sources are translated.
pub(crate) const PUBLISHED: [&str; 2] = ["published4", "published6"];
/// Bridges whose pods other such bridges' pods do not reach.
pub(crate) const CLOSED: &str = "closed_bridges";
/// Pairs of one bridge with itself, within which pods reach each other.
pub(crate) const WITHIN: &str = "within_bridge";

/// All sets whose elements belong to attachments or networks.
pub(crate) const SETS: [&str; 10] = [
    MASQUERADE[0],
    MASQUERADE[1],
    PORTS[0],
    PORTS[1],
    PORTS_AT[0],
    PORTS_AT[1],
    PUBLISHED[0],
    PUBLISHED[1],
    CLOSED,
    WITHIN,
];

/// Source never translated.
pub(crate) const PUBLISHED_NONE: &str = "published_none";
/// Source always translated.
pub(crate) const PUBLISHED_ALL: &str = "published_all";

const PUBLISHED_PORTS: &str = "published_ports";
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

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

/// A chain of a network, made when the first element jumps to it. Its comment begins with the network's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkChain {
    /// Translates the source of what leaves this subnet, but for multicast.
    Masquerade(IpNet),
    /// Translates the source of published connections whose answers would not come back by themselves: those from
    /// localhost, and those from the subnet itself, whose members answer each other directly.
    Published(IpNet),
}

impl NetworkChain {
    /// The chain's name.
    pub(crate) fn name(self, network: &str) -> String {
        let (kind, subnet) = match self {
            Self::Masquerade(subnet) => ("masquerade", subnet),
            Self::Published(subnet) => ("published", subnet),
        };
        format!(
            "{kind}_{:016x}",
            crate::owner::hash(format!("{network}/{}", subnet.trunc()).as_bytes())
        )
    }

    /// Makes the chain.
    pub(super) fn messages(self, network: &str) -> Vec<Message> {
        let name = self.name(network);
        let (subnet, rules) = match self {
            Self::Masquerade(subnet) => (subnet, masquerade_rules(subnet)),
            Self::Published(subnet) => (subnet, published_rules(subnet)),
        };
        let mut all = vec![add_chain(
            TABLE,
            &name,
            None,
            &format!("{network}/{}", subnet.trunc()),
        )];
        all.extend(rules.into_iter().map(|rule| add_rule(TABLE, &name, rule, "")));
        all
    }
}

fn masquerade_rules(subnet: IpNet) -> Vec<Expressions> {
    let v6 = subnet.addr().is_ipv6();
    let multicast = if v6 { MULTICAST6 } else { MULTICAST4 };
    let to = || Expressions::new().destination(v6, Register(0));
    let own = to().in_network(Register(0), subnet.network(), subnet.prefix_len(), true);
    let others = to().in_network(Register(0), multicast.0, multicast.1, false);
    vec![own.verdict(Verdict::Return), others.masquerade()]
}

fn published_rules(subnet: IpNet) -> Vec<Expressions> {
    let v6 = subnet.addr().is_ipv6();
    let from = |(network, prefix)| {
        Expressions::new()
            .source(v6, Register(0))
            .in_network(Register(0), network, prefix, true)
            .masquerade()
    };
    // There is no published localhost of IPv6.
    let localhost = Some(LOOPBACK4).filter(|_| !v6).map(from);
    localhost
        .into_iter()
        .chain([from((subnet.network(), subnet.prefix_len()))])
        .collect()
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
    };
    let verdicts = |name, (key_type, key_bytes)| Set {
        name,
        key_type,
        key_bytes,
        kind: SetKind::Verdicts,
    };
    let names = |name| Set {
        name,
        key_type: pair(IFNAME, IFNAME),
        key_bytes: 2 * IFNAME_BYTES,
        kind: SetKind::Set,
    };
    [
        verdicts(MASQUERADE[0], address[0]),
        verdicts(MASQUERADE[1], address[1]),
        map(PORTS[0], address[0], false),
        map(PORTS[1], address[1], false),
        map(PORTS_AT[0], address[0], true),
        map(PORTS_AT[1], address[1], true),
        verdicts(PUBLISHED[0], address[0]),
        verdicts(PUBLISHED[1], address[1]),
        Set {
            name: CLOSED,
            key_type: IFNAME,
            key_bytes: IFNAME_BYTES,
            kind: SetKind::Set,
        },
        names(WITHIN),
    ]
}

fn chains() -> Vec<(&'static str, Option<BaseChain>)> {
    let base = |kind, hook, priority| Some(BaseChain { kind, hook, priority });
    vec![
        (PUBLISHED_PORTS, None),
        (PUBLISHED_ALL, None),
        (PUBLISHED_NONE, None),
        ("guard", base(ChainKind::Filter, Hook::Prerouting, RAW)),
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, DSTNAT)),
        ("output", base(ChainKind::Nat, Hook::Output, DSTNAT)),
        ("forward", base(ChainKind::Filter, Hook::Forward, FILTER)),
        ("postrouting", base(ChainKind::Nat, Hook::Postrouting, SRCNAT)),
    ]
}

fn rules() -> Vec<(&'static str, Expressions)> {
    let mut all = guard_rules();
    let published = || {
        Expressions::new()
            .destination_is_local()
            .verdict(Verdict::Jump(PUBLISHED_PORTS.to_owned()))
    };
    all.push(("prerouting", published()));
    all.push(("output", published()));
    all.extend(port_rules());
    all.extend(forward_rules());
    for v6 in [false, true] {
        let family = usize::from(v6);
        // First, since a pod's own connections to a published port are translated for another reason.
        let translated = Expressions::new()
            .ct(CtKey::Status, Register(0))
            .any_bit(Register(0), CT_STATUS_DNAT);
        let translated = translated.same_family(v6).destination(v6, Register(0));
        all.push((
            "postrouting",
            translated.verdict_map(PUBLISHED[family], Register(0)),
        ));
        let from_pod = Expressions::new().same_family(v6).source(v6, Register(0));
        all.push((
            "postrouting",
            from_pod.verdict_map(MASQUERADE[family], Register(0)),
        ));
    }
    all.push((PUBLISHED_ALL, Expressions::new().masquerade()));
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

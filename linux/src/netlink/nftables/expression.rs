//! What a rule does: a list of expressions that load, compare and decide.
//!
//! Values pass through registers of four bytes. [`Register`] numbers them 0 to 15; a value takes as many as it needs,
//! so that values loaded side by side form the key of a concatenation.

use super::super::Message;
use super::element::DATA_VALUE;
use std::net::IpAddr;

const LIST_ITEM: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const FIRST_REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const RTN_LOCAL: u32 = 2;

/// Number of the first four-byte register of a value, 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u8);

impl Register {
    fn wire(self) -> u32 {
        FIRST_REGISTER + u32::from(self.0)
    }
}

/// What happens to a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This table has no objection.
    Accept,
    /// It goes nowhere.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Call another chain.
    Jump(String),
}

/// Facts about a packet that are not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// Name of the interface it came in through; 16 bytes.
    InputName = 6,
    /// Name of the interface it leaves through; 16 bytes.
    OutputName = 7,
    /// IPv4 or IPv6; one byte.
    Family = 15,
    /// TCP, UDP ...; one byte.
    Transport = 16,
}

/// Facts about a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtKey {
    /// Bits: 2 established, 4 related, 8 new.
    State = 0,
    /// Bits: 32 destination was translated.
    Status = 2,
}

/// Which header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// IPv4 or IPv6.
    Network = 1,
    /// TCP, UDP ...
    Transport = 2,
}

/// The expressions of one rule, in order.
#[derive(Debug, Clone, Default)]
pub struct Expressions(Vec<(&'static str, Vec<Field>)>);

#[derive(Debug, Clone)]
enum Field {
    Number(u16, u32),
    Text(u16, String),
    Bytes(u16, Vec<u8>),
    Raw(u16, Vec<u8>),
    Verdict(u16, Verdict),
}

impl Expressions {
    /// An empty rule.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on only for packets of the address's family.
    #[must_use]
    pub fn same_family(self, v6: bool) -> Self {
        let family = if v6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
        self.meta(MetaKey::Family, Register(0))
            .equals(Register(0), &[family])
    }

    /// Loads a fact about the packet.
    #[must_use]
    pub fn meta(self, key: MetaKey, to: Register) -> Self {
        self.push(
            "meta",
            vec![Field::Number(1, to.wire()), Field::Number(2, key as u32)],
        )
    }

    /// Loads a fact about the connection.
    #[must_use]
    pub fn ct(self, key: CtKey, to: Register) -> Self {
        self.push(
            "ct",
            vec![Field::Number(1, to.wire()), Field::Number(2, key as u32)],
        )
    }

    /// Loads bytes of the packet.
    #[must_use]
    pub fn payload(self, base: Base, offset: u32, bytes: u32, to: Register) -> Self {
        let fields = [(1, to.wire()), (2, base as u32), (3, offset), (4, bytes)]
            .map(|(kind, n)| Field::Number(kind, n));
        self.push("payload", fields.to_vec())
    }

    /// Loads the source address.
    #[must_use]
    pub fn source(self, v6: bool, to: Register) -> Self {
        let (offset, bytes) = if v6 { (8, 16) } else { (12, 4) };
        self.payload(Base::Network, offset, bytes, to)
    }

    /// Loads the destination address.
    #[must_use]
    pub fn destination(self, v6: bool, to: Register) -> Self {
        let (offset, bytes) = if v6 { (24, 16) } else { (16, 4) };
        self.payload(Base::Network, offset, bytes, to)
    }

    /// Loads the destination port.
    #[must_use]
    pub fn destination_port(self, to: Register) -> Self {
        self.payload(Base::Transport, 2, 2, to)
    }

    /// Goes on only when the register holds these bytes.
    #[must_use]
    pub fn equals(self, register: Register, bytes: &[u8]) -> Self {
        self.compare(register, 0, bytes)
    }

    /// Goes on only when the register holds other bytes.
    #[must_use]
    pub fn differs(self, register: Register, bytes: &[u8]) -> Self {
        self.compare(register, 1, bytes)
    }

    /// Keeps only the bits of the mask.
    #[must_use]
    pub fn mask(self, register: Register, mask: &[u8]) -> Self {
        let fields = vec![
            Field::Number(1, register.wire()),
            Field::Number(2, register.wire()),
            Field::Number(3, u32::try_from(mask.len()).unwrap_or(0)),
            Field::Bytes(4, mask.to_vec()),
            Field::Bytes(5, vec![0; mask.len()]),
        ];
        self.push("bitwise", fields)
    }

    /// Keeps only the network part of an address of the given family and compares it.
    #[must_use]
    pub fn in_network(self, register: Register, network: IpAddr, prefix: u8, inside: bool) -> Self {
        let bytes = match network {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mask = network_mask(bytes.len(), prefix);
        let masked: Vec<u8> = bytes.iter().zip(&mask).map(|(byte, bits)| byte & bits).collect();
        self.mask(register, &mask)
            .compare(register, u32::from(!inside), &masked)
    }

    /// Goes on only when a number in the machine's byte order has one of these bits.
    #[must_use]
    pub fn any_bit(self, register: Register, bits: u32) -> Self {
        self.mask(register, &bits.to_ne_bytes())
            .differs(register, &[0; 4])
    }

    /// Counts the packets that come here.
    #[must_use]
    pub fn counter(self) -> Self {
        self.push("counter", vec![])
    }

    /// Goes on only for packets whose connection is in one of these states ([`CtKey::State`]), in the form that iptables
    /// can read: as its match `conntrack`. Refused with `ENOENT` by a kernel without `nft_compat`.
    ///
    /// Source: include/uapi/linux/netfilter/xt_conntrack.h, `struct xt_conntrack_mtinfo3`.
    #[must_use]
    pub fn iptables_state(self, states: u16) -> Self {
        const BYTES: usize = 168;
        const MATCH_FLAGS: usize = 146;
        const STATE_MASK: usize = 150;
        const MATCH_STATE: u16 = 1;
        let mut info = [0; BYTES];
        info[MATCH_FLAGS..MATCH_FLAGS + 2].copy_from_slice(&MATCH_STATE.to_ne_bytes());
        info[STATE_MASK..STATE_MASK + 2].copy_from_slice(&states.to_ne_bytes());
        let fields = vec![
            Field::Text(1, "conntrack".to_owned()),
            Field::Number(2, 3),
            Field::Raw(3, info.to_vec()),
        ];
        self.push("match", fields)
    }

    /// Goes on only when the set has the key that begins at `key`.
    #[must_use]
    pub fn in_set(self, set: &str, key: Register) -> Self {
        self.push(
            "lookup",
            vec![Field::Text(1, set.to_owned()), Field::Number(2, key.wire())],
        )
    }

    /// Goes on only when the map has the key; loads what it maps to.
    #[must_use]
    pub fn map(self, map: &str, key: Register, to: Register) -> Self {
        let fields = vec![
            Field::Text(1, map.to_owned()),
            Field::Number(2, key.wire()),
            Field::Number(3, to.wire()),
        ];
        self.push("lookup", fields)
    }

    /// Goes on only when the destination is an address of this host.
    #[must_use]
    pub fn destination_is_local(self) -> Self {
        const RESULT_ADDRTYPE: u32 = 3;
        const FLAG_DESTINATION: u32 = 2;
        let fields = vec![
            Field::Number(1, Register(0).wire()),
            Field::Number(2, RESULT_ADDRTYPE),
            Field::Number(3, FLAG_DESTINATION),
        ];
        self.push("fib", fields)
            .equals(Register(0), &RTN_LOCAL.to_ne_bytes())
    }

    /// Translates the source to the address of the outgoing interface.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.push("masq", vec![])
    }

    /// Translates the destination to an address and port in registers.
    #[must_use]
    pub fn dnat(self, v6: bool, address: Register, port: Register) -> Self {
        const DNAT: u32 = 1;
        let family = if v6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
        let fields = vec![
            Field::Number(1, DNAT),
            Field::Number(2, u32::from(family)),
            Field::Number(3, address.wire()),
            Field::Number(5, port.wire()),
        ];
        self.push("nat", fields)
    }

    /// Ends the rule with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.push(
            "immediate",
            vec![Field::Number(1, VERDICT_REGISTER), Field::Verdict(2, verdict)],
        )
    }

    fn compare(self, register: Register, operator: u32, bytes: &[u8]) -> Self {
        let fields = vec![
            Field::Number(1, register.wire()),
            Field::Number(2, operator),
            Field::Bytes(3, bytes.to_vec()),
        ];
        self.push("cmp", fields)
    }

    fn push(mut self, name: &'static str, fields: Vec<Field>) -> Self {
        self.0.push((name, fields));
        self
    }

    pub(super) fn append_to(self, mut list: Message) -> Message {
        for (name, fields) in self.0 {
            list = list.with_nested(LIST_ITEM, |item| {
                item.with_text(EXPRESSION_NAME, name)
                    .with_nested(EXPRESSION_DATA, |data| fields.iter().fold(data, with_field))
            });
        }
        list
    }
}

/// Adds a verdict attribute.
fn with_verdict(message: Message, verdict: &Verdict) -> Message {
    let (code, chain): (i32, Option<&str>) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Return => (-5, None),
    };
    message.with_nested(DATA_VERDICT, |inner| {
        let inner = inner.with(VERDICT_CODE, &code.to_be_bytes());
        match chain {
            Some(chain) => inner.with_text(VERDICT_CHAIN, chain),
            None => inner,
        }
    })
}

fn with_field(message: Message, field: &Field) -> Message {
    match field {
        Field::Number(kind, number) => message.with_be32(*kind, *number),
        Field::Text(kind, text) => message.with_text(*kind, text),
        Field::Bytes(kind, bytes) => message.with_nested(*kind, |data| data.with(DATA_VALUE, bytes)),
        Field::Raw(kind, bytes) => message.with(*kind, bytes),
        Field::Verdict(kind, verdict) => message.with_nested(*kind, |data| with_verdict(data, verdict)),
    }
}

fn network_mask(bytes: usize, prefix: u8) -> Vec<u8> {
    let ones = |index: usize| {
        let bits = usize::from(prefix).saturating_sub(index * 8).min(8);
        u8::try_from(0xff00_u32 >> bits & 0xff).unwrap_or(0)
    };
    (0..bytes).map(ones).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_prefix_many_ones() {
        assert_eq!(network_mask(4, 20), [255, 255, 240, 0]);
        assert_eq!(network_mask(4, 0), [0; 4]);
        assert_eq!(network_mask(4, 32), [255; 4]);
    }
}

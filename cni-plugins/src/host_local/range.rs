//! Ranges of addresses to give out.

use crate::failure::Coded;
use coracle_cni_protocol::Code;
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;
use std::str::FromStr;

/// A range as configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RangeConfig {
    subnet: String,
    #[serde(default)]
    range_start: Option<String>,
    #[serde(default)]
    range_end: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
}

/// A checked range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Its network.
    pub(crate) subnet: IpNet,
    /// First address to give out.
    pub(crate) start: IpAddr,
    /// Last address to give out.
    pub(crate) end: IpAddr,
    /// Way out; never given out.
    pub(crate) gateway: IpAddr,
}

/// Ranges of one family that give one address together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range>);

/// The ranges make no sense.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RangeError {
    /// Neither a network nor an address.
    #[error("{key} {value:?} is not {what}")]
    Syntax {
        /// `subnet`, `rangeStart`, `rangeEnd` or `gateway`.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        what: &'static str,
    },
    /// Not a network's address.
    #[error("subnet {subnet} has host bits set, the network address is {network}")]
    HostBits {
        /// As configured.
        subnet: IpNet,
        /// What it should be.
        network: IpAddr,
    },
    /// No room.
    #[error("subnet {0} is too small to allocate from")]
    TooSmall(IpNet),
    /// An end outside of the network.
    #[error("{key} {address} is not in subnet {subnet}")]
    Outside {
        /// `rangeStart` or `rangeEnd`.
        key: &'static str,
        /// Its value.
        address: IpAddr,
        /// The network.
        subnet: IpNet,
    },
    /// The last address comes before the first.
    #[error("rangeStart {0} comes after rangeEnd {1}")]
    Backwards(IpAddr, IpAddr),
    /// The gateway is of another family.
    #[error("gateway {0} is not of the family of subnet {1}")]
    Gateway(IpAddr, IpNet),
    /// Both families in one set.
    #[error("a range set mixes IPv4 and IPv6")]
    MixedFamilies,
    /// A set without ranges.
    #[error("a range set is empty")]
    EmptySet,
    /// Two ranges share addresses.
    #[error("range {0}-{1} overlaps with {2}-{3}")]
    Overlap(IpAddr, IpAddr, IpAddr, IpAddr),
    /// Nothing to allocate from.
    #[error("no IP ranges specified")]
    None,
}

impl Coded for RangeError {
    fn code(&self) -> Code {
        Code::INVALID_CONFIG
    }
}

impl Range {
    /// Fills in defaults: everything between network and broadcast address, gateway first.
    pub(crate) fn plan(config: &RangeConfig) -> Result<Self, RangeError> {
        let subnet: IpNet = parse("subnet", &config.subnet, "a network such as 10.1.0.0/16")?;
        if subnet.addr() != subnet.network() {
            return Err(RangeError::HostBits {
                subnet,
                network: subnet.network(),
            });
        }
        if subnet.max_prefix_len() - subnet.prefix_len() < 2 {
            return Err(RangeError::TooSmall(subnet));
        }
        let first = number(subnet.network()).saturating_add(1);
        // IPv6 has no broadcast address.
        let last = number(subnet.broadcast()) - u128::from(subnet.addr().is_ipv4());
        let default = |n| address(n, subnet.addr().is_ipv4());
        let given = |key, value: &Option<String>| {
            let text = value.as_deref().filter(|text| !text.is_empty());
            text.map(|text| parse::<IpAddr>(key, text, "an IP address"))
                .transpose()
        };
        let start = given("rangeStart", &config.range_start)?.unwrap_or_else(|| default(first));
        let end = given("rangeEnd", &config.range_end)?.unwrap_or_else(|| default(last));
        let gateway = given("gateway", &config.gateway)?.unwrap_or_else(|| default(first));
        for (key, address) in [("rangeStart", start), ("rangeEnd", end)] {
            if !subnet.contains(&address) {
                return Err(RangeError::Outside { key, address, subnet });
            }
        }
        if gateway.is_ipv4() != subnet.addr().is_ipv4() {
            return Err(RangeError::Gateway(gateway, subnet));
        }
        if number(start) > number(end) {
            return Err(RangeError::Backwards(start, end));
        }
        Ok(Self {
            subnet,
            start,
            end,
            gateway,
        })
    }

    /// Whether an address is in the range.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.start.is_ipv4()
            && (number(self.start)..=number(self.end)).contains(&number(address))
    }

    fn overlap(&self, other: &Self) -> bool {
        self.contains(other.start) || other.contains(self.start)
    }
}

impl RangeSet {
    /// Checks ranges against each other.
    pub(crate) fn plan(configs: &[RangeConfig]) -> Result<Self, RangeError> {
        let ranges: Vec<_> = configs.iter().map(Range::plan).collect::<Result<_, _>>()?;
        let first = ranges.first().ok_or(RangeError::EmptySet)?;
        if ranges
            .iter()
            .any(|range| range.start.is_ipv4() != first.start.is_ipv4())
        {
            return Err(RangeError::MixedFamilies);
        }
        for (index, range) in ranges.iter().enumerate() {
            refuse_overlap(range, ranges.get(index + 1..).unwrap_or_default())?;
        }
        Ok(Self(ranges))
    }

    /// Checks that two sets share no address.
    pub(crate) fn refuse_overlap(&self, other: &Self) -> Result<(), RangeError> {
        self.0
            .iter()
            .try_for_each(|range| refuse_overlap(range, &other.0))
    }

    /// The range an address is in.
    pub(crate) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// All addresses once, beginning after `last`, without gateways.
    pub(crate) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, Range)> {
        let at = last.and_then(|last| {
            Some((
                self.0.iter().position(|range| range.contains(last))?,
                number(last),
            ))
        });
        let index = at.map_or(0, |(index, _)| index);
        let from = |range: &Range| number(range.start);
        let current = self.0.get(index).copied();
        // None: the last address given is the last there is.
        let split = match at {
            Some((_, last)) => last.checked_add(1),
            None => current.as_ref().map(from),
        };
        let rest = current.and_then(|range| Some((range, split?, number(range.end))));
        let others = (1..self.0.len())
            .filter_map(move |step| self.0.get((index + step) % self.0.len()))
            .map(move |range| (*range, from(range), number(range.end)));
        let until = split.map_or(u128::MAX, |split| split.saturating_sub(1));
        let wrapped = current.map(|range| (range, number(range.start), until.min(number(range.end))));
        rest.into_iter()
            .chain(others)
            .chain(wrapped)
            .flat_map(|(range, start, end)| Steps { next: start, end }.map(move |n| (n, range)))
            .map(|(n, range)| (address(n, range.start.is_ipv4()), range))
            .filter(|(address, range)| *address != range.gateway)
    }

    /// For messages.
    pub(crate) fn text(&self) -> String {
        let texts: Vec<_> = self
            .0
            .iter()
            .map(|range| format!("{}-{}", range.start, range.end))
            .collect();
        texts.join(",")
    }
}

/// `start..=end` that does not mind an end before the start or at the last number.
struct Steps {
    next: u128,
    end: u128,
}

impl Iterator for Steps {
    type Item = u128;

    fn next(&mut self) -> Option<u128> {
        let now = self.next;
        if now > self.end {
            return None;
        }
        match now.checked_add(1) {
            Some(next) => self.next = next,
            None => (self.next, self.end) = (1, 0),
        }
        Some(now)
    }
}

fn refuse_overlap(range: &Range, others: &[Range]) -> Result<(), RangeError> {
    match others.iter().find(|other| range.overlap(other)) {
        Some(other) => Err(RangeError::Overlap(
            range.start,
            range.end,
            other.start,
            other.end,
        )),
        None => Ok(()),
    }
}

fn parse<T: FromStr>(key: &'static str, value: &str, what: &'static str) -> Result<T, RangeError> {
    value.parse().map_err(|_| RangeError::Syntax {
        key,
        value: value.to_owned(),
        what,
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Result<RangeSet, RangeError> {
        RangeSet::plan(&serde_json::from_str::<Vec<RangeConfig>>(text).unwrap())
    }

    fn list(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        set.after(last.map(|text| text.parse().unwrap()))
            .map(|(address, _)| address.to_string())
            .collect()
    }

    #[test]
    fn addresses_go_round_and_leave_the_gateway_out() {
        let one = set(r#"[{"subnet":"10.0.0.0/29"}]"#).unwrap();
        assert_eq!(
            list(&one, None),
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        assert_eq!(
            list(&one, Some("10.0.0.5")),
            ["10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]
        );
        assert_eq!(list(&one, Some("10.0.0.6"))[0], "10.0.0.2");
        assert_eq!(list(&one, Some("99.0.0.5"))[0], "10.0.0.2");
    }

    #[test]
    fn a_set_goes_on_into_its_next_range() {
        let two = set(r#"[{"subnet":"10.0.0.0/30","gateway":"10.0.0.2"},
                {"subnet":"10.1.0.0/24","rangeStart":"10.1.0.8","rangeEnd":"10.1.0.9"}]"#)
        .unwrap();
        assert_eq!(list(&two, Some("10.1.0.8")), ["10.1.0.9", "10.0.0.1", "10.1.0.8"]);
    }

    #[test]
    fn the_whole_ipv6_space_ends_at_its_last_address() {
        let last = set(r#"[{"subnet":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"}]"#).unwrap();
        assert_eq!(list(&last, None).len(), 2);
        assert_eq!(
            list(&last, Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")).len(),
            2
        );
    }

    #[test]
    fn senseless_ranges_are_refused() {
        let cases = [
            (r#"[{"subnet":"10.0.0"}]"#, r#"subnet "10.0.0""#),
            (r#"[{"subnet":"10.0.0.0/24","gateway":"x"}]"#, r#"gateway "x""#),
            (r#"[{"subnet":"10.0.0.1/24"}]"#, "host bits"),
            (r#"[{"subnet":"10.0.0.0/31"}]"#, "too small"),
            (r#"[{"subnet":"fd00::/127"}]"#, "too small"),
            (
                r#"[{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}]"#,
                "rangeStart",
            ),
            (r#"[{"subnet":"10.0.0.0/24","rangeEnd":"fd00::1"}]"#, "rangeEnd"),
            (
                r#"[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}]"#,
                "comes after",
            ),
            (r#"[{"subnet":"10.0.0.0/24","gateway":"fd00::1"}]"#, "gateway"),
            (r#"[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]"#, "mixes"),
            (
                r#"[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.0.0/25"}]"#,
                "overlaps",
            ),
            ("[]", "empty"),
        ];
        for (text, want) in cases {
            assert!(set(text).unwrap_err().to_string().contains(want), "{text}");
        }
    }
}

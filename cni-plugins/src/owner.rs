//! Who owns a kernel object: an attachment. Everything made for it can be found again from its name alone.

use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{ConfigError, ValidAttachment};
use coracle_linux::netlink::route::link::Mac;
use std::net::IpAddr;

/// Comments in nf_tables and aliases of links end at about 250 bytes.
const LONGEST_COMMENT: usize = 240;

/// An attachment of a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    network: String,
    container_id: String,
    ifname: String,
}

impl Owner {
    /// The attachment a request is about.
    pub(crate) fn of(request: &Request) -> Self {
        Self {
            network: request.network.clone(),
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
        }
    }

    /// The attachments that GC keeps; none when the caller did not say which.
    pub(crate) fn kept(request: &Request) -> Result<Option<Vec<Self>>, ConfigError> {
        let valid = request.config.valid_attachments()?;
        let owner = |one: ValidAttachment| Self {
            network: request.network.clone(),
            container_id: one.container_id,
            ifname: one.ifname,
        };
        Ok(valid.map(|all| all.into_iter().map(owner).collect()))
    }

    /// The network's name.
    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    /// The container's id.
    pub(crate) fn container_id(&self) -> &str {
        &self.container_id
    }

    /// Name of the interface in the container.
    pub(crate) fn ifname(&self) -> &str {
        &self.ifname
    }

    /// What stands in the comment of elements and the alias of links: `network/container/interface`, or a hash in
    /// place of the last two when that is too long.
    pub(crate) fn comment(&self) -> String {
        let text = format!("{}/{}/{}", self.network, self.container_id, self.ifname);
        if text.len() <= LONGEST_COMMENT {
            text
        } else {
            format!("{}/#{:016x}", self.network, self.hash(0))
        }
    }

    /// Name of the host end of the veth pair.
    pub(crate) fn veth(&self) -> String {
        format!("veth{:011x}", self.hash(0) & 0xfff_ffff_ffff)
    }

    /// MAC address of the host end.
    pub(crate) fn host_mac(&self) -> Mac {
        local_mac(self.hash(1))
    }

    /// MAC address of the container's end: that of its IP address, whoever has it, so that no neighbour needs to be told
    /// when the address changes hands. Without one the attachment's.
    pub(crate) fn container_mac(&self, address: Option<IpAddr>) -> Mac {
        match address {
            Some(IpAddr::V4(address)) => {
                let [a, b, c, d] = address.octets();
                Mac([0x0a, 0x58, a, b, c, d])
            }
            Some(IpAddr::V6(address)) => local_mac(hash(&address.octets())),
            None => local_mac(self.hash(2)),
        }
    }

    fn hash(&self, salt: u8) -> u64 {
        // Neither names nor ids contain a zero byte.
        let parts = [
            self.network.as_bytes(),
            &[0],
            self.container_id.as_bytes(),
            &[0],
            self.ifname.as_bytes(),
            &[salt],
        ];
        hash(parts.concat().as_slice())
    }
}

/// The network a comment belongs to.
pub(crate) fn network_of(comment: &str) -> &str {
    comment.split('/').next().unwrap_or_default()
}

/// A locally administered unicast address.
pub(crate) fn local_mac(hash: u64) -> Mac {
    let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
    Mac([a & 0xfc | 0x02, b, c, d, e, f])
}

/// FNV-1a with a final mix (the one of splitmix64), so that all bits depend on all bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (folded ^ folded >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, id: &str, ifname: &str) -> Owner {
        Owner {
            network: network.into(),
            container_id: id.into(),
            ifname: ifname.into(),
        }
    }

    #[test]
    fn names_fit_the_kernel_and_differ_by_every_part() {
        let one = owner("n", "a", "eth0");
        assert_eq!(one.veth().len(), 15);
        for other in [
            owner("m", "a", "eth0"),
            owner("n", "b", "eth0"),
            owner("n", "a", "eth1"),
            owner("na", "", "eth0"),
        ] {
            assert_ne!(one.veth(), other.veth());
        }
        assert_ne!(one.host_mac(), one.container_mac(None));
        assert_eq!(one.host_mac().0[0] & 3, 2);
    }

    #[test]
    fn a_mac_address_follows_from_the_ip_address_not_from_its_holder() {
        let (one, other) = (owner("n", "a", "eth0"), owner("n", "b", "eth0"));
        for address in ["10.7.0.2", "fd07::2"] {
            let address = Some(address.parse().unwrap());
            assert_eq!(one.container_mac(address), other.container_mac(address));
            assert_eq!(one.container_mac(address).0[0] & 3, 2);
        }
        assert_ne!(one.container_mac(None), other.container_mac(None));
    }

    #[test]
    fn a_long_name_is_shortened_but_still_names_its_network() {
        let long = owner(&"n".repeat(200), &"c".repeat(200), "eth0");
        assert!(long.comment().len() <= 250);
        assert_eq!(network_of(&long.comment()), "n".repeat(200));
        assert_eq!(network_of("net/c/eth0"), "net");
    }
}

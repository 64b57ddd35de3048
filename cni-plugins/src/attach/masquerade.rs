//! Masquerading: what the container sends out of its subnet gets an address of the host.
//!
//! One element for each address of the container, in the set of its network and subnet, with the owner in its comment:
//! it is found again by that, whatever the configuration says by then.

use crate::failure::Outcome;
use crate::owner::Owner;
use crate::rules::layout::{self, NetworkChain};
use crate::rules::{Entry, Key, Rules, WhenTaken};
use crate::undo::Undo;
use coracle_linux::netlink::nftables::{Data, Element};
use ipnet::IpNet;
use std::net::IpAddr;

const SETS: [&str; 1] = [layout::MASQUERADE];

/// Makes the elements of the container's addresses.
pub(crate) fn add<'a>(owner: &'a Owner, addresses: &[IpNet], undo: &mut Undo<'a>) -> Outcome<()> {
    let entries: Vec<_> = addresses.iter().map(|address| entry(owner, *address)).collect();
    let places = places(owner, addresses);
    undo.push("masquerading", move || {
        Rules::open()?.remove_owner(owner, &places, &SETS)?;
        Ok(())
    });
    let chains: Vec<_> = addresses.iter().copied().map(NetworkChain::Masquerade).collect();
    Ok(Rules::open()?.add(&entries, owner.network(), &chains)?)
}

/// Whether each of these addresses has its element.
pub(crate) fn is_complete(owner: &Owner, addresses: &[IpNet]) -> Outcome<bool> {
    let places = places(owner, addresses);
    Ok(Rules::open()?.owned(owner, &places)?.len() == places.len())
}

/// Deletes the owner's elements: by the addresses that are known, or, when none are, by looking through all. Gives back
/// the way to the rules, which is slow to close after a deletion; none when there was nothing to delete.
pub(crate) fn remove(owner: &Owner, known: &[IpNet]) -> Outcome<Option<Rules>> {
    let mut rules = Rules::open()?;
    let removed = rules.remove_owner(owner, &places(owner, known), &SETS)?;
    Ok(Some(rules).filter(|_| !removed.is_empty()))
}

/// Deletes the elements of all owners of the network that are not to be kept.
pub(crate) fn collect(network: &str, keep: &[Owner]) -> Outcome<()> {
    Rules::open()?.collect(network, keep, &SETS)?;
    Ok(())
}

fn entry(owner: &Owner, address: IpNet) -> Entry {
    let (set, key) = place(owner.network(), address);
    let element = Element {
        key,
        data: Data::None,
        comment: owner.comment(),
    };
    Entry {
        set,
        element,
        when_taken: WhenTaken::Replace,
    }
}

fn places(owner: &Owner, addresses: &[IpNet]) -> Vec<Key> {
    let mut places: Vec<_> = addresses
        .iter()
        .map(|address| place(owner.network(), *address))
        .collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn place(network: &str, address: IpNet) -> Key {
    let key = match address.addr() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    (NetworkChain::Masquerade(address).name(network), key)
}

//! ADD: one address from each range set, or none at all.

use super::plan::Plan;
use super::range::{Range, RangeSet};
use super::store::{Holder, Store};
use crate::failure::{Coded, Failure, Outcome};
use coracle_cni_protocol::{CniResult, Code, IpConfig};
use ipnet::IpNet;
use serde_json::Map;
use std::net::IpAddr;

/// No address could be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AllocateError {
    /// The holder has one from this set.
    #[error("{address} has been allocated to {holder}, duplicate allocation is not allowed")]
    Duplicate {
        /// What it has.
        address: IpAddr,
        /// Who.
        holder: String,
    },
    /// All are in use.
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(String),
    /// A wanted address is the gateway.
    #[error("requested ip {0} is subnet's gateway")]
    IsGateway(IpAddr),
    /// A wanted address is in use.
    #[error("requested IP address {0} is not available in range set {1}")]
    Taken(IpAddr, String),
    /// Wanted addresses that no range has.
    #[error("failed to allocate all requested IPs: {0:?}")]
    NotInRanges(Vec<IpAddr>),
}

impl Coded for AllocateError {
    fn code(&self) -> Code {
        match self {
            Self::Duplicate { .. }
            | Self::Exhausted(_)
            | Self::IsGateway(_)
            | Self::Taken(..)
            | Self::NotInRanges(_) => Code::INTERNAL,
        }
    }
}

/// Gives the attachment its addresses.
pub(crate) fn allocate(plan: &Plan) -> Outcome<CniResult> {
    let store = Store::open(&plan.place.dir)?;
    Ok(CniResult {
        ips: allocate_all(plan, &store)?,
        routes: plan.routes.clone(),
        dns: plan.dns.clone(),
        ..CniResult::default()
    })
}

fn allocate_all(plan: &Plan, store: &Store) -> Outcome<Vec<IpConfig>> {
    let holder = &plan.place.holder;
    let held = store.addresses(holder)?;
    for set in &plan.sets {
        if let Some(address) = held.iter().find(|address| set.range_of(**address).is_some()) {
            return Err(AllocateError::Duplicate {
                address: *address,
                holder: holder.to_string(),
            }
            .into());
        }
    }
    let mut wanted = plan.requested.clone();
    let mut ips = Vec::new();
    let outcome = plan.sets.iter().enumerate().try_for_each(|(index, set)| {
        let position = wanted.iter().position(|address| set.range_of(*address).is_some());
        let (address, range) = match position.map(|at| wanted.remove(at)) {
            Some(address) => reserve_wanted(store, set, address, holder)?,
            None => reserve_next(store, set, index, holder)?,
        };
        let network = IpNet::new_assert(address, range.subnet.prefix_len());
        ips.push(IpConfig {
            address: network,
            gateway: Some(range.gateway),
            interface: None,
            extra: Map::new(),
        });
        Ok(())
    });
    let outcome = outcome.and_then(|()| match wanted.is_empty() {
        true => Ok(()),
        false => Err(Failure::from(AllocateError::NotInRanges(wanted))),
    });
    if let Err(error) = outcome {
        // The holder had nothing before.
        store.release(holder)?;
        return Err(error);
    }
    Ok(ips)
}

fn reserve_wanted(
    store: &Store,
    set: &RangeSet,
    address: IpAddr,
    holder: &Holder,
) -> Outcome<(IpAddr, Range)> {
    let taken = || AllocateError::Taken(address, set.text());
    let range = *set.range_of(address).ok_or_else(taken)?;
    if range.gateway == address {
        return Err(AllocateError::IsGateway(address).into());
    }
    if store.reserve(address, holder)? {
        Ok((address, range))
    } else {
        Err(taken().into())
    }
}

fn reserve_next(store: &Store, set: &RangeSet, index: usize, holder: &Holder) -> Outcome<(IpAddr, Range)> {
    let last = store.last(index)?;
    for (address, range) in set.after(last) {
        if store.reserve(address, holder)? {
            store.set_last(index, address)?;
            return Ok((address, range));
        }
    }
    Err(AllocateError::Exhausted(set.text()).into())
}

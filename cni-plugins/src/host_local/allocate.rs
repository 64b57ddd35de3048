//! ADD: one address from each range set, or none at all.

use super::plan::Plan;
use super::range::{Range, RangeSet};
use super::store::{Holder, Store, StoreError};
use crate::failure::{Coded, Outcome};
use coracle_cni_protocol::{CniResult, Code, IpConfig};
use ipnet::IpNet;
use serde_json::Map;
use std::net::IpAddr;

/// No address could be given. In upstream's words: there are callers that look for them.
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
    #[error("failed to allocate all requested IPs: {}", .0.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))]
    NotInRanges(Vec<IpAddr>),
    /// None could be taken from one of the sets.
    #[error("failed to allocate for range {index}")]
    Set {
        /// Which one.
        index: usize,
        /// Why.
        source: Box<AllocateError>,
    },
    /// The files of the addresses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for AllocateError {
    fn code(&self) -> Code {
        match self {
            Self::Duplicate { .. }
            | Self::Exhausted(_)
            | Self::IsGateway(_)
            | Self::Taken(..)
            | Self::NotInRanges(_) => Code::INTERNAL,
            Self::Set { source, .. } => source.code(),
            Self::Store(error) => error.code(),
        }
    }
}

impl AllocateError {
    fn of_set(self, index: usize) -> Self {
        Self::Set {
            index,
            source: Box::new(self),
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

fn allocate_all(plan: &Plan, store: &Store) -> Result<Vec<IpConfig>, AllocateError> {
    let holder = &plan.place.holder;
    refuse_second(store, plan)?;
    let mut wanted = plan.requested.clone();
    let mut ips = Vec::new();
    let outcome = plan.sets.iter().enumerate().try_for_each(|(index, set)| {
        let position = wanted.iter().position(|address| set.range_of(*address).is_some());
        let reserved = match position.map(|at| wanted.remove(at)) {
            Some(address) => reserve_wanted(store, set, address, holder),
            None => reserve_next(store, set, index, holder),
        };
        let (address, range) = reserved.map_err(|error| error.of_set(index))?;
        let network = IpNet::new_assert(address, range.subnet.prefix_len());
        ips.push(IpConfig {
            address: network,
            gateway: Some(range.gateway),
            interface: None,
            extra: Map::new(),
        });
        Ok(())
    });
    let outcome = match wanted.is_empty() {
        true => outcome,
        false => outcome.and(Err(AllocateError::NotInRanges(wanted))),
    };
    if let Err(error) = outcome {
        // The holder had nothing before.
        store.release(holder)?;
        return Err(error);
    }
    Ok(ips)
}

/// Nobody gets a second address of a set.
fn refuse_second(store: &Store, plan: &Plan) -> Result<(), AllocateError> {
    let holder = &plan.place.holder;
    let held = store.addresses(holder)?;
    for (index, set) in plan.sets.iter().enumerate() {
        if let Some(address) = held.iter().find(|address| set.range_of(**address).is_some()) {
            let error = AllocateError::Duplicate {
                address: *address,
                holder: holder.to_string(),
            };
            return Err(error.of_set(index));
        }
    }
    Ok(())
}

fn reserve_wanted(
    store: &Store,
    set: &RangeSet,
    address: IpAddr,
    holder: &Holder,
) -> Result<(IpAddr, Range), AllocateError> {
    let taken = || AllocateError::Taken(address, set.text());
    let range = *set.range_of(address).ok_or_else(taken)?;
    if range.gateway == address {
        return Err(AllocateError::IsGateway(address));
    }
    if store.reserve(address, holder)? {
        Ok((address, range))
    } else {
        Err(taken())
    }
}

fn reserve_next(
    store: &Store,
    set: &RangeSet,
    index: usize,
    holder: &Holder,
) -> Result<(IpAddr, Range), AllocateError> {
    let last = store.last(index)?;
    for (address, range) in set.after(last) {
        if store.reserve(address, holder)? {
            store.set_last(index, address)?;
            return Ok((address, range));
        }
    }
    Err(AllocateError::Exhausted(set.text()))
}

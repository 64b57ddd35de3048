//! `host-local`: gives out addresses from ranges, kept in files on this host.
//!
//! Giving and freeing do not depend on how many addresses are in use: the next free one is looked for from the last
//! one on, and what a container has stands in a file of its name.

mod plan;
mod range;
mod store;

pub(crate) use plan::Plan;
pub(crate) use range::RangeError;
pub(crate) use store::{Holder, Store, StoreError};

use crate::failure::{Outcome, PluginErrorFrom};
use crate::netns;
use coracle_cni_protocol::plugin::{Plugin, Request};
use coracle_cni_protocol::{CniResult, Code, IpConfig, PluginError};
use ipnet::IpNet;
use range::{Range, RangeSet};
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

/// The plugin.
pub(crate) struct HostLocal;

impl Plugin for HostLocal {
    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        allocate(request).map_err(|error| error.0)
    }

    fn del(&self, request: &Request) -> Result<(), PluginError> {
        release(request).map(drop).map_err(|error| error.0)
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check(request).map_err(|error| error.0)
    }

    fn gc(&self, request: &Request) -> Result<(), PluginError> {
        collect(request).map_err(|error| error.0)
    }

    fn status(&self, request: &Request) -> Result<(), PluginError> {
        status(request).map_err(|error| error.0)
    }

    fn is_own_namespace(&self, _: &str) -> Result<bool, PluginError> {
        // Addresses are given for any namespace, also by tools that have none.
        Ok(false)
    }
}

/// ADD: one address from each range set.
pub(crate) fn allocate(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    let dns = plan.dns()?;
    let holder = holder(request);
    let store = Store::open(&plan.dir)?;
    match allocate_all(&plan, &store, &holder) {
        Ok(ips) => Ok(CniResult {
            ips,
            routes: plan.routes,
            dns,
            ..CniResult::default()
        }),
        Err(error) => Err(error),
    }
}

/// DEL: frees the addresses of the attachment and returns them with their networks. Only where they are kept counts:
/// ranges or wishes that ADD refuses do not stop it.
pub(crate) fn release(request: &Request) -> Outcome<Vec<IpNet>> {
    let Ok(data_dir) = plan::data_dir(request) else {
        // Such a one was refused before anything was given.
        return Ok(Vec::new());
    };
    let Some(store) = Store::open_existing(&data_dir.join(&request.network))? else {
        return Ok(Vec::new());
    };
    let sets = Plan::of(request).map(|plan| plan.sets).unwrap_or_default();
    let with_network = |address: IpAddr| {
        let range = sets.iter().find_map(|set| set.range_of(address))?;
        IpNet::new(address, range.subnet.prefix_len()).ok()
    };
    Ok(store
        .release(&holder(request))?
        .into_iter()
        .filter_map(with_network)
        .collect())
}

/// CHECK: the attachment has an address.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let held = match Store::open_existing(&plan.dir)? {
        Some(store) => store.addresses(&holder(request))?,
        None => Vec::new(),
    };
    if held.is_empty() {
        let text = format!(
            "host-local: failed to find address added by container {}",
            request.container_id
        );
        return Err(PluginError::new(Code::UNKNOWN_CONTAINER, text).into());
    }
    Ok(())
}

/// GC: frees the addresses of all attachments that are not valid.
pub(crate) fn collect(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let Some(valid) = request.config.valid_attachments()? else {
        return Ok(());
    };
    let keep: Vec<_> = valid
        .iter()
        .map(|one| Holder::new(&one.container_id, &one.ifname))
        .collect();
    if let Some(store) = Store::open_existing(&plan.dir)? {
        store.retain(|holder| keep.contains(holder))?;
    }
    Ok(())
}

/// STATUS: each range set has a free address.
pub(crate) fn status(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let Some(store) = Store::open_existing(&plan.dir)? else {
        return Ok(());
    };
    let used = store.count()?;
    for set in &plan.sets {
        // With fewer files than addresses some address is free; only a store that may be full is looked at closely.
        let mut candidates = set.after(None);
        let full = candidates.by_ref().take(used).count() == used && candidates.next().is_none();
        if full && used > 0 {
            let text = AllocateError::Exhausted(set.text()).to_string();
            return Err(PluginError::new(Code::NOT_AVAILABLE, text).into());
        }
    }
    Ok(())
}

fn holder(request: &Request) -> Holder {
    Holder::new(&request.container_id, &request.ifname)
}

fn allocate_all(plan: &Plan, store: &Store, holder: &Holder) -> Outcome<Vec<IpConfig>> {
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
            extra: serde_json::Map::new(),
        });
        Ok(())
    });
    let outcome = outcome.and_then(|()| match wanted.is_empty() {
        true => Ok(()),
        false => Err(PluginErrorFrom::from(AllocateError::NotInRanges(wanted))),
    });
    if let Err(error) = outcome {
        // All or nothing; the holder had nothing before.
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

/// For plugins that delegate: whether the path is this program's own namespace.
pub(crate) fn own_namespace(netns: &str) -> Result<bool, PluginError> {
    netns::is_own(netns).map_err(|error| PluginError::from_error(Code::INVALID_NETNS, &error))
}

//! `host-local`: gives out addresses from ranges, kept in files on this host.
//!
//! Giving and freeing do not depend on how many addresses are in use: the next free one is looked for from the last
//! one on, and what a container has stands in a file of its name.

mod allocate;
mod plan;
mod range;
mod store;

pub(crate) use allocate::allocate;
pub(crate) use plan::{Place, Plan};
pub(crate) use store::{Holder, Store, StoreError};

use crate::failure::{Coded, Outcome};
use crate::owner::Owner;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code};
use ipnet::IpNet;
use std::net::IpAddr;

/// An attachment's addresses are not as ADD left them, or none are left for the next one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostLocalError {
    /// CHECK: it has none.
    #[error("host-local: Failed to find address added by container {0}")]
    NoAddress(String),
    /// STATUS: all are in use.
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(String),
}

impl Coded for HostLocalError {
    fn code(&self) -> Code {
        match self {
            Self::NoAddress(_) => Code::UNKNOWN_CONTAINER,
            Self::Exhausted(_) => Code::NOT_AVAILABLE,
        }
    }
}

/// ADD.
pub(crate) fn add(request: &Request) -> Outcome<CniResult> {
    allocate(&Plan::of(request)?)
}

/// DEL.
pub(crate) fn del(request: &Request) -> Outcome<()> {
    match Place::of(request) {
        Some(place) => release(&place).map(drop),
        None => Ok(()),
    }
}

/// CHECK.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    find(&Plan::of(request)?.place)
}

/// GC.
pub(crate) fn gc(request: &Request) -> Outcome<()> {
    match (Place::of(request), Owner::kept(request)?) {
        (Some(place), Some(keep)) => collect(&place, &keep),
        (None, _) | (_, None) => Ok(()),
    }
}

/// STATUS.
pub(crate) fn status(request: &Request) -> Outcome<()> {
    has_room(&Plan::of(request)?)
}

/// Frees the addresses of the attachment and returns those whose networks are known.
pub(crate) fn release(place: &Place) -> Outcome<Vec<IpNet>> {
    let Some(store) = Store::open_existing(&place.dir)? else {
        return Ok(Vec::new());
    };
    let with_network = |address: IpAddr| {
        let range = place.sets.iter().find_map(|set| set.range_of(address))?;
        IpNet::new(address, range.subnet.prefix_len()).ok()
    };
    let freed = store.release(&place.holder)?;
    Ok(freed.into_iter().filter_map(with_network).collect())
}

/// Fails when the attachment has no address.
pub(crate) fn find(place: &Place) -> Outcome<()> {
    let held = match Store::open_existing(&place.dir)? {
        Some(store) => store.addresses(&place.holder)?,
        None => Vec::new(),
    };
    if held.is_empty() {
        let container = place.holder.container_id().to_owned();
        return Err(HostLocalError::NoAddress(container).into());
    }
    Ok(())
}

/// Frees the addresses of all attachments of the network that are not to be kept.
pub(crate) fn collect(place: &Place, keep: &[Owner]) -> Outcome<()> {
    let is_kept = |holder: &Holder| {
        keep.iter()
            .any(|one| holder.may_be(one.container_id(), one.ifname()))
    };
    if let Some(store) = Store::open_existing(&place.dir)? {
        store.retain(is_kept)?;
    }
    Ok(())
}

/// Fails when a range set has no free address.
pub(crate) fn has_room(plan: &Plan) -> Outcome<()> {
    let Some(store) = Store::open_existing(&plan.place.dir)? else {
        return Ok(());
    };
    let used = store.count()?;
    for set in &plan.sets {
        // With fewer files than addresses some address is free; only a store that may be full is looked at closely.
        let mut candidates = set.after(None);
        let full = candidates.by_ref().take(used).count() == used && candidates.next().is_none();
        if full && used > 0 {
            return Err(HostLocalError::Exhausted(set.text()).into());
        }
    }
    Ok(())
}

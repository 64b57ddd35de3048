//! `bridge`: a veth pair between the container and a bridge of the host.
//!
//! ```text
//!  host namespace                                            container
//!  bridge (gateway addresses) -- veth(hash of the owner) ==== CNI_IFNAME (addresses, routes)
//!  `inet coracle`: pod address -> masquerade chain of the network
//! ```
//!
//! Names follow from the attachment, so that DEL finds everything from the attachment's name alone. The container's MAC
//! address follows from its IP address: who knew the last holder of that address reaches the next one.

mod add;
mod check;
mod del;
mod gc;
mod host;
mod plan;

use crate::failure::{Coded, Outcome};
use crate::rules::Rules;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code};
use plan::{Collection, Plan, Removal};

/// An attachment could not be made or is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BridgeError {
    /// The name is taken by something else.
    #[error("{0:?} already exists but is not a bridge")]
    NotABridge(String),
    /// It was just made and is gone.
    #[error("interface {0:?} disappeared")]
    Vanished(String),
    /// The bridge has another address and `forceAddress` is not set.
    #[error("{bridge:?} already has an IP address different from {wanted}")]
    OtherAddress {
        /// The bridge.
        bridge: String,
        /// What it should have.
        wanted: ipnet::IpNet,
    },
    /// CHECK has nothing to compare with.
    #[error("prevResult is missing")]
    NoResult,
    /// CHECK: the host end left the bridge.
    #[error("{port} is not a port of {bridge}")]
    NotAPort {
        /// The host end.
        port: String,
        /// The bridge.
        bridge: String,
    },
    /// CHECK: a setting of the host end is gone.
    #[error("hairpin mode of {0} is off")]
    NoHairpin(String),
    /// CHECK: elements are gone.
    #[error("masquerading of the container's addresses is missing")]
    NotMasqueraded,
}

impl Coded for BridgeError {
    fn code(&self) -> Code {
        match self {
            Self::NoResult => Code::INVALID_CONFIG,
            Self::NotABridge(_)
            | Self::Vanished(_)
            | Self::OtherAddress { .. }
            | Self::NotAPort { .. }
            | Self::NoHairpin(_)
            | Self::NotMasqueraded => Code::INTERNAL,
        }
    }
}

/// ADD.
pub(crate) fn add(request: &Request) -> Outcome<CniResult> {
    add::add(&Plan::of(request)?)
}

/// DEL.
pub(crate) fn del(request: &Request) -> Outcome<()> {
    del::del(Removal::of(request))
}

/// CHECK.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    check::check(&Plan::of(request)?)
}

/// GC.
pub(crate) fn gc(request: &Request) -> Outcome<()> {
    Collection::of(request)?.map_or(Ok(()), gc::gc)
}

/// STATUS: the configuration is usable, the bridge's name is not taken, rules can be made and addresses can be given.
pub(crate) fn status(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    host::status(&plan)?;
    if plan.masquerade {
        Rules::open()?.usable()?;
    }
    plan.ipam.status()
}

//! What a request asks for, checked.

use super::FirewallError;
use crate::failure::{Outcome, invalid, unsupported};
use crate::owner::Owner;
use coracle_cni_protocol::CniResult;
use coracle_cni_protocol::plugin::Request;
use std::net::IpAddr;

/// The admin chain that upstream names when nothing else is said.
const UPSTREAM_ADMIN_CHAIN: &str = "CNI-ADMIN";

/// Who may reach the containers of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// All.
    Open,
    /// All but the containers of other closed bridges.
    SameBridge,
    /// Those neither, nor each other.
    Isolated,
}

impl Policy {
    /// As configurations write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::SameBridge => "same-bridge",
            Self::Isolated => "isolated",
        }
    }

    /// Reads and checks the configuration.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        let text = |key: &str| request.config.get::<String>(key);
        match text("backend")?.as_deref() {
            None | Some("" | "nftables" | "iptables") => {}
            Some("firewalld") => return Err(unsupported("backend", "firewalld is not supported")),
            Some(other) => return Err(invalid("backend", format_args!("{other:?} is unknown"))),
        }
        let chain = text("iptablesAdminChainName")?.unwrap_or_default();
        if !chain.is_empty() && chain != UPSTREAM_ADMIN_CHAIN {
            return Err(unsupported(
                "iptablesAdminChainName",
                "rules are nf_tables, there is no iptables chain to name",
            ));
        }
        match text("ingressPolicy")?.as_deref() {
            None | Some("" | "open") => Ok(Self::Open),
            Some("same-bridge") => Ok(Self::SameBridge),
            Some("isolated") => Ok(Self::Isolated),
            Some(other) => Err(invalid(
                "ingressPolicy",
                format_args!("{other:?} is not one of open, same-bridge, isolated"),
            )),
        }
    }
}

/// What ADD makes and CHECK looks for.
#[derive(Debug)]
pub(super) struct Plan {
    /// The attachment.
    pub(super) owner: Owner,
    /// Who may reach it.
    pub(super) policy: Policy,
    /// The container's addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The result of the plugins before.
    pub(super) prev: CniResult,
}

impl Plan {
    /// Reads and checks the whole request.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        let policy = Policy::of(request)?;
        let prev = request.config.prev_result()?.ok_or(FirewallError::NotChained)?;
        Ok(Self {
            owner: Owner::of(request),
            policy,
            addresses: prev.ips.iter().map(|ip| ip.address.addr()).collect(),
            prev,
        })
    }
}

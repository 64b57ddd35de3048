//! `firewall`: which containers may be reached from other bridges' containers.
//!
//! `open` lets everything through; nothing of ours forbids it. With `same-bridge` and `isolated` the bridge is closed: what
//! comes from another closed bridge is dropped, with `isolated` also what comes from the same one (its ports are
//! isolated, so that this holds without `br_netfilter`). Both are kept as elements of the network, one for all its
//! containers. Chains of other programs are not touched: a FORWARD chain that drops by default needs its own exception.

use crate::failure::{Outcome, invalid, unsupported};
use crate::host_local;
use crate::rules::{Entry, Key, Rules, WhenTaken, layout};
use coracle_cni_protocol::plugin::{Plugin, Request};
use coracle_cni_protocol::{CniResult, Code, PluginError};
use coracle_linux::netlink::nftables::{Data, Element};
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use coracle_linux::netlink::{Protocol, Socket};

/// The admin chain that upstream names when nothing else is said.
const UPSTREAM_ADMIN_CHAIN: &str = "CNI-ADMIN";

/// The policy cannot be kept or is not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// Nobody made an interface before.
    #[error("prevResult is missing: firewall must be called as chained plugin")]
    NotChained,
    /// There is nothing to close.
    #[error("ingressPolicy {0:?} needs a bridge, and prevResult lists none")]
    NoBridge(&'static str),
    /// CHECK found a difference.
    #[error("bridge {0} is not closed as ingressPolicy says")]
    Open(String),
}

impl FirewallError {
    /// The protocol's code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Open(_) => Code::INTERNAL,
            _ => Code::INVALID_CONFIG,
        }
    }
}

/// The plugin.
pub(crate) struct Firewall;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Open,
    SameBridge,
    Isolated,
}

impl Plugin for Firewall {
    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        add(request).map_err(|error| error.0)
    }

    fn del(&self, _: &Request) -> Result<(), PluginError> {
        // Nothing belongs to the attachment but a flag of its veth, which goes with that.
        Ok(())
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check(request).map_err(|error| error.0)
    }

    fn status(&self, request: &Request) -> Result<(), PluginError> {
        plan(request).map(drop).map_err(|error| error.0)
    }

    fn is_own_namespace(&self, netns: &str) -> Result<bool, PluginError> {
        host_local::own_namespace(netns)
    }
}

fn plan(request: &Request) -> Outcome<Policy> {
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
            "there are no iptables chains: rules are nf_tables",
        ));
    }
    match text("ingressPolicy")?.as_deref() {
        None | Some("" | "open") => Ok(Policy::Open),
        Some("same-bridge") => Ok(Policy::SameBridge),
        Some("isolated") => Ok(Policy::Isolated),
        Some(other) => Err(invalid(
            "ingressPolicy",
            format_args!("{other:?} is none of open, same-bridge, isolated"),
        )),
    }
}

fn add(request: &Request) -> Outcome<CniResult> {
    let policy = plan(request)?;
    let prev = request.config.prev_result()?.ok_or(FirewallError::NotChained)?;
    if policy == Policy::Open {
        return Ok(prev);
    }
    let mut socket = Socket::open(Protocol::Route)?;
    let bridge = bridge(&mut socket, &prev, policy)?;
    let element = |(set, key): Key| {
        let element = Element {
            key,
            data: Data::None,
            comment: request.network.clone(),
        };
        Entry {
            set,
            element,
            when_taken: WhenTaken::Share,
        }
    };
    let entries: Vec<_> = places(&bridge, policy).into_iter().map(element).collect();
    Rules::open()?.add(&entries, &request.network, &[])?;
    if policy == Policy::Isolated {
        for port in ports(&mut socket, &prev, &bridge)? {
            let isolated = Change {
                isolated: Some(true),
                ..Change::default()
            };
            socket.request(&[link::change(Which::Index(port.index), &isolated)])?;
        }
    }
    Ok(prev)
}

fn check(request: &Request) -> Outcome<()> {
    let policy = plan(request)?;
    let prev = request.config.prev_result()?.ok_or(FirewallError::NotChained)?;
    if policy == Policy::Open {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Route)?;
    let bridge = bridge(&mut socket, &prev, policy)?;
    let mut rules = Rules::open()?;
    for place in places(&bridge, policy) {
        if !rules.has(&place)? {
            return Err(FirewallError::Open(bridge.name).into());
        }
    }
    let ports = ports(&mut socket, &prev, &bridge)?;
    if policy == Policy::Isolated && ports.iter().any(|port| !port.isolated) {
        return Err(FirewallError::Open(bridge.name).into());
    }
    Ok(())
}

fn places(bridge: &Link, policy: Policy) -> Vec<Key> {
    let key = layout::interface_key(&bridge.name);
    let mut places = vec![(layout::CLOSED.to_owned(), key.clone())];
    if policy == Policy::SameBridge {
        places.push((layout::WITHIN.to_owned(), [key.clone(), key].concat()));
    }
    places
}

fn host_links(socket: &mut Socket, prev: &CniResult) -> Outcome<Vec<Link>> {
    let mut found = Vec::new();
    for interface in prev.interfaces.iter().filter(|one| one.sandbox.is_empty()) {
        found.extend(link::find(socket, Which::Name(&interface.name))?);
    }
    Ok(found)
}

fn bridge(socket: &mut Socket, prev: &CniResult, policy: Policy) -> Outcome<Link> {
    let links = host_links(socket, prev)?;
    let bridge = links
        .into_iter()
        .find(|link| link.kind.as_deref() == Some("bridge"));
    let name = if policy == Policy::Isolated {
        "isolated"
    } else {
        "same-bridge"
    };
    Ok(bridge.ok_or(FirewallError::NoBridge(name))?)
}

fn ports(socket: &mut Socket, prev: &CniResult, bridge: &Link) -> Outcome<Vec<Link>> {
    let mut links = host_links(socket, prev)?;
    links.retain(|link| link.master == Some(bridge.index));
    Ok(links)
}

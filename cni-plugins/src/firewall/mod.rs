//! `firewall`: which containers may be reached from other bridges' containers, and that what they send is forwarded.
//!
//! Where the chain FORWARD of iptables drops, what a container sends and the answers to it are accepted there
//! ([`forward`](crate::rules::forward)), as upstream does.
//!
//! `open` lets everything through; nothing of ours forbids it. With `same-bridge` and `isolated` the bridge is closed: what
//! comes from another closed bridge is dropped, with `isolated` also what comes from the same one (its ports are
//! isolated, so that this holds without `br_netfilter`). Both are kept as elements of the network, one for all its
//! containers.

mod plan;

use crate::failure::{Coded, Outcome};
use crate::linger;
use crate::owner::Owner;
use crate::rules::forward::Forward;
use crate::rules::{Entry, Key, Rules, WhenTaken, layout};
use crate::undo::or_undo;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code};
use coracle_linux::netlink::nftables::{Data, Element};
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use coracle_linux::netlink::{Protocol, Socket};
use plan::{Plan, Policy};

/// The policy cannot be kept or is not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// Nobody made an interface before.
    #[error("prevResult is missing: firewall must be called as chained plugin")]
    NotChained,
    /// There is nothing to close.
    #[error("ingressPolicy {0:?} needs a bridge, and prevResult lists none")]
    NoBridge(&'static str),
    /// CHECK: the bridge is open.
    #[error("bridge {0} is not closed as ingressPolicy says")]
    Open(String),
    /// CHECK: rules are gone.
    #[error("the container's addresses are not accepted in the chain FORWARD")]
    NotAccepted,
}

impl Coded for FirewallError {
    fn code(&self) -> Code {
        match self {
            Self::Open(_) | Self::NotAccepted => Code::INTERNAL,
            Self::NotChained | Self::NoBridge(_) => Code::INVALID_CONFIG,
        }
    }
}

/// ADD.
pub(crate) fn add(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    set_policy(&plan)?;
    or_undo(|undo| {
        undo.push("accepts", || remove(&plan.owner));
        Ok(Forward::open()?.accept(&plan.owner, &plan.addresses)?)
    })?;
    Ok(plan.prev)
}

/// DEL: what was accepted for the attachment. A flag of its veth goes with that.
pub(crate) fn del(request: &Request) -> Outcome<()> {
    remove(&Owner::of(request))
}

/// GC.
pub(crate) fn gc(request: &Request) -> Outcome<()> {
    if let Some(keep) = Owner::kept(request)? {
        Forward::open()?.collect(&request.network, &keep)?;
    }
    Ok(())
}

/// CHECK.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    if !Forward::open()?.accepts(&plan.owner, &plan.addresses)? {
        return Err(FirewallError::NotAccepted.into());
    }
    if plan.policy == Policy::Open {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Route)?;
    let no_bridge = || FirewallError::NoBridge(plan.policy.name());
    let bridge = find_bridge(&mut socket, &plan)?.ok_or_else(no_bridge)?;
    let mut rules = Rules::open()?;
    for place in places(&bridge, plan.policy) {
        if !rules.has(&place)? {
            return Err(FirewallError::Open(bridge.name).into());
        }
    }
    let ports = ports(&mut socket, &plan.prev, &bridge)?;
    if plan.policy == Policy::Isolated && ports.iter().any(|port| !port.isolated) {
        return Err(FirewallError::Open(bridge.name).into());
    }
    Ok(())
}

/// STATUS: the configuration is usable, and so are rules.
pub(crate) fn status(request: &Request) -> Outcome<()> {
    Policy::of(request)?;
    Ok(Rules::open()?.usable()?)
}

fn remove(owner: &Owner) -> Outcome<()> {
    let comment = owner.comment();
    let mut forward = Forward::open()?;
    if forward.remove(|found| found == comment)? {
        linger::hold(forward);
    }
    Ok(())
}

/// The last ADD's policy is the bridge's.
fn set_policy(plan: &Plan) -> Outcome<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let Some(bridge) = find_bridge(&mut socket, plan)? else {
        // Without a bridge nothing of it is closed.
        return match plan.policy {
            Policy::Open => Ok(()),
            closed => Err(FirewallError::NoBridge(closed.name()).into()),
        };
    };
    let wanted = places(&bridge, plan.policy);
    let mut other = places(&bridge, Policy::SameBridge);
    other.retain(|place| !wanted.contains(place));
    let mut rules = Rules::open()?;
    if !rules
        .remove(|rules| rules.with_comment(plan.owner.network(), &other))?
        .is_empty()
    {
        linger::hold(rules);
    }
    if plan.policy != Policy::Open {
        close(plan, &mut socket, &bridge)?;
    }
    Ok(())
}

fn close(plan: &Plan, socket: &mut Socket, bridge: &Link) -> Outcome<()> {
    let element = |(set, key): Key| {
        let element = Element {
            key,
            data: Data::None,
            comment: plan.owner.network().to_owned(),
        };
        Entry {
            set,
            element,
            when_taken: WhenTaken::Share,
        }
    };
    let entries: Vec<_> = places(bridge, plan.policy).into_iter().map(element).collect();
    Rules::open()?.add(&entries, plan.owner.network(), &[])?;
    if plan.policy == Policy::Isolated {
        for port in ports(socket, &plan.prev, bridge)? {
            let isolated = Change {
                isolated: Some(true),
                ..Change::default()
            };
            socket.request(&[link::change(Which::Index(port.index), &isolated)])?;
        }
    }
    Ok(())
}

fn places(bridge: &Link, policy: Policy) -> Vec<Key> {
    let key = layout::interface_key(&bridge.name);
    let closed = (layout::CLOSED.to_owned(), key.clone());
    let within = (layout::WITHIN.to_owned(), [key.clone(), key].concat());
    match policy {
        Policy::Open => Vec::new(),
        Policy::SameBridge => vec![closed, within],
        Policy::Isolated => vec![closed],
    }
}

fn host_links(socket: &mut Socket, prev: &CniResult) -> Outcome<Vec<Link>> {
    let mut found = Vec::new();
    for interface in prev.interfaces.iter().filter(|one| one.sandbox.is_empty()) {
        found.extend(link::find(socket, Which::Name(&interface.name))?);
    }
    Ok(found)
}

fn find_bridge(socket: &mut Socket, plan: &Plan) -> Outcome<Option<Link>> {
    let links = host_links(socket, &plan.prev)?;
    Ok(links
        .into_iter()
        .find(|link| link.kind.as_deref() == Some("bridge")))
}

fn ports(socket: &mut Socket, prev: &CniResult, bridge: &Link) -> Outcome<Vec<Link>> {
    let mut links = host_links(socket, prev)?;
    links.retain(|link| link.master == Some(bridge.index));
    Ok(links)
}

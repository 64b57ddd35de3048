//! The veth pair: one end in the container, the other on the host, up, and on no bridge yet.
//!
//! The host end's name and alias follow from the owner, so that DEL and GC find it without being told.

use crate::failure::{Coded, Outcome};
use crate::netns::Netns;
use crate::owner::{self, Owner};
use crate::undo::Undo;
use coracle_cni_protocol::Code;
use coracle_linux::netlink::route::link::{self, Change, Link, Mac, Veth, Which};
use coracle_linux::netlink::{Message, NetlinkError, Protocol, Socket};
use nix::errno::Errno;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The kernel needs less than a millisecond unless the host is very busy.
const OPERATIONAL_LIMIT: Duration = Duration::from_secs(10);
const OPERATIONAL_PAUSE: Duration = Duration::from_micros(200);

/// The pair cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VethError {
    /// The container has an interface of this name.
    #[error("container veth name provided ({0}) already exists")]
    InterfaceExists(String),
    /// The host has a link of the name that the attachment's would have.
    #[error("host interface {0:?} exists and belongs to something else")]
    HostInterfaceExists(String),
    /// It was just made and is gone.
    #[error("interface {0:?} disappeared")]
    Vanished(String),
    /// It does not begin to carry packets.
    #[error("interface {0:?} stays down")]
    NotOperational(String),
}

impl Coded for VethError {
    fn code(&self) -> Code {
        match self {
            Self::InterfaceExists(_)
            | Self::HostInterfaceExists(_)
            | Self::Vanished(_)
            | Self::NotOperational(_) => Code::INTERNAL,
        }
    }
}

/// The pair of an attachment.
pub(crate) struct Pair<'a> {
    owner: &'a Owner,
    netns: &'a Netns,
    name: String,
    mac: Option<Mac>,
    mtu: Option<u32>,
}

/// MAC addresses of both ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Macs {
    /// Of the host's.
    pub(crate) host: Mac,
    /// Of the container's.
    pub(crate) container: Mac,
}

impl<'a> Pair<'a> {
    /// The pair to make. `mac` is what somebody wants for the container's end.
    pub(crate) fn of(owner: &'a Owner, netns: &'a Netns, mac: Option<Mac>, mtu: Option<u32>) -> Self {
        Self {
            owner,
            netns,
            name: owner.veth(),
            mac,
            mtu,
        }
    }

    /// Makes it with the container's end in place and down, the host end named, up and on no bridge.
    pub(crate) fn make(
        &self,
        socket: &mut Socket,
        address: Option<IpAddr>,
        undo: &mut Undo<'_>,
    ) -> Outcome<Macs> {
        let macs = Macs {
            host: self.owner.host_mac(),
            container: self.mac.unwrap_or_else(|| self.owner.container_mac(address)),
        };
        let veth = link::new_veth(&Veth {
            name: &self.name,
            mac: macs.host,
            peer_name: self.owner.ifname(),
            peer_mac: macs.container,
            peer_namespace: self.netns.fd(),
            mtu: self.mtu,
        });
        match socket.request(std::slice::from_ref(&veth)) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                remove_stale(socket, self.owner)?;
                socket.request(&[veth])?;
            }
            other => other?,
        }
        let name = self.name.clone();
        undo.push("veth", move || Ok(coracle_linux::link::delete(&name)?));
        self.name_and_set_up(socket)?;
        Ok(macs)
    }

    /// Name of the host end.
    pub(crate) fn host_name(&self) -> &str {
        &self.name
    }

    /// Waits until packets pass: none is lost after an ADD.
    pub(crate) fn wait_until_operational(&self, socket: &mut Socket) -> Outcome<()> {
        let end = Instant::now() + OPERATIONAL_LIMIT;
        while Instant::now() < end {
            let found = link::find(socket, Which::Name(&self.name))?;
            if found
                .ok_or_else(|| VethError::Vanished(self.name.clone()))?
                .operational
            {
                return Ok(());
            }
            std::thread::sleep(OPERATIONAL_PAUSE);
        }
        Err(VethError::NotOperational(self.name.clone()).into())
    }

    /// Two messages: naming a link that is up makes the kernel look through all its IPv6 routes.
    fn name_and_set_up(&self, socket: &mut Socket) -> Outcome<()> {
        let comment = self.owner.comment();
        let named = Change {
            alias: Some(&comment),
            no_link_local: true,
            ..Change::default()
        };
        let up = self.change(&Change {
            up: Some(true),
            ..Change::default()
        });
        match socket.request(&[self.change(&named), up.clone()]) {
            // A kernel without IPv6 does not know what link-local addresses are.
            Err(error) if error.errno() == Some(Errno::EAFNOSUPPORT) => {
                let named = Change {
                    no_link_local: false,
                    ..named
                };
                Ok(socket.request(&[self.change(&named), up])?)
            }
            other => Ok(other?),
        }
    }

    fn change(&self, change: &Change<'_>) -> Message {
        link::change(Which::Name(&self.name), change)
    }
}

/// A second ADD must not take the first one's veth for its own. But one that a DEL has disconnected, because its namespace
/// was to go away, may go now.
pub(crate) fn refuse_existing(owner: &Owner, inside: &mut Socket, host: &mut Socket) -> Outcome<()> {
    if link::find(inside, Which::Name(owner.ifname()))?.is_none() {
        return Ok(());
    }
    let disconnected = link::find(host, Which::Name(&owner.veth()))?
        .is_some_and(|link| link.alias == Some(owner.comment()) && !link.up && link.master.is_none());
    if disconnected {
        remove_stale(host, owner)?;
    }
    if link::find(inside, Which::Name(owner.ifname()))?.is_some() {
        return Err(VethError::InterfaceExists(owner.ifname().to_owned()).into());
    }
    Ok(())
}

/// Deletes a host end of ours that no attachment has: its namespace was to go away with an earlier DEL, or an ADD was
/// killed.
fn remove_stale(socket: &mut Socket, owner: &Owner) -> Outcome<()> {
    let name = owner.veth();
    let Some(found) = link::find(socket, Which::Name(&name))? else {
        return Ok(());
    };
    if !is_of(&found, owner) {
        return Err(VethError::HostInterfaceExists(name).into());
    }
    delete(found.index)
}

/// The number of the attachment's host end, if it exists and is ours.
pub(crate) fn host_end(owner: &Owner) -> Outcome<Option<u32>> {
    let found = link::find(&mut Socket::open(Protocol::Route)?, Which::Name(&owner.veth()))?;
    Ok(found.filter(|link| is_of(link, owner)).map(|link| link.index))
}

/// Without an alias it is one that a killed ADD had not named yet.
fn is_of(link: &Link, owner: &Owner) -> bool {
    link.alias.as_ref().is_none_or(|alias| *alias == owner.comment())
}

/// Takes a host end off the network, so that its address can be given to the next one.
pub(crate) fn disconnect(host_end: u32) -> Outcome<()> {
    let off = Change {
        master: Some(0),
        ..Change::default()
    };
    let down = Change {
        up: Some(false),
        ..Change::default()
    };
    // Off the bridge first: a port that goes down makes the bridge look through all others, and so does one that leaves.
    let which = Which::Index(host_end);
    let changes = [link::change(which, &off), link::change(which, &down)];
    match Socket::open(Protocol::Route)?.request(&changes) {
        // It went with its namespace this moment.
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => Ok(other?),
    }
}

/// Deletes a pair by the number of its host end: a new one of its name may be there. When this returns, the interface
/// is gone from the container.
pub(crate) fn delete(host_end: u32) -> Outcome<()> {
    match Socket::open(Protocol::Route)?.request(&[link::delete(Which::Index(host_end))]) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        other => Ok(other?),
    }
}

/// The host ends of a network, each with the comment that names its owner.
pub(crate) fn host_ends(socket: &mut Socket, network: &str) -> Result<Vec<Link>, NetlinkError> {
    let mut links = link::list(socket)?;
    links.retain(|link| {
        let alias = link.alias.as_deref().unwrap_or_default();
        link.kind.as_deref() == Some("veth") && alias.contains('/') && owner::network_of(alias) == network
    });
    Ok(links)
}

/// Deletes the host ends of all owners of the network that are not to be kept.
pub(crate) fn collect(network: &str, keep: &[Owner]) -> Outcome<()> {
    let keep: Vec<_> = keep.iter().map(Owner::comment).collect();
    let mut socket = Socket::open(Protocol::Route)?;
    let mut stale = host_ends(&mut socket, network)?;
    stale.retain(|link| !keep.contains(&link.alias.clone().unwrap_or_default()));
    let deletions: Vec<_> = stale
        .iter()
        .map(|link| link::delete(Which::Index(link.index)))
        .collect();
    for refusal in socket.request_each(&deletions)? {
        if refusal.errno != Errno::ENODEV {
            return Err(NetlinkError::Refused(refusal).into());
        }
    }
    Ok(())
}

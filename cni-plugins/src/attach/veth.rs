//! The veth pair: made off the bridge, joined to it later.

use crate::bridge::BridgeError;
use crate::bridge::plan::Plan;
use crate::failure::Outcome;
use crate::netns::Netns;
use crate::owner::Owner;
use crate::undo::Undo;
use coracle_cni_protocol::plugin::Request;
use coracle_linux::netlink::route::link::{self, Change, Link, Mac, Veth, Which};
use coracle_linux::netlink::{Message, NetlinkError, Socket};
use nix::errno::Errno;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The kernel needs less than a millisecond unless the host is very busy.
const OPERATIONAL_LIMIT: Duration = Duration::from_secs(10);
const OPERATIONAL_PAUSE: Duration = Duration::from_micros(200);

/// The pair of an attachment.
pub(crate) struct Pair<'a> {
    request: &'a Request,
    plan: &'a Plan,
    netns: &'a Netns,
    bridge: &'a Link,
    owner: Owner,
    name: String,
}

impl<'a> Pair<'a> {
    /// What it is going to be.
    pub(crate) fn of(request: &'a Request, plan: &'a Plan, netns: &'a Netns, bridge: &'a Link) -> Self {
        let owner = Owner::of(request);
        Self {
            request,
            plan,
            netns,
            bridge,
            name: owner.veth(),
            owner,
        }
    }

    /// Makes it with the container's end in place and down, the host end named, up and on no bridge. Returns the MAC
    /// addresses of the host end and of the container's.
    pub(crate) fn make(
        &self,
        socket: &mut Socket,
        address: Option<IpAddr>,
        undo: &mut Undo<'_>,
    ) -> Outcome<(Mac, Mac)> {
        let (host_mac, container_mac) = (
            self.owner.host_mac(),
            self.plan.mac.unwrap_or_else(|| self.owner.container_mac(address)),
        );
        let veth = link::new_veth(&Veth {
            name: &self.name,
            mac: host_mac,
            peer_name: &self.request.ifname,
            peer_mac: container_mac,
            peer_namespace: self.netns.fd(),
            mtu: self.plan.mtu,
        });
        match socket.request(std::slice::from_ref(&veth)) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                remove_stale(socket, &self.name, &self.owner.comment())?;
                socket.request(&[veth])?;
            }
            other => other?,
        }
        let name = self.name.clone();
        undo.push("veth", move || Ok(coracle_linux::link::delete(&name)?));
        self.name_and_set_up(socket)?;
        Ok((host_mac, container_mac))
    }

    /// Makes the host end a port of the bridge.
    pub(crate) fn join(&self, socket: &mut Socket) -> Outcome<()> {
        let join = Change {
            master: Some(self.bridge.index),
            ..Change::default()
        };
        let port = Change {
            hairpin: self.plan.hairpin.then_some(true),
            isolated: self.plan.isolated.then_some(true),
            ..Change::default()
        };
        let mut messages = vec![self.change(&join)];
        if self.plan.hairpin || self.plan.isolated {
            messages.push(self.change(&port));
        }
        Ok(socket.request(&messages)?)
    }

    /// Waits until packets pass: a port joins the bridge as one that forwards, and none is lost after an ADD.
    pub(crate) fn wait_until_operational(&self, socket: &mut Socket) -> Outcome<()> {
        let end = Instant::now() + OPERATIONAL_LIMIT;
        while Instant::now() < end {
            let found = link::find(socket, Which::Name(&self.name))?;
            if found
                .ok_or_else(|| BridgeError::Vanished(self.name.clone()))?
                .operational
            {
                return Ok(());
            }
            std::thread::sleep(OPERATIONAL_PAUSE);
        }
        Err(BridgeError::NotOperational(self.name.clone()).into())
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

/// Deletes a host end of ours that its container no longer has: an earlier DEL's child is about to, or an ADD was killed.
pub(crate) fn remove_stale(socket: &mut Socket, name: &str, comment: &str) -> Outcome<()> {
    let Some(found) = link::find(socket, Which::Name(name))? else {
        return Ok(());
    };
    // Without alias it is one that a killed ADD did not come to name.
    if found.alias.as_deref().is_some_and(|alias| alias != comment) {
        return Err(BridgeError::HostInterfaceExists(name.to_owned()).into());
    }
    match socket.request(&[link::delete(Which::Index(found.index))]) {
        Err(error) if error.errno() != Some(Errno::ENODEV) => Err(NetlinkError::into(error)),
        _ => Ok(()),
    }
}

//! `loopback`: sets the loopback interface of the namespace up. It always means `lo`, whatever `CNI_IFNAME` says.

use crate::attach::result;
use crate::failure::{Coded, Outcome};
use crate::netns::Netns;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code, IpConfig};
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use coracle_linux::netlink::{Socket, route::address};
use ipnet::IpNet;
use serde_json::Map;

const LO: &str = "lo";

/// The interface is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoopbackError {
    /// No namespace lacks one.
    #[error("the namespace has no loopback interface")]
    Missing,
    /// CHECK: somebody set it down.
    #[error("loopback interface is down")]
    Down,
}

impl Coded for LoopbackError {
    fn code(&self) -> Code {
        match self {
            Self::Missing | Self::Down => Code::INTERNAL,
        }
    }
}

/// ADD.
pub(crate) fn add(request: &Request) -> Outcome<CniResult> {
    let prev = request.config.prev_result()?;
    let mut socket = Netns::open(&request.netns)?.socket()?;
    set(&mut socket, true)?;
    // In a chain the earlier result is handed on as it is (specification, section 2).
    match prev {
        Some(prev) => Ok(prev),
        None => answer(&mut socket, &request.netns),
    }
}

/// DEL: sets it down, if the namespace is there.
pub(crate) fn del(request: &Request) -> Outcome<()> {
    match Netns::open_if_there(&request.netns) {
        Some(netns) => set(&mut netns.socket()?, false),
        None => Ok(()),
    }
}

/// CHECK: it is up.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    let mut socket = Netns::open(&request.netns)?.socket()?;
    if lo(&mut socket)?.up {
        return Ok(());
    }
    Err(LoopbackError::Down.into())
}

fn answer(socket: &mut Socket, netns: &str) -> Outcome<CniResult> {
    let lo = lo(socket)?;
    let ips = address::list(socket, lo.index)?;
    let ip = |found: &address::Address| {
        let address = IpNet::new(found.address, found.prefix).ok()?;
        Some(IpConfig {
            address,
            gateway: None,
            interface: Some(0),
            extra: Map::new(),
        })
    };
    Ok(CniResult {
        interfaces: vec![result::of_container(result::interface(LO, lo.mac, None), netns)],
        ips: ips.iter().filter_map(ip).collect(),
        ..CniResult::default()
    })
}

fn set(socket: &mut Socket, up: bool) -> Outcome<()> {
    let change = Change {
        up: Some(up),
        ..Change::default()
    };
    Ok(socket.request(&[link::change(Which::Name(LO), &change)])?)
}

fn lo(socket: &mut Socket) -> Outcome<Link> {
    let found = link::find(socket, Which::Name(LO))?;
    Ok(found.ok_or(LoopbackError::Missing)?)
}

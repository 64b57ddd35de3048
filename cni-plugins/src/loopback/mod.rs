//! `loopback`: sets the loopback interface of the namespace up.

use crate::failure::Outcome;
use crate::netns::{self, Netns};
use coracle_cni_protocol::plugin::{Plugin, Request};
use coracle_cni_protocol::{CniResult, Code, Interface, IpConfig, PluginError};
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use coracle_linux::netlink::{Socket, route::address};
use ipnet::IpNet;
use serde_json::Map;

/// The plugin. It always means `lo`, whatever `CNI_IFNAME` says.
pub(crate) struct Loopback;

const LO: &str = "lo";

impl Plugin for Loopback {
    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        add(request).map_err(|error| error.0)
    }

    fn del(&self, request: &Request) -> Result<(), PluginError> {
        del(request).map_err(|error| error.0)
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check(request).map_err(|error| error.0)
    }

    fn is_own_namespace(&self, netns: &str) -> Result<bool, PluginError> {
        netns::is_own(netns).map_err(|error| PluginError::from_error(Code::INVALID_NETNS, &error))
    }
}

fn add(request: &Request) -> Outcome<CniResult> {
    let mut socket = Netns::open(&request.netns)?.socket()??;
    set(&mut socket, true)?;
    // In a chain the earlier result is handed on as it is (specification, section 2).
    if let Some(prev) = request.config.prev_result()? {
        return Ok(prev);
    }
    let lo = lo(&mut socket)?;
    let ips = address::list(&mut socket, lo.index)?;
    let ip = |found: &address::Address| {
        let address = IpNet::new(found.address, found.prefix).ok()?;
        Some(IpConfig {
            address,
            gateway: None,
            interface: Some(0),
            extra: Map::new(),
        })
    };
    let mac = lo.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let interface = Interface {
        name: lo.name,
        mac,
        sandbox: request.netns.clone(),
        ..Interface::default()
    };
    Ok(CniResult {
        interfaces: vec![interface],
        ips: ips.iter().filter_map(ip).collect(),
        ..CniResult::default()
    })
}

fn del(request: &Request) -> Outcome<()> {
    match Netns::open_if_there(&request.netns) {
        Some(netns) => set(&mut netns.socket()??, false),
        None => Ok(()),
    }
}

fn check(request: &Request) -> Outcome<()> {
    let mut socket = Netns::open(&request.netns)?.socket()??;
    if lo(&mut socket)?.up {
        return Ok(());
    }
    Err(PluginError::new(Code::INTERNAL, "loopback interface is down").into())
}

fn set(socket: &mut Socket, up: bool) -> Outcome<()> {
    Ok(socket.request(&[link::change(
        Which::Name(LO),
        &Change {
            up: Some(up),
            ..Change::default()
        },
    )])?)
}

fn lo(socket: &mut Socket) -> Outcome<Link> {
    link::find(socket, Which::Name(LO))?
        .ok_or_else(|| PluginError::new(Code::INTERNAL, "the namespace has no loopback interface").into())
}

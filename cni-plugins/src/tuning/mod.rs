//! `tuning`: kernel settings of the container's network namespace and properties of its interface.
//!
//! What the interface was like before is kept in a file until DEL puts it back: an interface of the host that was moved
//! into the container survives it.

mod plan;

use crate::bridge::parse_mac;
use crate::failure::Outcome;
use crate::host_local;
use crate::netns::Netns;
use crate::sysctl;
use coracle_cni_protocol::plugin::{Plugin, Request};
use coracle_cni_protocol::{CniResult, Code, PluginError};
use coracle_linux::netlink::Socket;
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use plan::Plan;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The interface cannot be tuned or is not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TuningError {
    /// Nobody made an interface before.
    #[error("prevResult is missing: tuning must be called as chained plugin")]
    NotChained,
    /// There is nothing to tune.
    #[error("interface {0:?} is missing")]
    NoInterface(String),
    /// The file that keeps what was before.
    #[error("backup {path}")]
    Backup {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// CHECK found a difference.
    #[error("{what} is {found:?}, not {wanted:?}")]
    Different {
        /// Which property.
        what: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
}

impl TuningError {
    /// The protocol's code.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotChained => Code::INVALID_CONFIG,
            Self::Backup { .. } => Code::IO_FAILURE,
            _ => Code::INTERNAL,
        }
    }
}

/// The plugin.
pub(crate) struct Tuning;

/// In upstream's form, so that its plugin can put back what this one changed.
#[derive(Debug, Serialize, Deserialize)]
struct Backup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(default, rename = "txQLen", skip_serializing_if = "Option::is_none")]
    tx_q_len: Option<u32>,
}

impl Plugin for Tuning {
    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        add(request).map_err(|error| error.0)
    }

    fn del(&self, request: &Request) -> Result<(), PluginError> {
        del(request).map_err(|error| error.0)
    }

    fn check(&self, request: &Request) -> Result<(), PluginError> {
        check(request).map_err(|error| error.0)
    }

    fn status(&self, request: &Request) -> Result<(), PluginError> {
        Plan::of(request).map(drop).map_err(|error| error.0)
    }

    fn is_own_namespace(&self, netns: &str) -> Result<bool, PluginError> {
        host_local::own_namespace(netns)
    }
}

fn add(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    let mut result = request.config.prev_result()?.ok_or(TuningError::NotChained)?;
    let netns = Netns::open(&request.netns)?;
    netns.inside(|| -> Outcome<()> {
        plan.sysctls
            .iter()
            .try_for_each(|(name, value)| sysctl::write(name, value))?;
        Ok(())
    })??;
    if !plan.changes_link() {
        return Ok(result);
    }
    let mut socket = netns.socket()??;
    let link = find(&mut socket, &request.ifname)?;
    keep(&plan, &link)?;
    let change = Change {
        mac: plan.mac,
        promiscuous: plan.promiscuous,
        mtu: plan.mtu,
        all_multicast: plan.all_multicast,
        queue_length: plan.queue_length,
        ..Change::default()
    };
    if let Err(error) = socket.request(&[link::change(Which::Index(link.index), &change)]) {
        put_back(&plan.backup, Some(&mut socket), &request.ifname)?;
        return Err(error.into());
    }
    let own = |one: &&mut coracle_cni_protocol::Interface| {
        one.name == request.ifname && one.sandbox == request.netns
    };
    for interface in result.interfaces.iter_mut().filter(own) {
        if let Some(mac) = plan.mac {
            interface.mac = mac.to_string();
        }
        interface.mtu = plan.mtu.or(interface.mtu);
    }
    Ok(result)
}

/// Settings that ADD refused are none of its business: callers that stop at a failed DEL would leave the rest of the chain.
fn del(request: &Request) -> Outcome<()> {
    let Ok(backup) = plan::backup(request) else {
        return Ok(());
    };
    let mut socket = match Netns::open_if_there(&request.netns) {
        Some(netns) => Some(netns.socket()??),
        None => None,
    };
    put_back(&backup, socket.as_mut(), &request.ifname)
}

fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    request.config.prev_result()?.ok_or(TuningError::NotChained)?;
    let netns = Netns::open(&request.netns)?;
    netns.inside(|| -> Outcome<()> {
        for (name, wanted) in &plan.sysctls {
            same(name, &sysctl::read(name)?, wanted)?;
        }
        Ok(())
    })??;
    let link = find(&mut netns.socket()??, &request.ifname)?;
    let text = |mac: link::Mac| mac.to_string();
    let properties = [
        ("mac", link.mac.map(text), plan.mac.map(text)),
        (
            "mtu",
            Some(link.mtu.to_string()),
            plan.mtu.map(|mtu| mtu.to_string()),
        ),
        (
            "promisc",
            Some(link.promiscuous.to_string()),
            plan.promiscuous.map(|on| on.to_string()),
        ),
        (
            "allmulti",
            Some(link.all_multicast.to_string()),
            plan.all_multicast.map(|on| on.to_string()),
        ),
        (
            "txQLen",
            Some(link.queue_length.to_string()),
            plan.queue_length.map(|length| length.to_string()),
        ),
    ];
    for (what, found, wanted) in properties {
        if let Some(wanted) = wanted {
            same(what, &found.unwrap_or_default(), &wanted)?;
        }
    }
    Ok(())
}

fn same(what: &str, found: &str, wanted: &str) -> Result<(), TuningError> {
    // The kernel shows lists of numbers with tabs between.
    if found.split_whitespace().eq(wanted.split_whitespace()) {
        return Ok(());
    }
    Err(TuningError::Different {
        what: what.to_owned(),
        found: found.to_owned(),
        wanted: wanted.to_owned(),
    })
}

fn find(socket: &mut Socket, ifname: &str) -> Outcome<Link> {
    Ok(
        link::find(socket, Which::Name(ifname))?
            .ok_or_else(|| TuningError::NoInterface(ifname.to_owned()))?,
    )
}

/// Keeps what is about to be changed.
fn keep(plan: &Plan, link: &Link) -> Result<(), TuningError> {
    let backup = Backup {
        mac: link.mac.filter(|_| plan.mac.is_some()).map(|mac| mac.to_string()),
        promisc: plan.promiscuous.map(|_| link.promiscuous),
        mtu: plan.mtu.map(|_| link.mtu),
        allmulti: plan.all_multicast.map(|_| link.all_multicast),
        tx_q_len: plan.queue_length.map(|_| link.queue_length),
    };
    let failed = |source| TuningError::Backup {
        path: plan.backup.clone(),
        source,
    };
    let dir = plan.backup.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir).map_err(failed)?;
    let text = serde_json::to_vec(&backup)
        .map_err(io::Error::from)
        .map_err(failed)?;
    fs::write(&plan.backup, text).map_err(failed)
}

/// Puts back what was kept, if the interface is still there, and forgets it.
fn put_back(path: &Path, socket: Option<&mut Socket>, ifname: &str) -> Outcome<()> {
    let failed = |source| TuningError::Backup {
        path: path.to_owned(),
        source,
    };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error).into()),
    };
    if let (Some(socket), Ok(backup)) = (socket, serde_json::from_slice::<Backup>(&text))
        && let Some(link) = link::find(socket, Which::Name(ifname))?
    {
        let change = Change {
            mac: backup.mac.as_deref().and_then(parse_mac),
            promiscuous: backup.promisc,
            mtu: backup.mtu,
            all_multicast: backup.allmulti,
            queue_length: backup.tx_q_len,
            ..Change::default()
        };
        socket.request(&[link::change(Which::Index(link.index), &change)])?;
    }
    Ok(fs::remove_file(path).map_err(failed)?)
}

//! `tuning`: kernel settings of the container's network namespace and properties of its interface.
//!
//! What the interface was like before is kept in a file until DEL puts it back: an interface of the host that was moved
//! into the container survives it.

mod backup;
mod plan;

use crate::failure::{Coded, Outcome};
use crate::netns::Netns;
use crate::sysctl;
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, Code};
use coracle_linux::netlink::Socket;
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use plan::{Plan, Settings};
use std::io;
use std::path::PathBuf;

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

impl Coded for TuningError {
    fn code(&self) -> Code {
        match self {
            Self::NotChained => Code::INVALID_CONFIG,
            Self::Backup { .. } => Code::IO_FAILURE,
            Self::NoInterface(_) | Self::Different { .. } => Code::INTERNAL,
        }
    }
}

/// ADD.
pub(crate) fn add(request: &Request) -> Outcome<CniResult> {
    let plan = Plan::of(request)?;
    let netns = Netns::open(&plan.netns)?;
    netns.inside(|| {
        let mut sysctls = plan.settings.sysctls.iter();
        Ok(sysctls.try_for_each(|(name, value)| sysctl::write(name, value))?)
    })?;
    if plan.settings.changes_link() {
        change_link(&plan, &netns)?;
    }
    Ok(result(plan))
}

/// DEL. Settings that ADD refused are none of its business: callers that stop at a failed DEL would leave the rest of the
/// chain.
pub(crate) fn del(request: &Request) -> Outcome<()> {
    let Ok(backup) = plan::backup(request) else {
        return Ok(());
    };
    let mut socket = match Netns::open_if_there(&request.netns) {
        Some(netns) => Some(netns.socket()?),
        None => None,
    };
    backup::put_back(&backup, socket.as_mut(), &request.ifname)
}

/// CHECK.
pub(crate) fn check(request: &Request) -> Outcome<()> {
    let plan = Plan::of(request)?;
    let netns = Netns::open(&plan.netns)?;
    netns.inside(|| {
        for (name, wanted) in &plan.settings.sysctls {
            same(name, &sysctl::read(name)?, wanted)?;
        }
        Ok(())
    })?;
    let link = find(&mut netns.socket()?, &plan.ifname)?;
    check_link(&plan.settings, &link)
}

/// STATUS: the configuration is usable.
pub(crate) fn status(request: &Request) -> Outcome<()> {
    plan::backup(request)?;
    Settings::of(request).map(drop)
}

fn change_link(plan: &Plan, netns: &Netns) -> Outcome<()> {
    let mut socket = netns.socket()?;
    let link = find(&mut socket, &plan.ifname)?;
    let settings = &plan.settings;
    backup::keep(&plan.backup, settings, &link)?;
    let change = Change {
        mac: settings.mac,
        promiscuous: settings.promiscuous,
        mtu: settings.mtu,
        all_multicast: settings.all_multicast,
        queue_length: settings.queue_length,
        ..Change::default()
    };
    if let Err(error) = socket.request(&[link::change(Which::Index(link.index), &change)]) {
        backup::put_back(&plan.backup, Some(&mut socket), &plan.ifname)?;
        return Err(error.into());
    }
    Ok(())
}

/// The result of the plugins before, with what was changed.
fn result(plan: Plan) -> CniResult {
    let mut result = plan.prev;
    for interface in &mut result.interfaces {
        if interface.name == plan.ifname && interface.sandbox == plan.netns {
            if let Some(mac) = plan.settings.mac {
                interface.mac = mac.to_string();
            }
            interface.mtu = plan.settings.mtu.or(interface.mtu);
        }
    }
    result
}

fn check_link(settings: &Settings, link: &Link) -> Outcome<()> {
    fn text<T: ToString>(value: Option<T>) -> Option<String> {
        value.map(|value| value.to_string())
    }
    let properties = [
        ("mac", text(link.mac), text(settings.mac)),
        ("mtu", text(Some(link.mtu)), text(settings.mtu)),
        (
            "promisc",
            text(Some(link.promiscuous)),
            text(settings.promiscuous),
        ),
        (
            "allmulti",
            text(Some(link.all_multicast)),
            text(settings.all_multicast),
        ),
        (
            "txQLen",
            text(Some(link.queue_length)),
            text(settings.queue_length),
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

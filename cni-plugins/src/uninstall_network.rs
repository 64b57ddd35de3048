//! `coracle-cni uninstall-network NAME`: takes back what the network's first attachment changed on this host.

use crate::attach::veth;
use crate::host_local::{Store, StoreError};
use crate::record::{self, Lock, Record, RecordError};
use crate::rules::forward::Forward;
use crate::rules::{Rules, RulesError};
use crate::sysctl::{self, SysctlError};
use coracle_cni_protocol::identifier::{self, IdentifierError};
use coracle_linux::netlink::route::link::{self, Which};
use coracle_linux::netlink::{NetlinkError, Protocol, Socket};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where host-local and others keep what they know.
const CNI_DIR: &str = "/var/lib/cni";

/// The network could not be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UninstallError {
    /// Not a network's name.
    #[error("network name {0:?}")]
    Name(String, #[source] IdentifierError),
    /// It is in use.
    #[error("network {0:?} has attachments ({1}); detach them first, or use --force")]
    InUse(String, String),
    /// Links.
    #[error("remove links")]
    Link(#[source] NetlinkError),
    /// Finding links.
    #[error("find attachments")]
    Attachments(#[source] NetlinkError),
    /// Rules.
    #[error("remove rules")]
    Rules(#[source] RulesError),
    /// Addresses.
    #[error("remove addresses")]
    Store(#[source] StoreError),
    /// Addresses' files.
    #[error("remove {0}")]
    Files(PathBuf, #[source] io::Error),
    /// Settings.
    #[error("restore settings")]
    Sysctl(#[source] SysctlError),
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Removes a network; one that is unknown is removed already. Refuses while something is attached, unless forced.
pub(crate) fn uninstall_network(name: &str, force: bool) -> Result<(), UninstallError> {
    identifier::check_network_name(name).map_err(|error| UninstallError::Name(name.to_owned(), error))?;
    let lock = Lock::take()?;
    let record = Record::load(name)?;
    let mut socket = Socket::open(Protocol::Route).map_err(UninstallError::Link)?;
    let links = veth::host_ends(&mut socket, name).map_err(UninstallError::Attachments)?;
    if !force {
        // Down and off the bridge: detached, and the kernel is about to delete it with its namespace.
        let attached = links.iter().filter(|link| link.up || link.master.is_some());
        let mut attached: Vec<_> = attached.filter_map(|link| link.alias.clone()).collect();
        for dir in &record.data_dirs {
            attached.extend(addresses(&dir.join(name))?);
        }
        if !attached.is_empty() {
            return Err(UninstallError::InUse(name.to_owned(), attached.join(", ")));
        }
    }
    let mut gone: Vec<_> = links.iter().map(|link| link.name.clone()).collect();
    gone.extend(bridge_to_remove(name, &record, &lock)?);
    for link in gone {
        coracle_linux::link::delete(&link).map_err(UninstallError::Link)?;
    }
    Rules::open()
        .and_then(|mut rules| rules.remove_network(name))
        .map_err(UninstallError::Rules)?;
    Forward::open()
        .and_then(|mut forward| forward.remove_network(name))
        .map_err(UninstallError::Rules)?;
    restore_settings(name, &record)?;
    for dir in &record.data_dirs {
        remove_files(&dir.join(name))?;
        if Record::others(name)?.is_empty() {
            remove_empty(dir);
        }
    }
    Record::remove(name, &lock)?;
    record::remove_if_empty(lock);
    Ok(())
}

/// The bridge, when it was made for this network. When another network uses it too, it is that one's from now on.
fn bridge_to_remove(name: &str, record: &Record, lock: &Lock) -> Result<Option<String>, UninstallError> {
    let Some(bridge) = record.bridge.clone().filter(|_| record.bridge_made) else {
        return Ok(None);
    };
    let others = Record::others(name)?;
    if let Some((heir, _)) = others
        .iter()
        .find(|(_, other)| other.bridge.as_ref() == Some(&bridge))
    {
        Record::change(heir, lock, |record| record.bridge_made = true)?;
        return Ok(None);
    }
    let mut socket = Socket::open(Protocol::Route).map_err(UninstallError::Link)?;
    let found = link::find(&mut socket, Which::Name(&bridge)).map_err(UninstallError::Link)?;
    Ok(found
        .filter(|link| link.kind.as_deref() == Some("bridge"))
        .map(|link| link.name))
}

/// Settings that another network needs too stay until that one goes; it has recorded what they were.
fn restore_settings(name: &str, record: &Record) -> Result<(), UninstallError> {
    let others = Record::others(name)?;
    // In reverse order of their names: ip_forward before what switching it changes, conf/all/accept_redirects.
    for (setting, before) in record.sysctls.iter().rev() {
        if others
            .iter()
            .all(|(_, other)| !other.sysctls.contains_key(setting))
        {
            // A setting of a link that is gone went with it.
            sysctl::ensure(setting, before).map_err(UninstallError::Sysctl)?;
        }
    }
    Ok(())
}

fn addresses(dir: &Path) -> Result<Vec<String>, UninstallError> {
    let store = Store::open_existing(dir).map_err(UninstallError::Store)?;
    match store
        .map(|store| store.count())
        .transpose()
        .map_err(UninstallError::Store)?
    {
        None | Some(0) => Ok(Vec::new()),
        Some(count) => Ok(vec![format!("{count} addresses in {}", dir.display())]),
    }
}

/// Directories that hold nothing any more, upwards as far as the plugins made them: to the one of CNI.
fn remove_empty(data_dir: &Path) {
    let made = data_dir
        .ancestors()
        .take_while(|dir| dir.starts_with(CNI_DIR) || *dir == data_dir);
    for dir in made {
        // Not empty, or somebody else's: it stays.
        if fs::remove_dir(dir).is_err() {
            return;
        }
    }
}

/// `dir` is the data directory and the checked name of the network, so nothing else is in it.
fn remove_files(dir: &Path) -> Result<(), UninstallError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UninstallError::Files(dir.to_owned(), error))
        }
        _ => Ok(()),
    }
}

//! What an interface was like before ADD, kept in a file until DEL puts it back.

use super::TuningError;
use super::plan::Settings;
use crate::attach::mac;
use crate::failure::Outcome;
use coracle_linux::netlink::Socket;
use coracle_linux::netlink::route::link::{self, Change, Link, Which};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

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

/// Keeps what is about to be changed.
pub(super) fn keep(path: &Path, settings: &Settings, link: &Link) -> Result<(), TuningError> {
    let backup = Backup {
        mac: link
            .mac
            .filter(|_| settings.mac.is_some())
            .map(|mac| mac.to_string()),
        promisc: settings.promiscuous.map(|_| link.promiscuous),
        mtu: settings.mtu.map(|_| link.mtu),
        allmulti: settings.all_multicast.map(|_| link.all_multicast),
        tx_q_len: settings.queue_length.map(|_| link.queue_length),
    };
    let failed = |source| TuningError::Backup {
        path: path.to_owned(),
        source,
    };
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(dir).map_err(failed)?;
    let text = serde_json::to_vec(&backup)
        .map_err(io::Error::from)
        .map_err(failed)?;
    fs::write(path, text).map_err(failed)
}

/// Puts back what was kept, if the interface is still there, and forgets it.
pub(super) fn put_back(path: &Path, socket: Option<&mut Socket>, ifname: &str) -> Outcome<()> {
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
            mac: backup.mac.as_deref().and_then(mac::parse),
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

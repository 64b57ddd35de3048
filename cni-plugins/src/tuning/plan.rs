//! What the configuration asks for, checked.

use super::TuningError;
use crate::attach::mac;
use crate::failure::{Failure, Outcome, invalid, unsupported};
use coracle_cni_protocol::plugin::Request;
use coracle_cni_protocol::{CniResult, NetworkConfig};
use coracle_linux::netlink::route::link::Mac;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const DATA_DIR: &str = "/run/cni/tuning";
const ALLOWLIST: &str = "/etc/cni/tuning/allowlist.conf";

/// What ADD changes and CHECK looks for.
#[derive(Debug)]
pub(super) struct Plan {
    /// Path of the container's network namespace.
    pub(super) netns: String,
    /// Its interface.
    pub(super) ifname: String,
    /// The result of the plugins before.
    pub(super) prev: CniResult,
    /// The changes.
    pub(super) settings: Settings,
    /// The file that keeps what was before.
    pub(super) backup: PathBuf,
}

impl Plan {
    /// Reads and checks the whole request.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        let settings = Settings::of(request)?;
        let prev = request.config.prev_result()?;
        Ok(Self {
            netns: request.netns.clone(),
            ifname: request.ifname.clone(),
            prev: prev.ok_or(TuningError::NotChained)?,
            settings,
            backup: backup(request)?,
        })
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Paths below `/proc/sys` and values.
    pub(super) sysctls: BTreeMap<String, String>,
    /// MAC address of the interface.
    pub(super) mac: Option<Mac>,
    /// Receive all packets.
    pub(super) promiscuous: Option<bool>,
    /// Largest packet, in bytes.
    pub(super) mtu: Option<u32>,
    /// Receive all multicast packets.
    pub(super) all_multicast: Option<bool>,
    /// Length of the transmit queue, in packets.
    pub(super) queue_length: Option<u32>,
}

impl Settings {
    /// Reads and checks the configuration; what `args.cni` says wins.
    pub(super) fn of(request: &Request) -> Outcome<Self> {
        let conf = &request.config;
        let args = NetworkConfig::from_map(conf.get_in("args", "cni")?.unwrap_or_default());
        let mut wanted: BTreeMap<String, String> = conf.get("sysctl")?.unwrap_or_default();
        wanted.extend(
            args.get::<BTreeMap<String, String>>("sysctl")?
                .unwrap_or_default(),
        );
        Ok(Self {
            sysctls: sysctls(&wanted, &request.ifname)?,
            mac: mac::wanted(request)?.or(mac::of_key("mac", conf.get("mac")?)?),
            promiscuous: either(&args, conf, "promisc")?,
            mtu: either(&args, conf, "mtu")?.filter(|mtu| *mtu != 0),
            all_multicast: either(&args, conf, "allmulti")?,
            queue_length: either(&args, conf, "txQLen")?,
        })
    }

    /// Whether the link itself is to be changed.
    pub(super) fn changes_link(&self) -> bool {
        self.mac.is_some()
            || self.promiscuous.is_some()
            || self.mtu.is_some()
            || self.all_multicast.is_some()
            || self.queue_length.is_some()
    }
}

/// The file that keeps what was before; known even when the rest of the configuration makes no sense.
pub(super) fn backup(request: &Request) -> Outcome<PathBuf> {
    let data_dir: String = request.config.get("dataDir")?.unwrap_or_default();
    let data_dir = if data_dir.is_empty() {
        DATA_DIR
    } else {
        data_dir.as_str()
    };
    if !data_dir.starts_with('/') {
        return Err(invalid("dataDir", "must be an absolute path"));
    }
    Ok(Path::new(data_dir).join(format!("{}_{}.json", request.container_id, request.ifname)))
}

/// What the arguments say, else what the configuration says.
fn either<T: DeserializeOwned>(args: &NetworkConfig, conf: &NetworkConfig, key: &str) -> Outcome<Option<T>> {
    match args.get(key)? {
        Some(value) => Ok(Some(value)),
        None => Ok(conf.get(key)?),
    }
}

fn sysctls(given: &BTreeMap<String, String>, ifname: &str) -> Outcome<BTreeMap<String, String>> {
    if !given.is_empty() && Path::new(ALLOWLIST).exists() {
        return Err(unsupported(
            "sysctl",
            &format!("{ALLOWLIST} exists, and allow lists are not supported yet"),
        ));
    }
    let mut paths = BTreeMap::new();
    for (key, value) in given {
        let path = sysctl_path(key, ifname)?;
        if paths.insert(path, value.clone()).is_some() {
            return Err(invalid(&format!("sysctl.{key}"), "is given twice"));
        }
    }
    Ok(paths)
}

/// `net.ipv4.conf.IFNAME.x` or `net/ipv4/conf/IFNAME/x`: the first separator decides, the other one is part of names.
/// Only network settings belong to the namespace; everything else would change the host.
fn sysctl_path(key: &str, ifname: &str) -> Result<String, Failure> {
    // STATUS and GC are about no interface: the word stays.
    let ifname = if ifname.is_empty() { "IFNAME" } else { ifname };
    let separator = if key.find('/').unwrap_or(key.len()) < key.find('.').unwrap_or(key.len()) {
        '/'
    } else {
        '.'
    };
    let parts: Vec<_> = key
        .split(separator)
        .map(|part| if part == "IFNAME" { ifname } else { part })
        .collect();
    // With dots as separators a slash stands for a dot in a name (sysctl(8)).
    let parts: Vec<_> = parts
        .iter()
        .map(|part| {
            if separator == '.' {
                part.replace('/', ".")
            } else {
                (*part).to_owned()
            }
        })
        .collect();
    let bad = parts
        .iter()
        .any(|part| part.is_empty() || part == "." || part == ".." || part.contains('/'));
    if bad || parts.first().map(String::as_str) != Some("net") || parts.len() < 2 {
        return Err(invalid(&format!("sysctl.{key}"), "is not a setting below net"));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_settings_are_reached() {
        let cases = [
            ("net.core.somaxconn", Some("net/core/somaxconn")),
            (
                "net.ipv4.conf.IFNAME.arp_filter",
                Some("net/ipv4/conf/eth0.5/arp_filter"),
            ),
            (
                "net/ipv4/conf/eth0.5/arp_filter",
                Some("net/ipv4/conf/eth0.5/arp_filter"),
            ),
            (
                "net.ipv4.conf.eth0/5.arp_filter",
                Some("net/ipv4/conf/eth0.5/arp_filter"),
            ),
            ("kernel.msgmax", None),
            ("net/../kernel/msgmax", None),
            ("net.ipv4...x", None),
            ("net", None),
            ("", None),
            ("/net/x", None),
        ];
        for (key, path) in cases {
            assert_eq!(sysctl_path(key, "eth0.5").ok().as_deref(), path, "{key}");
        }
    }
}

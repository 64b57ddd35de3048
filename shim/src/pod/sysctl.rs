//! Sysctls of a pod. Only those that a namespace of the pod's own holds are accepted: any other would change the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// A checked sysctl.
#[derive(Debug, PartialEq)]
pub(crate) struct Sysctl {
    /// Below /proc/sys, with slashes.
    path: PathBuf,
    value: String,
}

/// Why a sysctl is refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum SysctlError {
    #[error("sysctls: {0:?} is not the name of a sysctl")]
    Name(String),
    #[error("sysctls: {0:?} is not held by any namespace")]
    NotNamespaced(String),
    #[error("sysctls: {name:?} is held by the {namespace} namespace, which here is the host's")]
    HostNamespace { name: String, namespace: &'static str },
}

/// Which namespaces are the pod's own.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    pub(crate) network: bool,
    pub(crate) ipc: bool,
    pub(crate) uts: bool,
}

impl Sysctl {
    /// Checks one; the name has dots (`net.ipv4.ip_forward`) or slashes, as sysctl(8) has it: the first separator says
    /// which.
    pub(crate) fn plan(name: &str, value: &str, own: Own) -> Result<Self, SysctlError> {
        let path = slashed(name).ok_or_else(|| SysctlError::Name(name.into()))?;
        let (namespace, owned) = holder(&path, own).ok_or_else(|| SysctlError::NotNamespaced(name.into()))?;
        if owned {
            Ok(Self {
                path: PathBuf::from("/proc/sys").join(path),
                value: value.into(),
            })
        } else {
            Err(SysctlError::HostNamespace {
                name: name.into(),
                namespace,
            })
        }
    }

    /// Whether it is of one interface, which is there only once the pod's network has been attached.
    pub(crate) fn is_of_interface(&self) -> bool {
        let parts: Vec<_> = self.path.iter().skip(3).collect();
        let [net, _, kind, interface, _] = parts.as_slice() else {
            return false;
        };
        let is = |part: &OsStr, names: &[&str]| names.iter().any(|name| part == *name);
        *net == "net" && is(kind, &["conf", "neigh"]) && !is(interface, &["all", "default", "lo"])
    }

    /// What every pod with a network of its own gets: ports and ping need no privilege, since nobody else is there.
    pub(crate) fn of_every_network() -> [Self; 2] {
        let of = |name: &str, value: &str| Self {
            path: format!("/proc/sys/net/ipv4/{name}").into(),
            value: value.into(),
        };
        [
            of("ip_unprivileged_port_start", "0"),
            of("ping_group_range", "0 2147483647"),
        ]
    }

    /// Writes it. /proc/sys shows the values of the namespaces of whoever opens the file.
    pub(crate) fn apply(&self) -> Result<(), ApplyError> {
        let write = || {
            File::options()
                .write(true)
                .open(&self.path)?
                .write_all(self.value.as_bytes())
        };
        write().map_err(|source| ApplyError {
            path: self.path.clone(),
            value: self.value.clone(),
            source,
        })
    }
}

/// A sysctl that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("write {value:?} to {path:?}")]
pub(crate) struct ApplyError {
    path: PathBuf,
    value: String,
    source: io::Error,
}

fn slashed(name: &str) -> Option<String> {
    let dots_separate = name
        .find(['.', '/'])
        .is_some_and(|first| name.as_bytes()[first] == b'.');
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dots_separate {
        name.chars().map(swap).collect()
    } else {
        name.into()
    };
    let good = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    (path.contains('/') && path.split('/').all(good)).then_some(path)
}

/// The namespace that holds a sysctl (namespaces(7), ipc_namespaces(7)), and whether it is the pod's.
fn holder(path: &str, own: Own) -> Option<(&'static str, bool)> {
    let ipc = path.starts_with("kernel/shm")
        || path.starts_with("kernel/msg")
        || path == "kernel/sem"
        || path.starts_with("fs/mqueue/");
    match path {
        _ if path.starts_with("net/") => Some(("network", own.network)),
        _ if ipc => Some(("ipc", own.ipc)),
        "kernel/domainname" => Some(("uts", own.uts)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Own = Own {
        network: true,
        ipc: true,
        uts: true,
    };

    #[test]
    fn dotted_and_slashed_names_mean_the_same() {
        let dotted = Sysctl::plan("net.ipv4.conf.eth0/1.rp_filter", "1", ALL).unwrap();
        assert_eq!(
            dotted,
            Sysctl::plan("net/ipv4/conf/eth0.1/rp_filter", "1", ALL).unwrap()
        );
        assert_eq!(
            dotted.path,
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter")
        );
    }

    #[test]
    fn those_of_an_interface_wait_for_it() {
        for (name, of_interface) in [
            ("net.ipv4.conf.eth0.arp_ignore", true),
            ("net/ipv6/conf/eth0.7/accept_ra", true),
            ("net.ipv4.neigh.net1.base_reachable_time_ms", true),
            ("net.ipv4.conf.all.arp_ignore", false),
            ("net.ipv6.conf.default.accept_ra", false),
            ("net.ipv4.conf.lo.rp_filter", false),
            ("net.ipv4.ip_forward", false),
            ("net.core.somaxconn", false),
            ("kernel.shmmax", false),
        ] {
            let planned = Sysctl::plan(name, "1", ALL).unwrap();
            assert_eq!(planned.is_of_interface(), of_interface, "{name}");
        }
    }

    #[test]
    fn what_would_change_the_host_is_refused() {
        let host = Own {
            network: false,
            ipc: false,
            uts: false,
        };
        for (name, own) in [
            ("vm.swappiness", ALL),
            ("kernel.hostname", ALL),
            ("net", ALL),
            ("net..ipv4", ALL),
            ("net/../vm/swappiness", ALL),
            ("net.ipv4.ip_forward", host),
            ("kernel.shmmax", host),
            ("fs.mqueue.msg_max", host),
            ("", ALL),
        ] {
            assert!(
                Sysctl::plan(name, "1", own)
                    .unwrap_err()
                    .to_string()
                    .contains(name),
                "{name}"
            );
        }
    }
}

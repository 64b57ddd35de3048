//! The host's ends of a pod's links: they go with the pod's network namespace, unless somebody keeps that alive.
//!
//! Looked at for two seconds after the namespace was given up, in the background; what is still there then is deleted, and
//! the log says who holds the namespace.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_linux::link;
use serde_json::Value;

use crate::error::chain;
use crate::store::SandboxRecord;

/// How long the kernel may take to remove the links of a namespace.
const GONE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// The links of one pod and the namespace that they go with.
#[derive(Debug)]
pub(crate) struct HostLinks {
    sandbox: String,
    names: Vec<String>,
    netns_path: String,
    /// Device and inode; None: the path is gone already.
    netns: Option<(u64, u64)>,
}

impl HostLinks {
    /// Reads the result of ADD; to be called while the namespace is still there.
    pub(crate) fn of(record: &SandboxRecord) -> HostLinks {
        HostLinks {
            sandbox: record.id.clone(),
            names: names(&record.cni_result),
            netns_path: record.netns_path.clone(),
            netns: identity(Path::new(&record.netns_path)),
        }
    }

    /// Returns once no link is left.
    pub(crate) async fn gone(self) {
        let deadline = Instant::now() + GONE;
        while self.left().next().is_some() {
            if Instant::now() > deadline {
                self.delete();
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn left(&self) -> impl Iterator<Item = &String> {
        self.names
            .iter()
            .filter(|name| link::exists(name).unwrap_or(false))
    }

    fn delete(&self) {
        let holders = self.holders();
        for name in self.left() {
            tracing::warn!(
                sandbox = self.sandbox,
                link = name,
                ?holders,
                "the network namespace is kept alive; deleting the link"
            );
            if let Err(error) = link::delete(name) {
                tracing::warn!(sandbox = self.sandbox, link = name, error = %chain(&error), "cannot delete the link");
            }
        }
    }

    /// Processes that live in the namespace, hold a descriptor of it, or have its path mounted.
    fn holders(&self) -> Vec<String> {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().into_string().ok());
        pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|pid| self.holds(pid))
            .collect()
    }

    fn holds(&self, pid: &str) -> bool {
        let process = Path::new("/proc").join(pid);
        let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        let is_it = |path: &Path| self.netns.is_some() && identity(path) == self.netns;
        let descriptors = std::fs::read_dir(process.join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        mounts.contains(&self.netns_path)
            || is_it(&process.join("ns/net"))
            || descriptors.into_iter().any(|entry| is_it(&entry.path()))
    }
}

/// What tells namespaces apart (namespaces(7)). A link's text does not: a descriptor opened by path shows the path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The links outside the pod that exist for it alone. A bridge is in the result too; it belongs to the network.
fn names(result: &str) -> Vec<String> {
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    let interfaces = result["interfaces"].as_array().cloned().unwrap_or_default();
    let outside = interfaces
        .iter()
        .filter(|interface| interface["sandbox"].as_str().is_none_or(str::is_empty));
    outside
        .filter_map(|interface| interface["name"].as_str())
        .filter(|name| is_veth(name))
        .map(str::to_owned)
        .collect()
}

/// A veth has a peer and, unlike bridges, VXLAN or MACVLAN devices, no device type.
fn is_veth(name: &str) -> bool {
    let read =
        |file: &str| std::fs::read_to_string(format!("/sys/class/net/{name}/{file}")).unwrap_or_default();
    !name.contains('/') && read("iflink") != read("ifindex") && !read("uevent").contains("DEVTYPE=")
}

//! What is saved of a pod and of a container: what was asked, what was decided, and how far it got. What can be
//! observed (pids, whether a process lives, what a cgroup uses) is not in here.

use coracle_cri_api::runtime_v1::{ContainerConfig, PodSandboxConfig};

/// How far a sandbox got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum SandboxPhase {
    /// RunPodSandbox is under way: found at a start, it is undone.
    Starting = 0,
    Ready = 1,
    /// Stopped, or its shim died. Its network may still have to be given back: `attached` says so.
    NotReady = 2,
    /// RemovePodSandbox is under way: found at a start, it is finished.
    Removing = 3,
}

/// The record of one pod.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, required, tag = "2")]
    pub(crate) config: PodSandboxConfig,
    #[prost(string, tag = "3")]
    pub(crate) runtime_handler: String,
    /// Nanoseconds since the epoch.
    #[prost(int64, tag = "4")]
    pub(crate) created_at: i64,
    #[prost(enumeration = "SandboxPhase", tag = "5")]
    pub(crate) phase: i32,
    #[prost(string, tag = "6")]
    pub(crate) boot_id: String,
    /// Parent of the containers' cgroups.
    #[prost(string, tag = "7")]
    pub(crate) cgroup_parent: String,
    /// Of that cgroup and those above it, what the daemon made, and so removes; outermost first.
    #[prost(string, repeated, tag = "8")]
    pub(crate) owned_cgroups: Vec<String>,
    /// Where the network namespace is bound; empty: the host's network.
    #[prost(string, tag = "9")]
    pub(crate) netns_path: String,
    /// The network configuration that ADD was called with: DEL needs the same one, whatever the file says by then.
    #[prost(string, tag = "10")]
    pub(crate) network: String,
    /// The result of ADD (JSON); empty while there is none.
    #[prost(string, tag = "11")]
    pub(crate) cni_result: String,
    #[prost(string, repeated, tag = "12")]
    pub(crate) ips: Vec<String>,
    /// Set before ADD is called, cleared after DEL: in between, addresses and rules exist.
    #[prost(bool, tag = "13")]
    pub(crate) attached: bool,
    /// Host directories that RunPodSandbox makes: taken back, where they are empty, if it does not come to its end.
    #[prost(string, repeated, tag = "14")]
    pub(crate) made: Vec<String>,
}

impl SandboxRecord {
    /// Whether the parent of its containers' cgroups is nobody else's: the request named none.
    pub(crate) fn has_private_cgroup(&self) -> bool {
        self.cgroup_parent.ends_with(&self.id)
    }
}

/// How far a container got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ContainerPhase {
    /// CreateContainer is under way: found at a start, it is undone.
    Creating = 0,
    /// Made; whether it runs is asked from the shim.
    Created = 1,
    Exited = 2,
    /// RemoveContainer is under way: found at a start, it is finished.
    Removing = 3,
}

/// The record of one container.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerRecord {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) sandbox_id: String,
    #[prost(message, required, tag = "3")]
    pub(crate) config: ContainerConfig,
    #[prost(string, tag = "4")]
    pub(crate) image_id: String,
    /// Directories of the image's layers, relative to the layer store, uppermost first.
    #[prost(string, repeated, tag = "5")]
    pub(crate) lower: Vec<String>,
    #[prost(int64, tag = "6")]
    pub(crate) created_at: i64,
    #[prost(enumeration = "ContainerPhase", tag = "7")]
    pub(crate) phase: i32,
    #[prost(string, tag = "8")]
    pub(crate) boot_id: String,
    #[prost(message, optional, tag = "9")]
    pub(crate) exit: Option<ExitRecord>,
    #[prost(string, tag = "10")]
    pub(crate) cgroup: String,
    /// Absolute; empty: no log.
    #[prost(string, tag = "11")]
    pub(crate) log_path: String,
    /// The kernel's number.
    #[prost(int32, tag = "12")]
    pub(crate) stop_signal: i32,
    #[prost(uint32, tag = "13")]
    pub(crate) uid: u32,
    #[prost(uint32, tag = "14")]
    pub(crate) gid: u32,
    #[prost(uint32, repeated, tag = "15")]
    pub(crate) groups: Vec<u32>,
    /// The OCI process object (JSON): what exec starts from.
    #[prost(string, tag = "17")]
    pub(crate) process: String,
    /// Nanoseconds since the epoch, 0: never started. Kept for the case that the shim, which knows, dies.
    #[prost(int64, tag = "18")]
    pub(crate) started_at: i64,
    /// Host directories that CreateContainer makes for its volumes: taken back, where they are empty, if it does not come
    /// to its end.
    #[prost(string, repeated, tag = "19")]
    pub(crate) made: Vec<String>,
}

/// How a container ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ExitRecord {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(bool, tag = "2")]
    pub(crate) oom_killed: bool,
    #[prost(int64, tag = "3")]
    pub(crate) finished_at: i64,
    /// What ContainerStatus says beyond the code, when there is something to say.
    #[prost(string, tag = "4")]
    pub(crate) message: String,
    /// Its program was never executed.
    #[prost(bool, tag = "5")]
    pub(crate) start_failed: bool,
}

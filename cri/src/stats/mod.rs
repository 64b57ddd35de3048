//! Figures of pods and containers: read from cgroup files and /proc when asked, in microseconds and without asking any
//! shim. What needs two looks (CPU rate) or a walk (writable layer) comes from a background sample.

mod interfaces;
mod sample;

use std::path::Path;

use coracle_cri_api::runtime_v1::{
    ContainerAttributes, ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage,
    LinuxPodSandboxStats, MemoryUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats, ProcessUsage,
    SwapUsage, UInt64Value,
};
use coracle_linux::cgroup::Memory;

use crate::cgroup::Hierarchies;
use crate::clock::now;
use crate::pods::{Container, Pods, Progress, Sandbox};

pub(crate) use sample::{Sampler, Samples};

/// What figures are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures<'a> {
    pub(crate) pods: &'a Pods,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) samples: &'a Samples,
    /// Where the writable layers lie.
    pub(crate) root: &'a Path,
}

/// The figures of one container; one that does not run has no CPU and memory.
pub(crate) fn container(figures: Figures<'_>, container: &Container) -> ContainerStats {
    let record = container.record();
    let running = matches!(container.progress(), Progress::Running { .. });
    let cgroup = Some(record.cgroup.as_str()).filter(|_| running);
    let memory = cgroup.and_then(|cgroup| figures.hierarchies.memory(cgroup));
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        cpu: cgroup.and_then(|cgroup| cpu(figures, cgroup, &record.id)),
        memory: memory.as_ref().map(memory_usage),
        writable_layer: writable_layer(figures, &record.id),
        swap: memory.as_ref().map(swap_usage),
        io: None,
    }
}

/// The figures of one pod and its running containers.
pub(crate) fn pod(figures: Figures<'_>, sandbox: &Sandbox) -> PodSandboxStats {
    let record = sandbox.record();
    let cgroup = record.cgroup_parent.as_str();
    let containers = figures.pods.containers_of(&record.id);
    let running = containers
        .iter()
        .filter(|each| matches!(each.progress(), Progress::Running { .. }));
    PodSandboxStats {
        linux: Some(LinuxPodSandboxStats {
            cpu: cpu(figures, cgroup, &record.id),
            memory: figures.hierarchies.memory(cgroup).as_ref().map(memory_usage),
            network: network(sandbox, &record.netns_path),
            process: figures
                .hierarchies
                .process_count(cgroup)
                .map(|count| ProcessUsage {
                    timestamp: now(),
                    process_count: value(count),
                }),
            containers: running.map(|each| container(figures, each)).collect(),
            io: None,
        }),
        attributes: Some(PodSandboxAttributes {
            id: record.id,
            metadata: record.config.metadata,
            labels: record.config.labels,
            annotations: record.config.annotations,
        }),
        windows: None,
    }
}

/// Where images and writable layers lie; one name for both, since clients compare them to see whether they share a disk.
pub(crate) fn file_system(root: &Path) -> FilesystemIdentifier {
    FilesystemIdentifier {
        mountpoint: root.display().to_string(),
    }
}

/// CRI's way to say that a number is there.
pub(crate) fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu(figures: Figures<'_>, cgroup: &str, id: &str) -> Option<CpuUsage> {
    let total = figures.hierarchies.cpu_ns(cgroup)?;
    Some(CpuUsage {
        timestamp: now(),
        usage_core_nano_seconds: value(total),
        usage_nano_cores: figures.samples.nano_cores(id).and_then(value),
        psi: None,
    })
}

fn memory_usage(memory: &Memory) -> MemoryUsage {
    let working_set = memory.usage.saturating_sub(memory.inactive_file);
    MemoryUsage {
        timestamp: now(),
        working_set_bytes: value(working_set),
        available_bytes: memory
            .limit
            .and_then(|limit| value(limit.saturating_sub(working_set))),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: None,
    }
}

fn swap_usage(memory: &Memory) -> SwapUsage {
    SwapUsage {
        timestamp: now(),
        swap_available_bytes: None,
        swap_usage_bytes: value(memory.swap),
    }
}

fn writable_layer(figures: Figures<'_>, id: &str) -> Option<FilesystemUsage> {
    let sample = figures.samples.writable_layer(id)?;
    Some(FilesystemUsage {
        timestamp: sample.at,
        fs_id: Some(file_system(figures.root)),
        used_bytes: value(sample.bytes),
        inodes_used: value(sample.inodes),
    })
}

/// The shim lives in the pod's network namespace. A pod on the host's network has no figures of its own.
fn network(sandbox: &Sandbox, netns_path: &str) -> Option<NetworkUsage> {
    let shim = sandbox.shim().filter(|_| !netns_path.is_empty())?;
    let text = std::fs::read_to_string(format!("/proc/{}/net/dev", shim.pid)).ok()?;
    let mut interfaces = interfaces::parse(&text);
    let default = interfaces.iter().position(|interface| interface.name == "eth0");
    Some(NetworkUsage {
        timestamp: now(),
        default_interface: default.map(|index| interfaces.remove(index)),
        interfaces,
    })
}

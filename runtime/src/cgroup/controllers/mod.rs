//! One file for each controller: its fields of `linux.resources` become writes to its control files
//! (`v1`).

pub(super) mod blkio;
pub(super) mod cpu;
pub(super) mod cpuset;
pub(super) mod devices;
pub(super) mod hugetlb;
pub(super) mod memory;
pub(super) mod network;
pub(super) mod pids;
pub(super) mod rdma;

use coracle_linux::cgroup::Layout;
use oci_spec::runtime::LinuxResources;

use super::SetupError;
use super::setting::{IfMissing, Settings, Step};

/// The checked form of `linux.resources`.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    pub(super) settings: Settings,
    pub(super) cpuset: cpuset::Cpuset,
    pub(super) devices: Option<devices::Devices>,
}

/// Checks every field but `devices`, and says which files of the v1 controllers it becomes.
pub(super) fn v1(resources: &LinuxResources) -> Result<Limits, SetupError> {
    let mut settings = Settings::default();
    let mut cpuset = cpuset::Cpuset::default();
    if resources
        .unified()
        .as_ref()
        .is_some_and(|unified| !unified.is_empty())
    {
        return Err(SetupError::NotSupported {
            field: "linux.resources.unified",
            reason: "it needs cgroup v2",
        });
    }
    if let Some(memory) = resources.memory() {
        memory::v1(memory, &mut settings)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::v1(cpu, &mut settings)?;
        cpuset = cpuset::v1(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        pids::v1(pids, &mut settings);
    }
    if let Some(block_io) = resources.block_io() {
        blkio::v1(block_io, &mut settings)?;
    }
    hugetlb::v1(
        resources.hugepage_limits().as_deref().unwrap_or_default(),
        &mut settings,
    )?;
    if let Some(network) = resources.network() {
        network::v1(network, &mut settings)?;
    }
    if let Some(rdma) = resources.rdma() {
        rdma::v1(rdma, &mut settings)?;
    }
    Ok(Limits {
        settings,
        cpuset,
        devices: None,
    })
}

/// Fails before anything is made when a limit has no controller here. On hosts with cgroup v2 alone no limit can be set
/// so far: each controller has its `v1`, and none its `v2`.
pub(super) fn check_controllers(limits: &Limits, layout: &Layout) -> Result<(), SetupError> {
    let v2_only = "cgroup v2 only hosts are not supported yet";
    let check = |controller: &'static str, field| {
        if layout.controller(controller).is_some() || (controller == "hugetlb" && layout.unified.is_some()) {
            Ok(())
        } else if layout.is_v2_only() {
            Err(SetupError::NotSupported {
                field,
                reason: v2_only,
            })
        } else {
            Err(SetupError::NoController { field, controller })
        }
    };
    for step in &limits.settings.steps {
        let (Step::Set(setting) | Step::Both(setting, _)) = step;
        if setting.if_missing == IfMissing::Fail {
            check(setting.controller, setting.field)?;
        }
    }
    if !limits.cpuset.is_empty() {
        check("cpuset", "linux.resources.cpu.cpus")?;
    }
    // Only rules of the specification count as asked for, not the list that every container gets.
    let asked = limits.devices.as_ref().is_some_and(|devices| devices.asked);
    if asked {
        check("devices", "linux.resources.devices")
    } else {
        Ok(())
    }
}

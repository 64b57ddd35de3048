//! What the daemon itself may do, and so the most it can give: read once at its start.

use std::path::Path;

use crate::cgroup::Hierarchies;

const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// The daemon's own rights and the kernel's features, as far as specs depend on them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    /// Bit mask of the effective capabilities.
    pub(crate) capabilities: u64,
    /// The lowest oom_score_adj that can be given.
    pub(crate) least_oom_score_adj: i64,
    /// No v1 controller is mounted.
    pub(crate) unified_cgroups_only: bool,
    pub(crate) apparmor: bool,
}

impl Host {
    /// Reads /proc/self.
    pub(crate) fn observe(hierarchies: Hierarchies) -> Result<Host, std::io::Error> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let capabilities = effective_capabilities(&status);
        let own = std::fs::read_to_string("/proc/self/oom_score_adj")?
            .trim()
            .parse()
            .unwrap_or(0);
        let free = capabilities & CAP_SYS_RESOURCE != 0;
        Ok(Host {
            capabilities,
            least_oom_score_adj: if free { -1000 } else { own },
            unified_cgroups_only: hierarchies.are_unified_only(),
            apparmor: Path::new("/sys/module/apparmor/parameters/enabled").exists(),
        })
    }
}

fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

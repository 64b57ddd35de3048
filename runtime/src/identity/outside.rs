//! What a process in a user namespace cannot set for itself: limits and the out-of-memory score.

use std::path::Path;

use rustix::process::Pid;

use super::{IdentityError, limits, refusal, write};

/// What the process's maker sets, since the kernel asks for capabilities of the host's user namespace.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    pub(super) rlimits: Vec<limits::Limit>,
    pub(super) oom_score_adj: Option<i32>,
}

impl Outside {
    /// Gives a warning for the log when the score had to stay at the maker's own.
    pub(crate) fn set_oom_score_adj(&self, pid: Pid) -> Result<Option<String>, IdentityError> {
        let process = pid.as_raw_nonzero().to_string();
        self.oom_score_adj
            .map_or(Ok(None), |adj| set_oom_score_adj(&process, adj))
    }

    /// As late as can be: they hold up what the process itself still has to do.
    pub(crate) fn set_limits(&self, pid: Pid) -> Result<(), IdentityError> {
        limits::apply_to(pid, &self.rlimits)
    }
}

/// Lowering it needs CAP_SYS_RESOURCE: without, the process keeps what it inherited from the daemon. `process` is its name
/// in /proc.
pub(super) fn set_oom_score_adj(process: &str, adj: i32) -> Result<Option<String>, IdentityError> {
    let file = Path::new("/proc").join(process).join("oom_score_adj");
    match write(&file, &adj.to_string()) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let own = std::fs::read_to_string(&file).unwrap_or_default();
            let own = own.trim();
            Ok(Some(format!(
                "process.oomScoreAdj: {adj} needs CAP_SYS_RESOURCE here; it stays at {own}"
            )))
        }
        Err(source) => Err(refusal("process.oomScoreAdj", &adj.to_string(), source)),
    }
}

//! What the kernel killed for want of memory: the counter `oom_kill` (v1: `memory.oom_control`, since 4.13; v2:
//! `memory.events`).

use super::files::{gone_is_none, read, value};
use super::{Cgroup, CgroupError};

impl Cgroup {
    /// How many processes of this cgroup and those below it the kernel has killed for want of memory. `None` when
    /// the cgroup is gone or has no memory controller.
    ///
    /// # Errors
    /// The counter cannot be read.
    pub fn oom_kills(&self) -> Result<Option<u64>, CgroupError> {
        let (dir, file) = match (self.v1_directory("memory"), self.unified_directory()) {
            (Some(dir), _) => (dir, "memory.oom_control"),
            (None, Some(dir)) => (dir, "memory.events"),
            (None, None) => return Ok(None),
        };
        let text = gone_is_none(read(&dir, file))?;
        Ok(text.and_then(|text| value(&text, "oom_kill")))
    }
}

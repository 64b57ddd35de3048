//! Stopping and continuing everything in a cgroup: the v1 freezer, or `cgroup.freeze` where only v2 is there.

use std::path::Path;
use std::time::{Duration, Instant};

use super::files::{children, gone_is_none, read, write};
use super::{Cgroup, CgroupError};

/// What the freezer says about a cgroup, with everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezerState {
    /// Everything runs.
    Thawed,
    /// Some processes have not stopped yet.
    Freezing,
    /// Everything is stopped.
    Frozen,
}

impl Cgroup {
    /// The state now; without any freezer everything always runs.
    ///
    /// # Errors
    /// The state cannot be read. A cgroup that is gone counts as thawed.
    pub fn freezer_state(&self) -> Result<FreezerState, CgroupError> {
        if let Some(dir) = self.v1_directory("freezer") {
            return Ok(
                match gone_is_none(read(&dir, "freezer.state"))?
                    .as_deref()
                    .map(str::trim)
                {
                    Some("FROZEN") => FreezerState::Frozen,
                    Some("FREEZING") => FreezerState::Freezing,
                    _ => FreezerState::Thawed,
                },
            );
        }
        let Some(dir) = self.unified_directory() else {
            return Ok(FreezerState::Thawed);
        };
        let asked = gone_is_none(read(&dir, "cgroup.freeze"))?.is_some_and(|text| text.trim() == "1");
        let events = gone_is_none(read(&dir, "cgroup.events"))?.unwrap_or_default();
        Ok(match (asked, events.lines().any(|line| line == "frozen 1")) {
            (_, true) => FreezerState::Frozen,
            (true, false) => FreezerState::Freezing,
            (false, false) => FreezerState::Thawed,
        })
    }

    /// Stops everything; says whether it stood still within `patience` (a process in an uninterruptible sleep stops
    /// only when it wakes).
    ///
    /// # Errors
    /// The freezer cannot be written.
    pub fn freeze(&self, patience: Duration) -> Result<bool, CgroupError> {
        let end = Instant::now() + patience;
        loop {
            // The v1 freezer misses processes that were being forked; writing again finds them.
            self.write_freezer("FROZEN", "1")?;
            if self.freezer_state()? == FreezerState::Frozen {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Lets everything run again; without any freezer it does.
    ///
    /// # Errors
    /// The freezer cannot be written.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match self.write_freezer("THAWED", "0") {
            Err(CgroupError::NoFreezer) => Ok(()),
            done => done,
        }
    }

    /// Lets everything run again that is to be killed, also what somebody has stopped in a cgroup below: in a v1 hierarchy
    /// a process dies only when it thaws.
    ///
    /// # Errors
    /// As [`Cgroup::thaw`].
    pub fn thaw_to_kill(&self) -> Result<(), CgroupError> {
        self.thaw()?;
        self.v1_directory("freezer")
            .map_or(Ok(()), |dir| thaw_below(&dir))
    }

    fn write_freezer(&self, v1: &str, v2: &str) -> Result<(), CgroupError> {
        let done = match (self.v1_directory("freezer"), self.unified_directory()) {
            (Some(dir), _) => write(&dir, "freezer.state", v1),
            (None, Some(dir)) => write(&dir, "cgroup.freeze", v2),
            (None, None) => return Err(CgroupError::NoFreezer),
        };
        gone_is_none(done).map(drop)
    }
}

fn thaw_below(dir: &Path) -> Result<(), CgroupError> {
    children(dir).iter().try_for_each(|child| {
        gone_is_none(write(child, "freezer.state", "THAWED"))?;
        thaw_below(child)
    })
}

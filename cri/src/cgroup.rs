//! Cgroups as records name them, by their path as text: the figures of pods and containers, and the last resort when a
//! shim died.
//!
//! Making and limiting cgroups is the runtime's work, the mechanics are `coracle_linux::cgroup`'s. Here they are only read,
//! emptied and removed, in every hierarchy that is mounted.

use std::path::Path;
use std::time::Duration;

use coracle_linux::cgroup::{Cgroup, CgroupError, Layout, Memory};
use rustix::process::Pid;

/// How long processes that were killed may take to leave.
const LEAVE: Duration = Duration::from_secs(5);

/// The mounted hierarchies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hierarchies(&'static Layout);

/// Why a cgroup could not be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("cgroup {0}: processes did not leave after SIGKILL")]
    StillThere(String),
}

impl Hierarchies {
    /// Those of this host.
    pub(crate) fn discover() -> Result<Hierarchies, CgroupError> {
        Layout::detect().map(Hierarchies)
    }

    /// Whether no v1 hierarchy can freeze a cgroup.
    pub(crate) fn are_unified_only(self) -> bool {
        self.0.controller("freezer").is_none()
    }

    /// Whether the cgroup exists anywhere.
    pub(crate) fn exists(self, cgroup: &str) -> bool {
        self.at(cgroup).is_ok_and(|cgroup| cgroup.exists())
    }

    /// The processes of a cgroup and those below it, in any hierarchy.
    pub(crate) fn processes(self, cgroup: &str) -> Result<Vec<Pid>, CgroupError> {
        self.at(cgroup)?.procs_anywhere()
    }

    /// How many processes there are.
    pub(crate) fn process_count(self, cgroup: &str) -> Option<u64> {
        let count = self.at(cgroup).ok()?.procs().ok()?.len();
        u64::try_from(count).ok()
    }

    /// Nanoseconds of CPU time, of the cgroup and all below it.
    pub(crate) fn cpu_ns(self, cgroup: &str) -> Option<u64> {
        self.at(cgroup).ok()?.cpu_ns().ok()?
    }

    /// Memory of the cgroup and all below it.
    pub(crate) fn memory(self, cgroup: &str) -> Option<Memory> {
        self.at(cgroup).ok()?.memory().ok()?
    }

    /// Ends every process and removes the cgroup with what is below it; none there is no error. Blocks until the
    /// processes have left.
    pub(crate) fn end(self, cgroup: &str) -> Result<(), EndError> {
        let found = self.at(cgroup)?;
        if !found.kill_until_empty(LEAVE)? {
            return Err(EndError::StillThere(cgroup.to_owned()));
        }
        Ok(found.remove()?)
    }

    /// Removes the cgroup where it is empty; says nothing where it is not.
    pub(crate) fn remove_if_empty(self, cgroup: &str) {
        if let Ok(cgroup) = self.at(cgroup) {
            cgroup.remove_if_empty();
        }
    }

    /// Makes the cgroup in every hierarchy; false where that cannot be done.
    #[cfg(test)]
    pub(crate) fn make(self, cgroup: &str) -> bool {
        Cgroup::make(self.0, Path::new(cgroup))
            .map(coracle_linux::cgroup::Made::keep)
            .is_ok()
    }

    fn at(self, cgroup: &str) -> Result<Cgroup, CgroupError> {
        Cgroup::at(self.0, Path::new(cgroup))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_with_a_stubborn_process_is_emptied_and_removed() {
        let hierarchies = Hierarchies::discover().unwrap();
        let cgroup = format!("/coracle-cri-test-{}", std::process::id());
        if !hierarchies.make(&format!("{cgroup}/below")) {
            eprintln!("skipped: cgroups cannot be made here");
            hierarchies.end(&cgroup).unwrap();
            return;
        }
        // It starts nothing, so that nothing stays behind outside the cgroup.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; read never"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let freezer = hierarchies.at(&cgroup).unwrap().directory("freezer").unwrap();
        std::fs::write(freezer.join("below/cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(hierarchies.processes(&cgroup).unwrap().len(), 1);
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        hierarchies.end(&cgroup).unwrap();
        assert!(!reaper.join().unwrap().success());
        assert!(!hierarchies.exists(&cgroup));
        hierarchies.end(&cgroup).unwrap();
    }
}

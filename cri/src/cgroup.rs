//! Cgroups seen from outside: the figures of pods and containers, and the last resort when a shim died.
//!
//! Making and limiting cgroups is the runtime's work. Here they are only read, emptied and removed, in every hierarchy
//! that is mounted (v1 controllers, and the unified one: cgroups(7)).

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long processes that were killed may take to leave.
const LEAVE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// The mounted hierarchies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hierarchies {
    v1: Vec<Hierarchy>,
    unified: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Hierarchy {
    /// Controllers, or `name=...`.
    options: Vec<String>,
    mount_point: PathBuf,
}

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("remove cgroup {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error("cgroup {0}: processes did not leave after SIGKILL")]
    StillThere(String),
}

impl Hierarchies {
    /// Reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
    pub(crate) fn discover() -> Result<Hierarchies, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = std::fs::read_to_string(path).map_err(|source| CgroupError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Hierarchies::parse(&text))
    }

    fn parse(mountinfo: &str) -> Hierarchies {
        let mut found = Hierarchies::default();
        for line in mountinfo.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount_point) = mount.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut filesystem = filesystem.split(' ');
            match (filesystem.next(), filesystem.nth(1)) {
                (Some("cgroup2"), _) => found.unified = found.unified.or(Some(mount_point)),
                (Some("cgroup"), Some(options)) => {
                    let options = options.split(',').map(str::to_owned).collect();
                    found.v1.push(Hierarchy { options, mount_point });
                }
                _ => {}
            }
        }
        found
    }

    /// The cgroup's directory where `controller` is: its v1 hierarchy, else the unified one.
    pub(crate) fn directory(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        self.v1_directory(controller, cgroup)
            .or_else(|| self.unified.as_deref().map(|root| below(root, cgroup)))
    }

    /// The cgroup's directory in the v1 hierarchy of `controller`.
    pub(crate) fn v1_directory(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let of_controller = |hierarchy: &&Hierarchy| hierarchy.options.iter().any(|name| name == controller);
        self.v1
            .iter()
            .find(of_controller)
            .map(|hierarchy| below(&hierarchy.mount_point, cgroup))
    }

    /// Whether the cgroup exists anywhere.
    pub(crate) fn exists(&self, cgroup: &str) -> bool {
        self.directories(cgroup).any(|directory| directory.is_dir())
    }

    /// Makes the cgroup in every hierarchy; false where that cannot be done.
    #[cfg(test)]
    pub(crate) fn make(&self, cgroup: &str) -> bool {
        self.directories(cgroup)
            .all(|directory| std::fs::create_dir_all(directory).is_ok())
    }

    /// The processes of a cgroup and those below it, in any hierarchy.
    pub(crate) fn processes(&self, cgroup: &str) -> Vec<Pid> {
        let mut pids: Vec<Pid> = self
            .directories(cgroup)
            .flat_map(|directory| subtree(&directory))
            .flat_map(|directory| processes_of(&directory))
            .collect();
        pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        pids.dedup();
        pids
    }

    /// How many processes there are, in the hierarchy that counts them.
    pub(crate) fn process_count(&self, cgroup: &str) -> Option<u64> {
        let directory = self.directory("pids", cgroup)?;
        Some(
            subtree(&directory)
                .iter()
                .map(|directory| processes_of(directory).len() as u64)
                .sum(),
        )
    }

    /// Ends every process. v1: frozen, so that nothing forks meanwhile; killed; thawed, since a frozen process does not
    /// die. Blocks until they have left.
    pub(crate) fn kill(&self, cgroup: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + LEAVE;
        loop {
            let pids = self.processes(cgroup);
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(CgroupError::StillThere(cgroup.to_owned()));
            }
            self.kill_once(cgroup, &pids)?;
            std::thread::sleep(PAUSE);
        }
    }

    /// Removes the cgroup and what is below it in every hierarchy; none there is no error.
    pub(crate) fn remove(&self, cgroup: &str) -> Result<(), CgroupError> {
        let deadline = Instant::now() + LEAVE;
        for directory in self.directories(cgroup) {
            for directory in subtree(&directory).into_iter().rev() {
                remove_directory(&directory, deadline)?;
            }
        }
        Ok(())
    }

    /// Removes the cgroup where it is empty; says nothing where it is not.
    pub(crate) fn remove_if_empty(&self, cgroup: &str) {
        for directory in self.directories(cgroup) {
            // EBUSY: in use; ENOENT: gone. Both are fine here.
            let _ = std::fs::remove_dir(directory);
        }
    }

    fn kill_once(&self, cgroup: &str, pids: &[Pid]) -> Result<(), CgroupError> {
        let freezer = self
            .v1_directory("freezer", cgroup)
            .filter(|directory| directory.is_dir());
        if let Some(directory) = &freezer {
            write(&directory.join("freezer.state"), "FROZEN")?;
        }
        for pid in pids {
            // ESRCH: it has ended by itself.
            let _ = kill_process(*pid, Signal::KILL);
        }
        match &freezer {
            Some(directory) => write(&directory.join("freezer.state"), "THAWED"),
            None => Ok(()),
        }
    }

    fn directories<'c>(&'c self, cgroup: &'c str) -> impl Iterator<Item = PathBuf> + 'c {
        let v1 = self.v1.iter().map(|hierarchy| hierarchy.mount_point.as_path());
        v1.chain(self.unified.as_deref())
            .map(move |root| below(root, cgroup))
    }
}

fn below(root: &Path, cgroup: &str) -> PathBuf {
    root.join(cgroup.trim_start_matches('/'))
}

/// The directory and all below it, parents first.
fn subtree(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut all = vec![directory.to_owned()];
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(subtree(&entry.path()));
        }
    }
    all
}

fn processes_of(directory: &Path) -> Vec<Pid> {
    // Gone in the meantime: no processes.
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect()
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    match std::fs::write(path, value) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CgroupError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// A cgroup is busy for a moment after its last process was reaped.
fn remove_directory(directory: &Path, deadline: Instant) -> Result<(), CgroupError> {
    loop {
        match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) if source.kind() != io::ErrorKind::ResourceBusy || Instant::now() > deadline => {
                return Err(CgroupError::Remove {
                    path: directory.to_owned(),
                    source,
                });
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_mounts_are_told_apart() {
        let found = Hierarchies::parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
             37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        let directory = |controller| found.directory(controller, "/a/b").unwrap().display().to_string();
        assert_eq!(directory("cpuacct"), "/sys/fs/cgroup/cpu,cpuacct/a/b");
        assert_eq!(directory("hugetlb"), "/sys/fs/cgroup/unified/a/b");
        assert_eq!(found.v1_directory("hugetlb", "/a/b"), None);
    }

    #[test]
    fn a_cgroup_with_a_stubborn_process_is_emptied_and_removed() {
        let hierarchies = Hierarchies::discover().unwrap();
        let cgroup = format!("/coracle-cri-test-{}", std::process::id());
        if !hierarchies.make(&format!("{cgroup}/below")) {
            eprintln!("skipped: cgroups cannot be made here");
            hierarchies.remove(&cgroup).unwrap();
            return;
        }
        // It starts nothing, so that nothing stays behind outside the cgroup.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "trap '' TERM; read never"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let freezer = hierarchies
            .directory("freezer", &cgroup)
            .unwrap()
            .join("below/cgroup.procs");
        std::fs::write(freezer, child.id().to_string()).unwrap();
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        hierarchies.kill(&cgroup).unwrap();
        assert!(!reaper.join().unwrap().success());
        hierarchies.remove(&cgroup).unwrap();
        assert!(!hierarchies.exists(&cgroup));
        hierarchies.remove(&cgroup).unwrap();
    }
}

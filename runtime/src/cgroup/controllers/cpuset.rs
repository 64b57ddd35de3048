//! `linux.resources.cpu.cpus` and `mems`.
//!
//! A v1 cpuset is born empty and refuses processes (ENOSPC) until it has processors and memory nodes, so every level
//! that is made gets its parent's values.

use std::path::Path;

use oci_spec::runtime::LinuxCpu;

use coracle_linux::cgroup::files::{read, write};

use crate::cgroup::SetupError;

/// The values for the container's own level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cgroup) struct Cpuset {
    pub(in crate::cgroup) cpus: Option<String>,
    pub(in crate::cgroup) mems: Option<String>,
}

const CPUS: (&str, &str) = ("cpuset.cpus", "linux.resources.cpu.cpus");
const MEMS: (&str, &str) = ("cpuset.mems", "linux.resources.cpu.mems");

pub(in crate::cgroup) fn v1(cpu: &LinuxCpu) -> Result<Cpuset, SetupError> {
    let check = |field, list: &Option<String>| {
        let list = list.clone().filter(|list| !list.is_empty());
        match list {
            Some(list) if !is_list(&list) => Err(SetupError::Value {
                field,
                value: list,
                reason: "a list like 0-3,7",
            }),
            list => Ok(list),
        }
    };
    Ok(Cpuset {
        cpus: check(CPUS.1, cpu.cpus())?,
        mems: check(MEMS.1, cpu.mems())?,
    })
}

impl Cpuset {
    pub(in crate::cgroup) fn is_empty(&self) -> bool {
        self.cpus.is_none() && self.mems.is_none()
    }

    /// Fills `dir`, and whatever is empty above it, from the level above, then sets the container's own values.
    pub(in crate::cgroup) fn apply(&self, mount_point: &Path, dir: &Path) -> Result<(), SetupError> {
        for ((file, field), own) in [(CPUS, &self.cpus), (MEMS, &self.mems)] {
            match own {
                Some(own) => {
                    if let Some(parent) = dir.parent() {
                        filled(mount_point, parent, file)?;
                    }
                    write(dir, file, own).map_err(SetupError::of(field))?;
                }
                None => drop(filled(mount_point, dir, file)?),
            }
        }
        Ok(())
    }
}

/// The value of `file` in `dir`, after taking it over from the parent where it was empty.
fn filled(mount_point: &Path, dir: &Path, file: &str) -> Result<String, SetupError> {
    let value = read(dir, file)?.trim().to_owned();
    let parent = dir.parent().filter(|_| value.is_empty() && dir != mount_point);
    let Some(parent) = parent else { return Ok(value) };
    let value = filled(mount_point, parent, file)?;
    write(dir, file, &value).map_err(SetupError::of("linux.cgroupsPath"))?;
    Ok(value)
}

/// The kernel's list format: `0-3,7`; a stride (`0-6:2/4`) is left to the kernel to judge.
fn is_list(list: &str) -> bool {
    let sound = |c: char| c.is_ascii_digit() || matches!(c, '-' | ',' | ':' | '/');
    list.chars().all(sound)
        && list
            .split(',')
            .all(|part| part.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_checked() {
        for good in ["0", "0-3,7", "0-6:2/4"] {
            assert!(is_list(good), "{good}");
        }
        for bad in ["a", "0,,1", "-1", "0 1", "0-3\n", ","] {
            assert!(!is_list(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_level_takes_its_parents_value() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("a/b");
        std::fs::create_dir_all(&leaf).unwrap();
        for (dir, value) in [
            (root.path(), "0-1\n"),
            (&root.path().join("a"), "\n"),
            (&leaf, "\n"),
        ] {
            std::fs::write(dir.join("cpuset.cpus"), value).unwrap();
            std::fs::write(dir.join("cpuset.mems"), value).unwrap();
        }
        Cpuset {
            cpus: Some("1".into()),
            mems: None,
        }
        .apply(root.path(), &leaf)
        .unwrap();
        let got = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap();
        assert!(got("a/cpuset.cpus").starts_with("0-1"));
        assert!(got("a/b/cpuset.cpus").starts_with('1'));
        assert!(got("a/b/cpuset.mems").starts_with("0-1"));
    }
}

//! Making a cgroup: a directory in every hierarchy, then the limits. What was made is removed again on failure.

use std::path::{Path, PathBuf};

use super::controllers::{devices, hugetlb};
use super::files::{read, write};
use super::freezer::FreezerState;
use super::plan::{CgroupPlan, DEFAULT_PARENT, Limits};
use super::setting::{IfMissing, Setting, Step};
use super::{Cgroup, CgroupError, Layout};

impl Cgroup {
    /// Makes the directories of a container's cgroup and sets its limits.
    ///
    /// # Errors
    /// The cgroup holds processes already or is frozen; a limit cannot be set. Nothing is left behind then.
    pub fn create(plan: &CgroupPlan) -> Result<Self, CgroupError> {
        Self::create_in(plan, Layout::detect()?, Existing::MustBeEmpty)
    }

    /// Makes a cgroup that may exist already and may hold processes: a pod's, or that of the shims.
    ///
    /// # Errors
    /// A directory cannot be made or a limit cannot be set.
    pub fn ensure(plan: &CgroupPlan) -> Result<Self, CgroupError> {
        Self::create_in(plan, Layout::detect()?, Existing::MayBeUsed)
    }

    /// A cgroup somebody else made, for statistics or to join it; `None` when it is in no hierarchy.
    ///
    /// # Errors
    /// The path is not valid, or the host's hierarchies cannot be found.
    pub fn open(path: &Path) -> Result<Option<Self>, CgroupError> {
        let path = super::plan::absolute(path)?;
        let kept = path.components().count();
        let cgroup = Self {
            path,
            layout: Layout::detect()?.clone(),
            kept,
            warnings: Vec::new(),
            joined_below: Vec::new(),
        };
        Ok(cgroup
            .paths()
            .iter()
            .any(|(_, dir)| dir.is_dir())
            .then_some(cgroup))
    }

    fn create_in(plan: &CgroupPlan, layout: &Layout, existing: Existing) -> Result<Self, CgroupError> {
        check_controllers(&plan.limits, layout)?;
        let mut cgroup = Self {
            path: plan.path.clone(),
            layout: layout.clone(),
            kept: 0,
            warnings: plan.limits.settings.warnings.clone(),
            joined_below: Vec::new(),
        };
        let mut made = Made::default();
        let done = cgroup
            .make_directories(plan, existing, &mut made)
            .and_then(|()| cgroup.set_limits(&plan.limits));
        match done {
            Ok(warnings) => {
                cgroup.warnings.extend(warnings);
                Ok(cgroup)
            }
            Err(error) => {
                made.undo();
                Err(error)
            }
        }
    }

    /// Sets other limits on an existing cgroup.
    ///
    /// # Errors
    /// A limit is not valid or the kernel refuses it; those before it in the list stay set.
    pub fn set(&self, resources: &oci_spec::runtime::LinuxResources) -> Result<Vec<String>, CgroupError> {
        let limits = super::plan::limits(resources)?;
        check_controllers(&limits, &self.layout)?;
        let mut warnings = limits.settings.warnings.clone();
        warnings.extend(self.set_limits(&limits)?);
        Ok(warnings)
    }

    fn make_directories(
        &mut self,
        plan: &CgroupPlan,
        existing: Existing,
        made: &mut Made,
    ) -> Result<(), CgroupError> {
        for mount_point in self.layout.mount_points() {
            let dir = self.below(&mount_point);
            let kept = match made.directory(&mount_point, &dir) {
                Err(CgroupError::Make { source, .. }) if is_anothers(&source) => {
                    self.layout.remove(&mount_point);
                    continue;
                }
                kept => kept?,
            };
            self.kept = self.kept.max(kept);
            let was_there = kept == dir.components().count() - mount_point.components().count();
            if was_there
                && existing == Existing::MustBeEmpty
                && !read(&dir, "cgroup.procs")?.trim().is_empty()
            {
                return Err(CgroupError::NotEmpty(dir));
            }
        }
        // Without limits a container of a user without privileges may do without the cgroups that are not its user's.
        check_controllers(&plan.limits, &self.layout)?;
        if let Some(cpuset) = self.layout.controller("cpuset") {
            plan.limits
                .cpuset
                .apply(&cpuset.mount_point, &self.below(&cpuset.mount_point))?;
        }
        match self.freezer_state()? {
            FreezerState::Thawed => Ok(()),
            _ if existing == Existing::MayBeUsed => Ok(()),
            _ => Err(CgroupError::Frozen(
                self.dir("freezer").unwrap_or_else(|| self.path.clone()),
            )),
        }
    }

    fn set_limits(&self, limits: &Limits) -> Result<Vec<String>, CgroupError> {
        let mut warnings = Vec::new();
        for step in &limits.settings.steps {
            match step {
                Step::Set(setting) => self.apply(setting, &mut warnings)?,
                Step::Both(first, second) => {
                    let done = self
                        .apply(first, &mut warnings)
                        .and_then(|()| self.apply(second, &mut warnings));
                    if done.is_err() {
                        self.apply(second, &mut warnings)?;
                        self.apply(first, &mut warnings)?;
                    }
                }
            }
        }
        if let Some(devices) = &limits.devices {
            self.set_devices(&devices.rules)?;
        }
        Ok(warnings)
    }

    fn apply(&self, setting: &Setting, warnings: &mut Vec<String>) -> Result<(), CgroupError> {
        let dir = match (self.dir(setting.controller), setting.controller) {
            (Some(dir), _) => dir,
            (None, "hugetlb") => self.hugetlb_on_unified()?,
            (None, controller) => {
                return Err(CgroupError::NoController {
                    field: setting.field,
                    controller,
                });
            }
        };
        let missing = |error: &CgroupError| matches!(error, CgroupError::Write { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
        let mut result = Ok(());
        for file in &setting.files {
            result = write(&dir, file, &setting.value, setting.field);
            match &result {
                Err(error) if missing(error) => {}
                Err(_) => return result,
                Ok(()) => return check_taken(&dir, file, setting),
            }
        }
        if setting.if_missing == IfMissing::Warn {
            let names = setting.files.join(", ");
            warnings.push(format!("{}: ignored, the kernel has no {names}", setting.field));
            return Ok(());
        }
        result
    }

    fn set_devices(&self, rules: &[devices::Rule]) -> Result<(), CgroupError> {
        let Some(dir) = self.dir("devices") else {
            return Ok(());
        };
        for rule in rules {
            let file = if rule.allow {
                "devices.allow"
            } else {
                "devices.deny"
            };
            write(&dir, file, &rule.line, "linux.resources.devices")?;
        }
        Ok(())
    }

    /// The cgroup2 directory, after handing the hugetlb controller down to it level by level.
    fn hugetlb_on_unified(&self) -> Result<PathBuf, CgroupError> {
        let missing = CgroupError::NoController {
            field: hugetlb::FIELD,
            controller: "hugetlb",
        };
        let (Some(mount), Some(dir)) = (self.layout.unified.clone(), self.unified_dir()) else {
            return Err(missing);
        };
        if !read(&mount, "cgroup.controllers")?
            .split_whitespace()
            .any(|name| name == "hugetlb")
        {
            return Err(missing);
        }
        let levels: Vec<&Path> = dir
            .ancestors()
            .skip(1)
            .take_while(|level| level.starts_with(&mount))
            .collect();
        for level in levels.into_iter().rev() {
            let enabled = read(level, "cgroup.subtree_control")?;
            if !enabled.split_whitespace().any(|name| name == "hugetlb") {
                write(level, "cgroup.subtree_control", "+hugetlb", hugetlb::FIELD)?;
            }
        }
        Ok(dir)
    }
}

/// Whether a hierarchy refuses a user without privileges (as cgroups(7) lets it, unless a part is delegated).
fn is_anothers(source: &std::io::Error) -> bool {
    let refused = matches!(
        source.raw_os_error(),
        Some(libc::EACCES | libc::EPERM | libc::EROFS)
    );
    refused && !rustix::process::geteuid().is_root()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    MustBeEmpty,
    MayBeUsed,
}

/// Fails before anything is made when a limit has no controller here.
fn check_controllers(limits: &Limits, layout: &Layout) -> Result<(), CgroupError> {
    let v2_only = "cgroup v2 only hosts are not supported yet";
    let check = |controller: &'static str, field| {
        if layout.controller(controller).is_some() || (controller == "hugetlb" && layout.unified.is_some()) {
            Ok(())
        } else if layout.is_v2_only() {
            Err(CgroupError::NotSupported {
                field,
                reason: v2_only,
            })
        } else {
            Err(CgroupError::NoController { field, controller })
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

/// cpu.shares are silently brought into the kernel's range; that must not look like success.
fn check_taken(dir: &Path, file: &str, setting: &Setting) -> Result<(), CgroupError> {
    if file != "cpu.shares" {
        return Ok(());
    }
    let taken = read(dir, file)?.trim().to_owned();
    // 0 and 1 both mean the smallest there is, 2.
    if taken == setting.value || (taken == "2" && matches!(setting.value.as_str(), "0" | "1")) {
        return Ok(());
    }
    let (field, value) = (setting.field, setting.value.clone());
    Err(CgroupError::Clamped {
        field,
        file: dir.join(file),
        value,
        taken,
    })
}

/// The directories made so far, for the undo.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes `dir` and what is missing above it; gives the number of levels below `mount_point` that were there.
    fn directory(&mut self, mount_point: &Path, dir: &Path) -> Result<usize, CgroupError> {
        let depth = |dir: &Path| dir.components().count() - mount_point.components().count();
        // The default parent goes away with its last container, which can happen between two of these calls.
        for _ in 0..100 {
            match std::fs::create_dir(dir) {
                Ok(()) => {
                    self.0.push(dir.to_owned());
                    return Ok(depth(dir) - 1);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(depth(dir)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && dir != mount_point => {
                    let parent = dir.parent().unwrap_or(mount_point);
                    let kept = self.directory(mount_point, parent)?;
                    match std::fs::create_dir(dir) {
                        Ok(()) => {
                            self.0.push(dir.to_owned());
                            return Ok(kept);
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                            return Ok(depth(dir));
                        }
                        Err(source) => {
                            return Err(CgroupError::Make {
                                dir: dir.to_owned(),
                                source,
                            });
                        }
                    }
                }
                Err(source) => {
                    return Err(CgroupError::Make {
                        dir: dir.to_owned(),
                        source,
                    });
                }
            }
        }
        let source = std::io::Error::from_raw_os_error(libc::ENOENT);
        Err(CgroupError::Make {
            dir: dir.to_owned(),
            source,
        })
    }

    fn undo(self) {
        for dir in self.0.into_iter().rev() {
            drop(std::fs::remove_dir(dir));
        }
    }
}

/// Whether a path is below the parent that containers without a path of their own share.
pub(super) fn in_default_parent(path: &Path) -> bool {
    path != Path::new(DEFAULT_PARENT) && path.starts_with(DEFAULT_PARENT)
}

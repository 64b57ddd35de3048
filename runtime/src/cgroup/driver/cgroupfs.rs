//! Making a cgroup by hand: a directory in every hierarchy, then the limits.

use std::path::{Path, PathBuf};

use coracle_linux::cgroup::files::{read, write};
use coracle_linux::cgroup::{Cgroup, CgroupError, FreezerState, Layout, Made};

use super::super::SetupError;
use super::super::controllers::{Limits, check_controllers, devices, hugetlb};
use super::super::plan::{CgroupPlan, DEFAULT_PARENT};
use super::super::setting::{IfMissing, Setting, Step};
use super::Created;

/// Makes the directories of a container's cgroup and sets its limits.
///
/// # Errors
/// The cgroup holds processes already or is frozen; a limit cannot be set. Nothing is left behind then.
pub fn create(plan: &CgroupPlan) -> Result<Created, SetupError> {
    create_in(plan, Layout::detect()?, Existing::MustBeEmpty)
}

/// Makes a cgroup that may exist already and may hold processes: a pod's, or that of the shims.
///
/// # Errors
/// A directory cannot be made or a limit cannot be set.
pub fn ensure(plan: &CgroupPlan) -> Result<Created, SetupError> {
    create_in(plan, Layout::detect()?, Existing::MayBeUsed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    MustBeEmpty,
    MayBeUsed,
}

fn create_in(plan: &CgroupPlan, layout: &Layout, existing: Existing) -> Result<Created, SetupError> {
    check_controllers(&plan.limits, layout)?;
    let made = Cgroup::make(layout, &plan.path)?;
    if existing == Existing::MustBeEmpty {
        check_empty(&made)?;
    }
    let cgroup = made.cgroup();
    // Without limits a container of a user without privileges may do without the cgroups that are not its user's.
    check_controllers(&plan.limits, cgroup.layout())?;
    if let (Some(cpuset), Some(dir)) = (
        cgroup.layout().controller("cpuset"),
        cgroup.v1_directory("cpuset"),
    ) {
        plan.limits.cpuset.apply(&cpuset.mount_point, &dir)?;
    }
    if existing == Existing::MustBeEmpty && cgroup.freezer_state()? != FreezerState::Thawed {
        let dir = cgroup.v1_directory("freezer");
        return Err(SetupError::Frozen(dir.unwrap_or_else(|| plan.path.clone())));
    }
    let mut warnings = plan.limits.settings.warnings.clone();
    warnings.extend(set_limits(cgroup, &plan.limits)?);
    let cgroup = made.keep().sharing(Path::new(DEFAULT_PARENT));
    Ok(Created { cgroup, warnings })
}

fn check_empty(made: &Made) -> Result<(), SetupError> {
    for dir in made.existed() {
        if !read(dir, "cgroup.procs")?.trim().is_empty() {
            return Err(SetupError::NotEmpty(dir.clone()));
        }
    }
    Ok(())
}

fn set_limits(cgroup: &Cgroup, limits: &Limits) -> Result<Vec<String>, SetupError> {
    let mut warnings = Vec::new();
    for step in &limits.settings.steps {
        match step {
            Step::Set(setting) => apply(cgroup, setting, &mut warnings)?,
            Step::Both(first, second) => {
                let done =
                    apply(cgroup, first, &mut warnings).and_then(|()| apply(cgroup, second, &mut warnings));
                if done.is_err() {
                    apply(cgroup, second, &mut warnings)?;
                    apply(cgroup, first, &mut warnings)?;
                }
            }
        }
    }
    if let Some(devices) = &limits.devices {
        set_devices(cgroup, &devices.rules)?;
    }
    Ok(warnings)
}

fn apply(cgroup: &Cgroup, setting: &Setting, warnings: &mut Vec<String>) -> Result<(), SetupError> {
    let dir = match (cgroup.v1_directory(setting.controller), setting.controller) {
        (Some(dir), _) => dir,
        (None, "hugetlb") => hugetlb_on_unified(cgroup)?,
        (None, controller) => {
            return Err(SetupError::NoController {
                field: setting.field,
                controller,
            });
        }
    };
    let missing = |error: &CgroupError| matches!(error, CgroupError::Write { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    let mut result = Ok(());
    for file in &setting.files {
        result = write(&dir, file, &setting.value);
        match &result {
            Err(error) if missing(error) => {}
            Err(_) => break,
            Ok(()) => return check_taken(&dir, file, setting),
        }
    }
    let is_missing = result.as_ref().is_err_and(missing);
    if is_missing && setting.if_missing == IfMissing::Warn {
        let names = setting.files.join(", ");
        warnings.push(format!("{}: ignored, the kernel has no {names}", setting.field));
        return Ok(());
    }
    result.map_err(|error| refused(&dir, setting, error))
}

/// The kernel says no more than EINVAL where a parent has no realtime budget; it begins with none.
fn refused(dir: &Path, setting: &Setting, source: CgroupError) -> SetupError {
    let field = setting.field;
    let file = setting.files.iter().find(|file| *file == "cpu.rt_runtime_us");
    let parent = file.zip(dir.parent());
    let budget = parent.and_then(|(file, parent)| read(parent, file).ok()?.trim().parse().ok());
    match (parent, budget) {
        (Some((file, parent)), Some(budget)) => SetupError::RealtimeOfParent {
            field,
            value: setting.value.clone(),
            parent: parent.join(file),
            budget,
        },
        _ => SetupError::Field { field, source },
    }
}

fn set_devices(cgroup: &Cgroup, rules: &[devices::Rule]) -> Result<(), SetupError> {
    let Some(dir) = cgroup.v1_directory("devices") else {
        return Ok(());
    };
    for rule in rules {
        let file = if rule.allow {
            "devices.allow"
        } else {
            "devices.deny"
        };
        write(&dir, file, &rule.line).map_err(SetupError::of("linux.resources.devices"))?;
    }
    Ok(())
}

/// The cgroup2 directory, after handing the hugetlb controller down to it level by level.
fn hugetlb_on_unified(cgroup: &Cgroup) -> Result<PathBuf, SetupError> {
    let missing = SetupError::NoController {
        field: hugetlb::FIELD,
        controller: "hugetlb",
    };
    let (Some(mount), Some(dir)) = (cgroup.layout().unified.clone(), cgroup.unified_directory()) else {
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
            write(level, "cgroup.subtree_control", "+hugetlb").map_err(SetupError::of(hugetlb::FIELD))?;
        }
    }
    Ok(dir)
}

/// cpu.shares are silently brought into the kernel's range; that must not look like success.
fn check_taken(dir: &Path, file: &str, setting: &Setting) -> Result<(), SetupError> {
    if file != "cpu.shares" {
        return Ok(());
    }
    let taken = read(dir, file)?.trim().to_owned();
    // 0 and 1 both mean the smallest there is, 2.
    if taken == setting.value || (taken == "2" && matches!(setting.value.as_str(), "0" | "1")) {
        return Ok(());
    }
    let (field, value) = (setting.field, setting.value.clone());
    Err(SetupError::Clamped {
        field,
        file: dir.join(file),
        value,
        taken,
    })
}

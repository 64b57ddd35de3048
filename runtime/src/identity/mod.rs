//! Who the container's process is: user, groups, capabilities, limits, and what it may still gain.
//!
//! [`plan`] checks the fields of `process`; [`before_root`] does what needs the host's /proc; [`prepare`], [`assume`] and
//! [`Confine`] are the last things before the gate and execve. Their order is not free:
//!
//! 1. The bounding set: it needs CAP_SETPCAP.
//! 2. Working directory as root first: the container's user may not be able to reach it; the other way round on a
//!    file system that trusts no root (NFS), so again as the user. It must be inside the root (CVE-2024-21626).
//! 3. rlimits, scheduler: raising them needs capabilities that go away below, and some of them hold up a clone.
//! 4. Keepcaps, else the change of user empties the permitted set. Groups before the user, who may not set them.
//! 5. The capability sets and no_new_privs. Without the latter the filter needs CAP_SYS_ADMIN, which stays permitted.
//! 6. The filter ([`Confine`]), when all else is done: of what follows, it has to allow the one call that gives
//!    CAP_SYS_ADMIN up, where that was kept, and the execve.

mod capabilities;
mod limits;
mod outside;
mod schedule;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, User};
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet};

use crate::seccomp::Filter;
use capabilities::Privilege;
pub(crate) use capabilities::{CapabilitySets, known};
pub(crate) use outside::Outside;
use outside::set_oom_score_adj;

/// The checked form of `process`, as far as it is about identity.
#[derive(Clone, Debug)]
pub(crate) struct IdentityPlan {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    umask: u32,
    capabilities: CapabilitySets,
    rlimits: Vec<limits::Limit>,
    schedule: schedule::Schedule,
    no_new_privileges: bool,
    oom_score_adj: Option<i32>,
    apparmor_profile: Option<String>,
    selinux_label: Option<String>,
}

/// What [`assume`] goes on with.
#[derive(Debug)]
pub(crate) struct Prepared {
    cwd: PathBuf,
    /// Root could enter it.
    entered: bool,
}

/// Why a process cannot get the identity its specification asks for.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A value out of its range.
    #[error("{field}: {value}: {reason}")]
    Value {
        /// Path of the field.
        field: &'static str,
        /// The refused value.
        value: String,
        /// What is allowed.
        reason: &'static str,
    },
    /// The kernel refused a step.
    #[error("{field}: {what}")]
    Refused {
        /// Path of the field that asked for it.
        field: &'static str,
        /// What was done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The host has no such security module.
    #[error("{field}: {module} is not enabled on this host")]
    NoModule {
        /// Path of the field.
        field: &'static str,
        /// The module's name.
        module: &'static str,
    },
    /// The working directory is not below the container's root.
    #[error("process.cwd: {0:?} is outside the container's root")]
    Outside(PathBuf),
}

/// umask without a field: the one runc sets, whatever the daemon's is.
const DEFAULT_UMASK: u32 = 0o022;

impl IdentityPlan {
    /// Takes out what a process in another user namespace than its maker's leaves to that.
    pub(crate) fn take_outside(&mut self) -> Outside {
        Outside {
            rlimits: std::mem::take(&mut self.rlimits),
            oom_score_adj: self.oom_score_adj.take(),
        }
    }

    pub(crate) fn no_new_privileges(&self) -> bool {
        self.no_new_privileges
    }
}

/// Checks the identity fields of `process`. Pure.
///
/// # Errors
/// Names the field.
pub(crate) fn plan(process: &Process) -> Result<IdentityPlan, IdentityError> {
    let user = process.user();
    check_user(user)?;
    if let Some(adj) = process
        .oom_score_adj()
        .filter(|adj| !(-1000..=1000).contains(adj))
    {
        let reason = "-1000 to 1000";
        return Err(IdentityError::Value {
            field: "process.oomScoreAdj",
            value: adj.to_string(),
            reason,
        });
    }
    let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(IdentityPlan {
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(DEFAULT_UMASK),
        capabilities: capabilities::plan(process.capabilities().as_ref()),
        rlimits: limits::plan(process.rlimits().as_deref().unwrap_or_default())?,
        schedule: schedule::plan(process)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        apparmor_profile: non_empty(process.apparmor_profile()),
        selinux_label: non_empty(process.selinux_label()),
    })
}

/// Does what needs the host's /proc, in the container's process: the out-of-memory score and the labels for its
/// execve. Gives a warning for the log when the score had to stay at the daemon's own.
///
/// # Errors
/// A label is asked for that this host cannot give, or the kernel refuses one.
pub(crate) fn before_root(plan: &IdentityPlan) -> Result<Option<String>, IdentityError> {
    if let Some(profile) = &plan.apparmor_profile {
        let field = "process.apparmorProfile";
        if std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")) {
            set_exec_label(field, "apparmor/exec", &format!("exec {profile}"))?;
        } else if profile != "unconfined" {
            return Err(IdentityError::NoModule {
                field,
                module: "AppArmor",
            });
        }
    }
    if let Some(label) = &plan.selinux_label {
        let field = "process.selinuxLabel";
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(IdentityError::NoModule {
                field,
                module: "SELinux",
            });
        }
        set_exec_label(field, "exec", label)?;
    }
    plan.oom_score_adj
        .map_or(Ok(None), |adj| set_oom_score_adj("self", adj))
}

/// What a clone hands down as it is: the working directory, entered as root (`cwd` is a path in the container, whose root
/// is "/" by now), the umask, and what an execve can still give.
///
/// # Errors
/// The field whose step the kernel refused. The process is then of no use and must end.
pub(crate) fn prepare(plan: &IdentityPlan, cwd: &Path) -> Result<Prepared, IdentityError> {
    rustix::process::umask(Mode::from_raw_mode(plan.umask));
    plan.capabilities.drop_bounding()?;
    Ok(Prepared {
        cwd: cwd.to_owned(),
        entered: change_directory(cwd)?,
    })
}

/// Gives away the capabilities that [`assume`] does not need, for a process that the container can look at before it
/// gets there.
///
/// # Errors
/// The kernel refused.
pub(crate) fn give_away(plan: &IdentityPlan, filter: Option<&Filter>) -> Result<(), IdentityError> {
    let needed = [
        (CapabilitySet::SETUID | CapabilitySet::SETGID, true),
        (CapabilitySet::SYS_RESOURCE, !plan.rlimits.is_empty()),
        (CapabilitySet::SYS_NICE, !plan.schedule.is_empty()),
        (
            CapabilitySet::SYS_ADMIN,
            filter.is_some() && !plan.no_new_privileges,
        ),
    ];
    let needed = needed.into_iter().filter(|(_, needed)| *needed);
    plan.capabilities
        .keep_beside(needed.map(|(capability, _)| capability).collect())
}

/// Gives this process, which has one thread, the identity of `plan`, all but the filter.
///
/// # Errors
/// The field whose step the kernel refused. The process is then of no use and must end.
pub(crate) fn assume(
    plan: &IdentityPlan,
    prepared: &Prepared,
    filter: Option<&Filter>,
) -> Result<Confine, IdentityError> {
    limits::apply(&plan.rlimits)?;
    plan.schedule.apply()?;
    thread::set_keep_capabilities(true)
        .map_err(refused("process.capabilities", "keep over the change of user"))?;
    set_user(plan)?;
    let Prepared { cwd, entered } = prepared;
    if !entered {
        change_directory_as_user(cwd)?;
    }
    verify_inside(cwd)?;
    let needs_privilege = filter.is_some() && !plan.no_new_privileges;
    let privilege = plan.capabilities.apply(needs_privilege)?;
    if plan.no_new_privileges {
        let field = "process.noNewPrivileges";
        coracle_linux::prctl::set_no_new_privs().map_err(|source| refusal(field, "set", source))?;
    }
    Ok(Confine { privilege })
}

/// What is left of an identity: its filter.
#[derive(Debug)]
pub(crate) struct Confine {
    /// Kept to load the filter with.
    privilege: Option<Privilege>,
}

impl Confine {
    /// Loads the filter. `hand_over` gets the notification descriptor of one that has it, at once: whatever system call
    /// comes next may be one that waits for the agent behind it.
    ///
    /// # Errors
    /// The kernel refused it, or the listener could not be handed over.
    pub(crate) fn load(
        &self,
        filter: &Filter,
        hand_over: impl FnOnce(OwnedFd) -> std::io::Result<()>,
    ) -> Result<(), IdentityError> {
        if let Some(privilege) = &self.privilege {
            privilege.raise()?;
        }
        let field = "linux.seccomp";
        let listener = coracle_linux::seccomp::install(&filter.program, filter.flags)
            .map_err(|source| refusal(field, "install the filter", source))?;
        listener.map_or(Ok(()), |listener| {
            hand_over(listener).map_err(|source| refusal(field, "hand the listener over", source))
        })
    }

    /// After [`load`](Self::load): one system call at most, and nothing is allocated.
    ///
    /// # Errors
    /// The filter denies it.
    pub(crate) fn give_privilege_up(&self) -> std::io::Result<()> {
        self.privilege.as_ref().map_or(Ok(()), Privilege::give_up)
    }
}

fn check_user(user: &User) -> Result<(), IdentityError> {
    // (uid_t)-1 means "leave it as it is" to setresuid(2): the process would stay root.
    let check = |field, id: u32| {
        let refused = IdentityError::Value {
            field,
            value: id.to_string(),
            reason: "not an id",
        };
        if id == u32::MAX { Err(refused) } else { Ok(()) }
    };
    check("process.user.uid", user.uid())?;
    check("process.user.gid", user.gid())?;
    for gid in user.additional_gids().iter().flatten() {
        check("process.user.additionalGids", *gid)?;
    }
    match user.umask().filter(|umask| *umask > 0o777) {
        Some(umask) => {
            let value = format!("{umask:#o}");
            Err(IdentityError::Value {
                field: "process.user.umask",
                value,
                reason: "at most 0777",
            })
        }
        None => Ok(()),
    }
}

fn set_user(plan: &IdentityPlan) -> Result<(), IdentityError> {
    set_groups(&plan.groups)?;
    let gid = Gid::from_raw(plan.gid);
    thread::set_thread_res_gid(gid, gid, gid).map_err(refused("process.user.gid", &plan.gid.to_string()))?;
    let uid = Uid::from_raw(plan.uid);
    thread::set_thread_res_uid(uid, uid, uid).map_err(refused("process.user.uid", &plan.uid.to_string()))
}

/// Also an empty list is set, or the process would keep the daemon's groups.
fn set_groups(groups: &[u32]) -> Result<(), IdentityError> {
    let list: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match thread::set_thread_groups(&list) {
        // A user namespace made without privileges may not change groups at all (user_namespaces(7)).
        Err(rustix::io::Errno::PERM) if groups.is_empty() && groups_are_denied() => Ok(()),
        result => result.map_err(refused("process.user.additionalGids", &format!("{groups:?}"))),
    }
}

fn groups_are_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}

/// False when root may not enter and the user might.
fn change_directory(cwd: &Path) -> Result<bool, IdentityError> {
    match rustix::process::chdir(cwd) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(false),
        Err(errno) => Err(refused("process.cwd", &format!("{}", cwd.display()))(errno)),
    }
}

fn change_directory_as_user(cwd: &Path) -> Result<(), IdentityError> {
    rustix::process::chdir(cwd).map_err(refused("process.cwd", &format!("{}", cwd.display())))
}

/// A directory reached through a leaked descriptor (`/proc/self/fd/7`) is not below the root: getcwd(2) says so by
/// `(unreachable)` or an error.
fn verify_inside(cwd: &Path) -> Result<(), IdentityError> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(real) if real.as_bytes().starts_with(b"/") => Ok(()),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Err(IdentityError::Outside(cwd.to_owned())),
        Err(errno) => Err(refused("process.cwd", "where it is")(errno)),
    }
}

fn set_exec_label(field: &'static str, file: &str, label: &str) -> Result<(), IdentityError> {
    let path = Path::new("/proc/thread-self/attr").join(file);
    write(&path, label).map_err(|source| refusal(field, label, source))
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn refusal(field: &'static str, what: &str, source: std::io::Error) -> IdentityError {
    IdentityError::Refused {
        field,
        what: what.to_owned(),
        source,
    }
}

fn refused(field: &'static str, what: &str) -> impl Fn(rustix::io::Errno) -> IdentityError {
    move |errno| refusal(field, what, errno.into())
}

#[cfg(test)]
mod tests;

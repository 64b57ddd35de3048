//! The namespaces of a creation: opened before the clone, joined after it, and the ids mapped by the maker.

use super::CreateError;
use crate::payload::{PayloadError, step};
use crate::plan::{IdMaps, Join, JoinSource, NamespacePlan, SysctlPlan};
use coracle_linux::link;
use coracle_linux::namespace::{self, Namespaces};
use coracle_linux::pidfd::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Namespaces to join, open, in the order in which to join them.
#[derive(Debug)]
pub(super) struct Joined(Vec<(Namespaces, OwnedFd)>);

impl Joined {
    /// Enters all of them but those that are for its children only (PID), and the mount namespace, which comes last:
    /// it changes what every path means.
    pub(super) fn enter(&self) -> io::Result<()> {
        let own = self
            .0
            .iter()
            .filter(|(kind, _)| *kind != Namespaces::PID && *kind != Namespaces::MNT);
        for (kind, fd) in own.chain(self.0.iter().filter(|(kind, _)| *kind == Namespaces::MNT)) {
            namespace::enter(fd.as_fd(), *kind)?;
        }
        Ok(())
    }

    /// Makes the next child one of the PID namespace to join.
    pub(super) fn enter_pid_namespace(&self) -> io::Result<()> {
        self.pid_namespace()
            .map_or(Ok(()), |fd| namespace::enter(fd, Namespaces::PID))
    }

    pub(super) fn all(&self) -> &[(Namespaces, OwnedFd)] {
        &self.0
    }

    pub(super) fn pid_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.0
            .iter()
            .find(|(kind, _)| *kind == Namespaces::PID)
            .map(|(_, fd)| fd.as_fd())
    }
}

/// Opens the namespaces to join, and makes sure that no network parameter is set in the maker's own.
pub(super) fn open(plan: &NamespacePlan, sysctls: &[SysctlPlan]) -> Result<Joined, CreateError> {
    let joined = Joined(plan.join.iter().map(open_one).collect::<Result<_, _>>()?);
    if let Some(sysctl) = sysctls.iter().find(|sysctl| sysctl.of_network) {
        let network = joined.0.iter().find(|(kind, _)| *kind == Namespaces::NET);
        if network.is_some_and(|(_, fd)| is_own_network(fd.as_fd())) {
            return Err(CreateError::SysctlOfHost(sysctl.path.display().to_string()));
        }
    }
    Ok(joined)
}

fn open_one(join: &Join) -> Result<(Namespaces, OwnedFd), CreateError> {
    let (path, fd) = match &join.source {
        JoinSource::Fd(fd) => (PathBuf::from("descriptor"), fd.try_clone()),
        JoinSource::Path(path) => (path.clone(), namespace::open(path)),
    };
    let kind = name(join.kind);
    let fd = fd.map_err(|source| CreateError::OpenNamespace {
        kind,
        path: path.clone(),
        source,
    })?;
    if namespace::kind(fd.as_fd()) != Some(join.kind) {
        return Err(CreateError::NotNamespace { kind, path });
    }
    Ok((join.kind, fd))
}

fn is_own_network(other: BorrowedFd<'_>) -> bool {
    let own = namespace::open(Path::new("/proc/self/ns/net"));
    let same = |own: OwnedFd| {
        let (own, other) = (rustix::fs::fstat(&own)?, rustix::fs::fstat(other)?);
        rustix::io::Result::Ok(own.st_dev == other.st_dev && own.st_ino == other.st_ino)
    };
    // When in doubt it is ours: the check protects the host.
    own.ok().and_then(|own| same(own).ok()).unwrap_or(true)
}

/// The maker's children are born in another PID namespace while this exists.
#[derive(Debug)]
pub(super) struct PidNamespaceVisit {
    home: OwnedFd,
}

pub(super) fn visit_pid_namespace(other: BorrowedFd<'_>) -> Result<PidNamespaceVisit, CreateError> {
    let entering = |source| CreateError::VisitPidNamespace {
        doing: "entering",
        source,
    };
    let home = namespace::open(Path::new("/proc/self/ns/pid")).map_err(entering)?;
    namespace::enter(other, Namespaces::PID).map_err(entering)?;
    Ok(PidNamespaceVisit { home })
}

impl PidNamespaceVisit {
    pub(super) fn leave(self) -> Result<(), CreateError> {
        let leaving = |source| CreateError::VisitPidNamespace {
            doing: "leaving",
            source,
        };
        namespace::enter(self.home.as_fd(), Namespaces::PID).map_err(leaving)
    }
}

/// Writes the id maps of the user namespace of process `pid` (user_namespaces(7)). A user without privileges may map no
/// id but its own; for those that /etc/subuid lends it there are set-user-id programs (newuidmap(1)).
pub(super) fn map_ids(pid: Pid, maps: &IdMaps) -> Result<(), CreateError> {
    match write_maps(pid, maps) {
        Err(CreateError::MapIds { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied && !rustix::process::geteuid().is_root() =>
        {
            map_by("newuidmap", pid, &maps.uid)?;
            map_by("newgidmap", pid, &maps.gid)
        }
        done => done,
    }
}

fn map_by(program: &'static str, pid: Pid, map: &str) -> Result<(), CreateError> {
    let output = Command::new(program)
        .arg(pid.as_raw_nonzero().to_string())
        .args(map.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .map_err(|source| CreateError::NoIdMapper { program, source })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(CreateError::IdMapper {
            program,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

fn write_maps(pid: Pid, maps: &IdMaps) -> Result<(), CreateError> {
    let dir = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|source| CreateError::MapIds { path, source })
    };
    write("uid_map", &maps.uid)?;
    match write("gid_map", &maps.gid) {
        // Without CAP_SETGID outside, the right to drop groups must be given up first (CVE-2014-8989).
        Err(CreateError::MapIds { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            write("setgroups", "deny")?;
            write("gid_map", &maps.gid)
        }
        done => done,
    }
}

/// What is left of new namespaces, by the first process: the loopback interface, and those that a clone would make too
/// early. The root of a cgroup namespace is the cgroup one is in, and the offsets of a time namespace are written before
/// anybody enters it.
pub(super) fn complete(plan: &NamespacePlan) -> Result<(), PayloadError> {
    if plan.new.contains(Namespaces::NET) {
        // Of a new network namespace; a joined one is its maker's to set up. runc does the same.
        link::lo_up().map_err(PayloadError::Loopback)?;
    }
    if plan.new.contains(Namespaces::CGROUP) {
        namespace::unshare(Namespaces::CGROUP).map_err(step("making the cgroup namespace"))?;
    }
    if plan.new.contains(Namespaces::TIME) {
        enter_time_namespace(plan.time_offsets.as_deref()).map_err(step("making the time namespace"))?;
    }
    Ok(())
}

fn enter_time_namespace(offsets: Option<&str>) -> io::Result<()> {
    namespace::unshare(Namespaces::TIME)?;
    if let Some(offsets) = offsets {
        std::fs::write("/proc/self/timens_offsets", offsets)?;
    }
    let namespace = namespace::open(Path::new("/proc/self/ns/time_for_children"))?;
    namespace::enter(namespace.as_fd(), Namespaces::TIME)
}

/// A namespace kind as the kernel names its file.
pub(super) fn name(kind: Namespaces) -> &'static str {
    match kind {
        Namespaces::MNT => "mnt",
        Namespaces::CGROUP => "cgroup",
        Namespaces::UTS => "uts",
        Namespaces::IPC => "ipc",
        Namespaces::USER => "user",
        Namespaces::PID => "pid",
        Namespaces::NET => "net",
        Namespaces::TIME => "time",
        _ => "unknown",
    }
}

/// The namespaces that are made by the clone itself. The cgroup namespace is made after the process has joined its
/// cgroups, the time namespace after its offsets are written.
pub(super) fn in_clone(new: Namespaces) -> Namespaces {
    new.difference(Namespaces::CGROUP | Namespaces::TIME)
}

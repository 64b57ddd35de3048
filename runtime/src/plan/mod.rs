//! Planning: an untrusted request becomes plain, checked data. Pure: no file is opened, nothing is changed.

mod devices;
mod error;
mod hooks;
pub(crate) mod mount_options;
mod mounts;
mod namespaces;
mod process;
mod sysctl;

pub use error::PlanError;
pub use mount_options::KNOWN as MOUNT_OPTIONS;
pub use namespaces::kind_of;

pub(crate) use devices::{DeviceKind, DevicePlan};
pub(crate) use hooks::{HookPlan, Hooks};
pub(crate) use mounts::{MountKind, MountPlan};
pub(crate) use namespaces::{IdMaps, Join, JoinSource, NamespacePlan};
pub(crate) use process::ProcessPlan;
pub(crate) use sysctl::SysctlPlan;

use crate::cgroup::{self, CgroupPlan};
use crate::id::ContainerId;
use crate::identity::{self, IdentityPlan};
use crate::seccomp::{self, Filter};
use coracle_linux::mount::Propagation;
use coracle_linux::namespace::Namespaces;
use oci_spec::runtime::{Linux, Spec};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What a container is to be made of.
#[derive(Debug)]
pub struct CreateRequest {
    /// Its name, unique among those of its maker.
    pub id: ContainerId,
    /// The directory that relative paths of the specification start at.
    pub bundle: PathBuf,
    /// The specification (config.json).
    pub spec: Spec,
    /// Where its root file system comes from; for a plain bundle, the directory of [`root_path`].
    pub root: RootSource,
    /// Mounts that exist already, detached, and go to their place in this container.
    pub detached: Vec<DetachedMount>,
    /// Destinations of bind mounts that begin with a copy of the directory they cover, its owner and mode included: an
    /// image's volumes. Their sources are the maker's own, and empty.
    pub copied_up: Vec<PathBuf>,
    /// What its standard streams are.
    pub stdio: Stdio,
    /// Namespaces to join that are known by descriptor. They replace what the specification says about that kind.
    pub join: Vec<(Namespaces, OwnedFd)>,
    /// How it is made.
    pub options: CreateOptions,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A directory that is the root file system.
    Path(PathBuf),
    /// An overlay, mounted inside the container's mount namespace only. `upper` is never used again after the
    /// container (it is mounted `volatile`).
    Overlay {
        /// The directory that relative paths in `lower` start at.
        store: PathBuf,
        /// The layers, uppermost first; short relative names, since all of them share one page of options.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// The work directory of overlayfs, empty, on the file system of `upper`.
        work: PathBuf,
    },
}

/// A mount that exists already, attached nowhere.
#[derive(Debug)]
pub struct DetachedMount {
    /// Its place in the container, absolute. A mount of the specification with this destination is replaced by it.
    pub destination: PathBuf,
    /// The mount (of `fsmount` or `open_tree`).
    pub mount: OwnedFd,
}

/// The standard streams of a container's first process.
#[derive(Debug)]
pub enum Stdio {
    /// The maker's own.
    Inherit,
    /// These three.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new terminal made in the container's own devpts; [`Container::console`](crate::Container) is its other end.
    /// Required when `process.terminal` is true, and only then.
    Terminal,
}

impl Stdio {
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        Ok(match self {
            Self::Inherit => Self::Inherit,
            Self::Terminal => Self::Terminal,
            Self::Fds {
                stdin,
                stdout,
                stderr,
            } => Self::Fds {
                stdin: stdin.try_clone()?,
                stdout: stdout.try_clone()?,
                stderr: stderr.try_clone()?,
            },
        })
    }
}

/// How a container waits between "created" and "running".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Gate {
    /// For a message from its maker, who stays: [`Container::start`](crate::Container::start).
    #[default]
    Maker,
    /// For somebody to open a fifo for reading; the maker may leave once it has said that there is a record.
    Fifo {
        /// The fifo.
        path: PathBuf,
        /// A file to be made, where the process says why it ended when it can say so nowhere else.
        last_words: PathBuf,
    },
}

/// How a container is made.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// What it waits for before it runs the payload.
    pub gate: Gate,
    /// A link to the bundle, to be made when the cgroup has become the container's: whoever finds it and no record knows
    /// what may be ended.
    pub mark: Option<PathBuf>,
    /// That its program cannot be found is said by its start, not by its creation: Kubernetes wants a container that has
    /// ended, not one that cannot be made.
    pub defers_lookup: bool,
    /// Do not give it a session keyring of its own.
    pub no_new_keyring: bool,
    /// Descriptors 3 to 2+N of the maker that the payload keeps.
    pub preserve_fds: u32,
}

/// A checked request: all that is needed to make the container, as plain data.
#[derive(Debug)]
pub struct Plan {
    pub(crate) id: ContainerId,
    pub(crate) bundle: PathBuf,
    pub(crate) oci_version: String,
    pub(crate) annotations: HashMap<String, String>,
    pub(crate) namespaces: NamespacePlan,
    pub(crate) cgroup: CgroupPlan,
    pub(crate) root: RootPlan,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked_paths: Vec<PathBuf>,
    pub(crate) readonly_paths: Vec<PathBuf>,
    pub(crate) sysctls: Vec<SysctlPlan>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) process: ProcessPlan,
    pub(crate) identity: IdentityPlan,
    pub(crate) seccomp: Option<Filter>,
    pub(crate) hooks: Hooks,
    pub(crate) stdio: Stdio,
    pub(crate) options: CreateOptions,
    /// What is odd and was left out, as sentences for the log.
    pub(crate) warnings: Vec<String>,
}

impl Plan {
    /// The compiled system call filter, for those who run further processes in the container.
    #[must_use]
    pub fn seccomp(&self) -> Option<&Filter> {
        self.seccomp.as_ref()
    }
}

/// The root file system.
#[derive(Debug)]
pub(crate) struct RootPlan {
    pub(crate) source: RootSource,
    /// Where it is attached while it is assembled: `root.path`, absolute. Hooks look for it there.
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) propagation: Option<(Propagation, bool)>,
}

/// Checks a request and plans its execution.
///
/// # Errors
/// Names the field that is wrong, missing, or asks for what is not supported.
pub fn plan(request: CreateRequest) -> Result<Plan, PlanError> {
    let CreateRequest {
        id,
        bundle,
        spec,
        root,
        detached,
        copied_up,
        stdio,
        join,
        options,
    } = request;
    check_version(spec.version())?;
    refuse_unsupported(&spec)?;
    let linux = spec.linux().as_ref().ok_or_else(|| PlanError::missing("linux"))?;
    let process = process::plan(&spec, &stdio)?;
    let namespaces = namespaces::plan(linux, join)?;
    let root = root_plan(&spec, linux, &bundle, root, &namespaces)?;
    check_names(&spec, &namespaces)?;
    let oci_process = spec
        .process()
        .as_ref()
        .ok_or_else(|| PlanError::missing("process"))?;
    let mut warnings = Vec::new();
    Ok(Plan {
        oci_version: spec.version().clone(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        cgroup: cgroup::plan(&spec, &id)?,
        mounts: mounts::plan(&spec, &bundle, detached, &copied_up, &mut warnings)?,
        devices: devices::plan(linux)?,
        masked_paths: absolute_paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: absolute_paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        sysctls: sysctl::plan(&spec, &namespaces)?,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        identity: identity::plan(oci_process)?,
        seccomp: linux.seccomp().as_ref().map(seccomp::compile).transpose()?,
        hooks: Hooks::plan(spec.hooks().as_ref())?,
        id,
        bundle,
        namespaces,
        root,
        process,
        stdio,
        options,
        warnings,
    })
}

fn root_plan(
    spec: &Spec,
    linux: &Linux,
    bundle: &Path,
    source: RootSource,
    namespaces: &NamespacePlan,
) -> Result<RootPlan, PlanError> {
    if matches!(source, RootSource::Overlay { .. }) && namespaces.has_user() {
        let value = "an overlay in a user namespace".to_owned();
        return Err(PlanError::NotSupported {
            field: "root".to_owned(),
            value,
        });
    }
    let propagation = match linux.rootfs_propagation().as_deref() {
        None | Some("") => None,
        Some(name) => Some(mount_options::propagation(name).ok_or_else(|| {
            PlanError::invalid(
                "linux.rootfsPropagation",
                name,
                "is not a kind of mount propagation",
            )
        })?),
    };
    let readonly = spec
        .root()
        .as_ref()
        .and_then(oci_spec::runtime::Root::readonly)
        .unwrap_or(false);
    Ok(RootPlan {
        source,
        path: root_path(spec, bundle)?,
        readonly,
        propagation,
    })
}

/// `root.path` of a bundle's specification, absolute.
///
/// # Errors
/// It is missing, or the root of the host.
pub fn root_path(spec: &Spec, bundle: &Path) -> Result<PathBuf, PlanError> {
    let root = spec.root().as_ref().ok_or_else(|| PlanError::missing("root"))?;
    if root.path().as_os_str().is_empty() {
        return Err(PlanError::missing("root.path"));
    }
    let path = mounts::clean(&bundle.join(root.path()));
    if path == Path::new("/") {
        return Err(PlanError::invalid("root.path", "/", "is the root of the host"));
    }
    Ok(path)
}

/// Versions of one major number are compatible (semver, as the specification says).
fn check_version(version: &str) -> Result<(), PlanError> {
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(0 | 1) => Ok(()),
        Some(_) => Err(PlanError::invalid(
            "ociVersion",
            version,
            "is a version we do not know; 1.x is supported",
        )),
        None => Err(PlanError::invalid(
            "ociVersion",
            format!("{version:?}"),
            "is not a version",
        )),
    }
}

/// What the specification can ask for and this version cannot do yet. Nothing is ignored silently.
fn refuse_unsupported(spec: &Spec) -> Result<(), PlanError> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let asked = [
        (
            "linux.netDevices",
            linux
                .net_devices()
                .as_ref()
                .is_some_and(|devices| !devices.is_empty()),
        ),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        (
            "linux.mountLabel",
            linux
                .mount_label()
                .as_ref()
                .is_some_and(|label| !label.is_empty()),
        ),
    ];
    match asked.into_iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(PlanError::NotSupported {
            field: field.to_owned(),
            value: "this field".to_owned(),
        }),
        None => Ok(()),
    }
}

fn check_names(spec: &Spec, namespaces: &NamespacePlan) -> Result<(), PlanError> {
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if !namespaces.has(Namespaces::UTS) {
            return Err(PlanError::invalid(
                field,
                name,
                "is given, but linux.namespaces lists no uts namespace",
            ));
        }
        if name.len() > 64 || name.contains('\0') {
            return Err(PlanError::invalid(
                field,
                name,
                "is longer than 64 bytes or holds a NUL byte",
            ));
        }
    }
    Ok(())
}

fn absolute_paths(field: &str, paths: Option<&[String]>) -> Result<Vec<PathBuf>, PlanError> {
    let check = |(index, path): (usize, &String)| {
        let good = path.starts_with('/') && !path.contains('\0');
        good.then(|| mounts::clean(Path::new(path))).ok_or_else(|| {
            PlanError::invalid(
                format!("{field}[{index}]"),
                format!("{path:?}"),
                "is not an absolute path",
            )
        })
    };
    paths.unwrap_or_default().iter().enumerate().map(check).collect()
}

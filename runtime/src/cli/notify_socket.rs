//! NOTIFY_SOCKET: a container's service tells the service manager of the host that it is ready (sd_notify(3)).
//!
//! ```text
//! service manager          coracle                         container
//!  $NOTIFY_SOCKET <-------- READY=1, MAINPID=... <-------- /run/notify/notify.sock
//!                                                          (bound, its NOTIFY_SOCKET)
//! ```
//! As with runc, what is passed on is that it is ready: the manager would not take a word from a process that is not of
//! the service. `run` in the foreground is the main process itself; detached, and in `start`, the container's first one is,
//! and the command ends when it is ready or has ended.

use super::CliError;
use coracle_linux::pidfd::Pid;
use coracle_linux::socket;
use coracle_runtime::ContainerId;
use coracle_runtime::state::Store;
use oci_spec::runtime::{Mount, MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// Where the container finds the directory, and the socket in it.
const PLACE: &str = "/run/notify";
const SOCKET: &str = "notify.sock";
/// How long the manager may take to have read what it was told, in seconds.
const BARRIER: i64 = 5;

/// The container's socket, and the manager's.
#[derive(Debug)]
pub(super) struct NotifySocket {
    of_container: UnixDatagram,
    manager: UnixDatagram,
}

/// Where the container's socket is on the host.
fn directory(store: &Store, id: &ContainerId) -> PathBuf {
    store.dir(id).join("notify")
}

/// The manager's socket, where there is one.
fn of_environment() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// Gives the container a place for its socket, when there is a manager to be told.
///
/// # Errors
/// The directory cannot be made.
pub(super) fn plan(store: &Store, id: &ContainerId, spec: &mut Spec) -> Result<(), CliError> {
    if of_environment().is_none() {
        return Ok(());
    }
    let directory = directory(store, id);
    let failed = |source| CliError::NotifySocket {
        path: directory.clone(),
        source,
    };
    std::fs::create_dir(&directory).map_err(failed)?;
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).map_err(failed)?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(mount(&directory));
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(format!("NOTIFY_SOCKET={PLACE}/{SOCKET}"));
        process.set_env(Some(env));
    }
    Ok(())
}

fn mount(directory: &Path) -> Option<Mount> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"]
        .map(str::to_owned)
        .to_vec();
    let mount = MountBuilder::default()
        .destination(PLACE)
        .typ("bind")
        .source(directory)
        .options(options);
    mount.build().ok()
}

impl NotifySocket {
    /// Listens in the place that the container has, if it has one.
    ///
    /// # Errors
    /// The socket cannot be bound, or the manager's cannot be reached.
    pub(super) fn bind(store: &Store, id: &ContainerId) -> Result<Option<Self>, CliError> {
        let Some(name) = of_environment() else {
            return Ok(None);
        };
        let directory = directory(store, id);
        if !directory.is_dir() {
            return Ok(None);
        }
        let path = directory.join(SOCKET);
        let failed = |source| CliError::NotifySocket {
            path: path.clone(),
            source,
        };
        let of_container = UnixDatagram::bind(&path).map_err(failed)?;
        // Whoever the container's process is.
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(failed)?;
        of_container.set_nonblocking(true).map_err(failed)?;
        let manager = manager(Path::new(&name)).map_err(|source| CliError::NotifySocket {
            path: PathBuf::from(&name),
            source,
        })?;
        Ok(Some(Self {
            of_container,
            manager,
        }))
    }

    /// Waits until the container says that it is ready, or has ended, and passes that on.
    ///
    /// # Errors
    /// poll(2).
    pub(super) fn wait(&self, container: BorrowedFd<'_>, pid: Pid) -> Result<(), CliError> {
        loop {
            let mut ready = [
                PollFd::new(&self.of_container, PollFlags::IN),
                PollFd::from_borrowed_fd(container, PollFlags::IN),
            ];
            rustix::io::retry_on_intr(|| poll(&mut ready, None)).map_err(|errno| CliError::Foreground {
                doing: "waiting for READY=1",
                source: errno.into(),
            })?;
            let ended = !ready[1].revents().is_empty();
            if self.pass_on(pid.as_raw_nonzero().get()) || ended {
                return Ok(());
            }
        }
    }

    /// Passes on what has come; whether that was READY=1. What the manager does not take is nobody's to mend.
    pub(super) fn pass_on(&self, main_pid: i32) -> bool {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.of_container.recv(&mut buffer) {
            let lines = buffer[..length].split(|byte| *byte == b'\n');
            if let Some(line) = lines.into_iter().find(|line| line.starts_with(b"READY=")) {
                let _ = self.manager.send(&[line, b"\n"].concat());
                let _ = self.manager.send(format!("MAINPID={main_pid}\n").as_bytes());
                let _ = self.barrier();
                return true;
            }
        }
        false
    }

    /// Until the manager has read it: it knows whose word it is only as long as that process is there.
    fn barrier(&self) -> io::Result<()> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        socket::send(self.manager.as_fd(), b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let limit = Timespec {
            tv_sec: BARRIER,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&ours, PollFlags::HUP)], Some(&limit))?;
        Ok(())
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.of_container.as_fd()
    }
}

/// A name that begins with "@" is an abstract one (sd_notify(3)).
fn manager(name: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

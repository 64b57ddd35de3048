//! Starting a shim, and letting one go.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_linux::spawn::Spawn;
use coracle_shim_api::{Client, ConnectError, RpcError, SocketError};
use rustix::process::{Pid, WaitOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::program::PROGRAM;
use crate::daemon::Daemon;
use crate::pods::{Sandbox, Shim};

pub(super) const SOCKET: &str = "shim.sock";
const LOG: &str = "shim.log";
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Bytes.
const LOG_TAIL: usize = 4096;
/// How long a shim that was told to go may take to do so.
const LEAVE: Duration = Duration::from_secs(10);
/// How often a shim is asked, while somebody waits for it, whether it is still there.
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("{PROGRAM}: found neither beside this program nor on PATH; set the key shim")]
    NoProgram,
    #[error("shim {}: no such program", .0.display())]
    NoSuchProgram(PathBuf),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("{action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
}

/// A started shim, and how to notice its end.
pub(crate) struct Started {
    pub(crate) shim: Shim,
    pub(crate) end: OwnedFd,
}

/// Starts a shim whose files are in `directory`.
pub(crate) async fn start(daemon: &Daemon, id: &str, directory: &Path) -> Result<Started, ShimError> {
    let io = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| ShimError::Io { action, path, source }
    };
    let socket = directory.join(SOCKET);
    let listener = coracle_shim_api::bind(&socket)?;
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(io("open", Path::new("/dev/null")))?;
    let log_path = directory.join(LOG);
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&log_path)
        .map_err(io("open", &log_path))?;
    let spawn = Spawn {
        program: c_string(daemon.shim_program.as_os_str().as_bytes()),
        args: arguments(daemon, id, directory),
        env: std::env::var_os("PATH")
            .map(|path| c_string(&[b"PATH=", path.as_bytes()].concat()))
            .into_iter()
            .collect(),
        descriptors: &[null.as_fd(), null.as_fd(), log.as_fd(), listener.as_fd()],
        own_session: true,
    };
    let child = spawn.start().map_err(io("start", &daemon.shim_program))?;
    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
    let client = match Client::connect(&socket).await {
        Ok(client) => client,
        Err(error) => {
            // Nobody could ever tell it to go.
            kill(pid);
            // It holds nothing yet, so it leaves at once.
            let _ = tokio::time::timeout(LEAVE, ended(&child.pidfd)).await;
            collect(pid);
            return Err(error.into());
        }
    };
    Ok(Started {
        shim: Shim { client, pid },
        end: child.pidfd,
    })
}

/// Says in the daemon's log what the shim, which is leaving or refused something, wrote to its own.
pub(crate) async fn report_log(started: &Started, id: &str, directory: &Path) {
    // Its last words come after it has closed the connection.
    let _ = tokio::time::timeout(LAST_WORDS, ended(&started.end)).await;
    let text = std::fs::read(directory.join(LOG)).unwrap_or_default();
    let tail = text.len().saturating_sub(LOG_TAIL);
    let said = String::from_utf8_lossy(&text[tail..]);
    if !said.is_empty() {
        tracing::warn!(sandbox = id, log = %said.trim_end(), "the shim said");
    }
}

/// Watches over the shim of a sandbox that is known already: when it ends while the sandbox still counts on it, its
/// containers are ended too.
pub(crate) fn watch(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, pid: u32, end: OwnedFd) {
    let (daemon, sandbox) = (Arc::clone(daemon), Arc::clone(sandbox));
    tokio::spawn(async move {
        if let Err(error) = ended(&end).await {
            tracing::error!(sandbox = sandbox.id, %error, "cannot watch the shim");
            return;
        }
        collect(pid);
        if sandbox.has_shim(pid) {
            tracing::warn!(sandbox = sandbox.id, pid, "the shim died");
            crate::shims::dead::end_pod(&daemon, &sandbox).await;
        }
        daemon.remove_empty_cgroups();
    });
}

/// Returns with an error once the shim does not answer any more; as long as it does, never.
pub(crate) async fn silence(shim: &Shim) -> RpcError {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        if let Err(error) = shim.client.state().await {
            return error;
        }
    }
}

/// Returns once the shim's process has ended.
// `with_interest` is deprecated since a type could hand out another descriptor later; OwnedFd cannot, and the other
// constructors are unsafe, which this crate forbids.
#[allow(deprecated)]
pub(crate) async fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    let waiting = AsyncFd::with_interest(pidfd.as_fd(), Interest::READABLE)?;
    waiting.readable().await?.retain_ready();
    Ok(())
}

/// Tells a shim to end everything it holds and to leave. False: it would not, and was killed; what it held is left.
pub(crate) async fn shut_down(shim: &Shim) -> bool {
    match shim.client.shutdown().await {
        Ok(()) | Err(RpcError::Closed(_)) => true,
        Err(error) => {
            tracing::warn!(pid = shim.pid, %error, "the shim does not leave; killing it");
            kill(shim.pid);
            false
        }
    }
}

/// Waits for the end of a shim that was told to go, and collects it.
pub(crate) async fn collect_ended(started: Started) {
    if let Ok(Err(error)) = tokio::time::timeout(LEAVE, ended(&started.end)).await {
        tracing::warn!(pid = started.shim.pid, %error, "cannot wait for the shim");
    }
    collect(started.shim.pid);
}

/// At once, whatever state it is in.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // ESRCH: it went by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// A shim of this daemon is its child; one of an earlier daemon is not, which is no error.
fn collect(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

fn arguments(daemon: &Daemon, id: &str, directory: &Path) -> Vec<CString> {
    let shims = daemon.shims_cgroup();
    let mut arguments: Vec<&[u8]> = vec![PROGRAM.as_bytes(), b"--id", id.as_bytes(), b"--state-dir"];
    arguments.extend([directory.as_os_str().as_bytes(), b"--cgroup", shims.as_bytes()]);
    if let Some(trace) = &daemon.config.trace_steps {
        arguments.extend([b"--trace-steps".as_slice(), trace.as_os_str().as_bytes()]);
    }
    arguments.into_iter().map(c_string).collect()
}

/// Paths and ids of ours have no NUL: the system gave us the former, we made the latter.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

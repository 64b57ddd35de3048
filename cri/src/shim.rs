//! The pods' shims: starting one, finding it again, and noticing at once when one dies.
//!
//! ```text
//!   coracled                                          coracle-shim
//!      | bind STATE/pods/<id>/shim.sock                    |
//!      | posix_spawn: own session, 3 = that socket ------->|
//!      | connect; StartPod, CreateContainer ... ---------->|   shim/api
//!      | poll pidfd <- - - - - - - - - - - - - - - - - - - |   readable when it has ended, however it ended
//! ```

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

use crate::config::Config;
use crate::daemon::Daemon;
use crate::pods::{Sandbox, Shim};

const PROGRAM: &str = "coracle-shim";
const SOCKET: &str = "shim.sock";
const LOG: &str = "shim.log";
/// Hooks run within a call: their own limits are in seconds.
const LONGEST_CALL: Duration = Duration::from_secs(150);
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Bytes.
const LOG_TAIL: usize = 4096;
/// A shim that does not answer so long is as good as dead.
const ANSWER: Duration = Duration::from_secs(10);

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("{PROGRAM}: found neither beside this program nor on PATH; set the key shim")]
    NoProgram,
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
    #[error("the shim of sandbox {0} does not answer")]
    Silent(String),
}

/// The shim program: as configured, beside this one, or on PATH.
pub(crate) fn find_program(config: &Config) -> Result<PathBuf, ShimError> {
    if let Some(program) = &config.shim {
        return Ok(program.clone());
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| own.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = beside.into_iter().chain(std::env::split_paths(&path));
    directories
        .map(|directory| directory.join(PROGRAM))
        .find(|program| program.is_file())
        .ok_or(ShimError::NoProgram)
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
    let client = Client::connect(&socket).await?;
    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
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

/// Connects to a shim that an earlier daemon started. None: nobody listens.
pub(crate) async fn find_again(id: &str, directory: &Path) -> Result<Option<Found>, ShimError> {
    let client = match Client::connect(&directory.join(SOCKET)).await {
        Ok(client) => client,
        Err(ConnectError::Connect { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(ConnectError::Path(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let state = match tokio::time::timeout(ANSWER, client.state()).await {
        Ok(Ok(state)) => state,
        // It was on its way out.
        Ok(Err(RpcError::Closed(_))) => return Ok(None),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(ShimError::Silent(id.to_owned())),
    };
    let pid = state.shim_pid;
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(end) = raw.and_then(|pid| coracle_linux::pidfd::open(pid).ok()) else {
        return Ok(None);
    };
    Ok(Some(Found {
        started: Started {
            shim: Shim { client, pid },
            end,
        },
        state,
    }))
}

/// A shim of an earlier daemon and what it knows.
pub(crate) struct Found {
    pub(crate) started: Started,
    pub(crate) state: coracle_shim_api::pod::StateResponse,
}

/// Waits for the answer to a call that makes or starts something; a shim that hangs must not hold a name for ever.
pub(crate) async fn answer<T>(
    id: &str,
    call: impl Future<Output = Result<T, RpcError>>,
) -> Result<T, ShimError> {
    match tokio::time::timeout(LONGEST_CALL, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ShimError::Silent(id.to_owned())),
    }
}

/// Takes the shim into the sandbox and watches over it: when it ends while the sandbox still counts on it, its
/// containers are ended too.
pub(crate) fn adopt(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, started: Started) {
    let pid = started.shim.pid;
    sandbox.set_shim(started.shim);
    let (daemon, sandbox) = (Arc::clone(daemon), Arc::clone(sandbox));
    tokio::spawn(async move {
        if let Err(error) = ended(&started.end).await {
            tracing::error!(sandbox = sandbox.id, %error, "cannot watch the shim");
            return;
        }
        collect(pid);
        if sandbox.shim().is_some_and(|shim| shim.pid == pid) {
            tracing::warn!(sandbox = sandbox.id, pid, "the shim died");
            crate::dead_shim::end_pod(&daemon, &sandbox).await;
        }
        daemon.remove_empty_cgroups();
    });
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

/// Ends a shim for good and everything it holds; one that does not answer is killed.
pub(crate) async fn shut_down(shim: &Shim) {
    match tokio::time::timeout(ANSWER, shim.client.shutdown()).await {
        Ok(Ok(()) | Err(RpcError::Closed(_))) => {}
        Ok(Err(error)) => {
            tracing::warn!(pid = shim.pid, %error, "shutdown failed; killing the shim");
            kill(shim.pid);
        }
        Err(_) => {
            tracing::warn!(pid = shim.pid, "the shim does not answer; killing it");
            kill(shim.pid);
        }
    }
}

/// Waits for the end of a shim that was told to go, and collects it.
pub(crate) async fn collect_ended(started: Started) {
    if let Ok(Err(error)) = tokio::time::timeout(ANSWER, ended(&started.end)).await {
        tracing::warn!(pid = started.shim.pid, %error, "cannot wait for the shim");
    }
    collect(started.shim.pid);
}

fn kill(pid: u32) {
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

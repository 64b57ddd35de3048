//! Starting a shim.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use coracle_linux::spawn::Spawn;
use coracle_shim_api::Client;

use super::program::PROGRAM;
use super::stop::{LEAVE, collect, kill};
use super::{SOCKET, ShimError, Shims, Started, ended};
use crate::pods::Shim;

const LOG: &str = "shim.log";
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Bytes.
const LOG_TAIL: usize = 4096;

impl Shims {
    /// Starts a shim whose files are in `directory`.
    pub(crate) async fn start(&self, id: &str, directory: &Path) -> Result<Started, ShimError> {
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
            program: c_string(self.program.as_os_str().as_bytes()),
            args: self.arguments(id, directory),
            env: std::env::var_os("PATH")
                .map(|path| c_string(&[b"PATH=", path.as_bytes()].concat()))
                .into_iter()
                .collect(),
            descriptors: &[null.as_fd(), null.as_fd(), log.as_fd(), listener.as_fd()],
            own_session: true,
        };
        let child = spawn.start().map_err(io("start", &self.program))?;
        let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
        let client = match Client::connect(&socket) {
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

    fn arguments(&self, id: &str, directory: &Path) -> Vec<CString> {
        let shims = self.cgroup();
        let mut arguments: Vec<&[u8]> = vec![PROGRAM.as_bytes(), b"--id", id.as_bytes(), b"--state-dir"];
        arguments.extend([directory.as_os_str().as_bytes(), b"--cgroup", shims.as_bytes()]);
        if let Some(trace) = &self.trace {
            arguments.extend([b"--trace-steps".as_slice(), trace.as_os_str().as_bytes()]);
        }
        arguments.into_iter().map(c_string).collect()
    }
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

/// Paths and ids of ours have no NUL: the system gave us the former, we made the latter.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

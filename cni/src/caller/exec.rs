//! Running one plugin program: input in, output out, within a time and a size.

use super::CallErrors;
use crate::config::NetworkConfig;
use crate::error::PluginError;
use crate::result::ResultError;
use crate::version::Version;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A result is a few kilobytes; what prints more than this is not a plugin.
const MOST_OUTPUT: usize = 16 << 20;
/// How much of standard error is kept for the error.
const MOST_COMPLAINT: usize = 16 << 10;
/// A program file is "busy" while somebody writes it: an upgrade in progress (libcni tries as often).
const BUSY_ATTEMPTS: u32 = 30;
const BUSY_PAUSE: Duration = Duration::from_millis(200);
/// How long a plugin that was killed may take to leave.
const LEAVE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Calling a plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No program of this name.
    #[error("no program {plugin:?} in {}", .dirs.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", "))]
    Find {
        /// The plugin's type.
        plugin: String,
        /// Where it was looked for.
        dirs: Vec<PathBuf>,
    },
    /// The program did not start, or talking to it failed.
    #[error("run {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {} s and was killed", .limit.as_secs_f32())]
    Timeout {
        /// The program.
        program: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// It printed more than any result has.
    #[error("{program} printed more than {MOST_OUTPUT} bytes and was killed")]
    TooMuch {
        /// The program.
        program: PathBuf,
    },
    /// It reported a failure.
    #[error("plugin {plugin}: {error} (code {})", .error.code.0)]
    Plugin {
        /// The plugin's type.
        plugin: String,
        /// What it said.
        error: PluginError,
    },
    /// It failed without saying why in the form of the protocol.
    #[error("{program} failed with {status} and no error object: {output}")]
    Died {
        /// The program.
        program: PathBuf,
        /// Exit code or signal.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// It succeeded and printed something that is not JSON.
    #[error("{program} printed no JSON")]
    Output {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// ADD succeeded without result.
    #[error("plugin {plugin} printed no result")]
    NoResult {
        /// The plugin's type.
        plugin: String,
    },
    /// ADD gave something that is no result.
    #[error("plugin {plugin}")]
    Result {
        /// The plugin's type.
        plugin: String,
        /// What is wrong.
        #[source]
        source: ResultError,
    },
    /// The network's version lacks the command.
    #[error("version {version} of the network has no {command}")]
    Version {
        /// The command.
        command: &'static str,
        /// The network's version.
        version: Version,
    },
    /// The plugin does not speak the network's version.
    #[error("plugin {plugin} does not support version {version}")]
    Unsupported {
        /// The plugin's type.
        plugin: String,
        /// The network's version.
        version: Version,
    },
    /// The result could not be kept or found.
    #[error("cached result {path}")]
    Cache {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// ADD failed, and so did taking back what it had made.
    #[error("{error}; taking back what was made failed too: {undo}")]
    Undo {
        /// Why ADD failed.
        error: Box<CallError>,
        /// Why DEL failed.
        undo: Box<CallErrors>,
    },
}

impl CallError {
    /// What the plugin said, if a plugin said it.
    pub fn plugin_error(&self) -> Option<&PluginError> {
        match self {
            Self::Plugin { error, .. } => Some(error),
            Self::Undo { error, .. } => error.plugin_error(),
            _ => None,
        }
    }

    /// The protocol's code, if a plugin gave one (11 means: try again later).
    pub fn code(&self) -> Option<crate::error::Code> {
        self.plugin_error().map(|error| error.code)
    }
}

/// A plugin's program file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    kind: String,
    path: PathBuf,
}

impl Program {
    /// Finds the program of a plugin type: the first directory that has a regular file, or a link to one, of that name.
    pub fn find(kind: &str, dirs: &[PathBuf]) -> Result<Self, CallError> {
        let missing = || CallError::Find {
            plugin: kind.to_owned(),
            dirs: dirs.to_vec(),
        };
        // The name comes from a configuration: it must not lead out of the directories.
        if kind.is_empty() || kind.contains('/') {
            return Err(missing());
        }
        let paths = dirs
            .iter()
            .filter(|dir| !dir.as_os_str().is_empty())
            .map(|dir| dir.join(kind));
        let path = paths
            .into_iter()
            .find(|path| path.is_file())
            .ok_or_else(missing)?;
        Ok(Self {
            kind: kind.to_owned(),
            path,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it with these variables (on top of this process's) and this input. What it prints is read as JSON.
    pub fn call(
        &self,
        environment: &[(String, String)],
        config: &NetworkConfig,
        limit: Duration,
    ) -> Result<Option<Value>, CallError> {
        let program = || self.path.clone();
        let child = self.spawn(environment).map_err(|source| CallError::Run {
            program: program(),
            source,
        })?;
        let ended = match talk(child, &config.to_bytes(), limit) {
            Ok(ended) => ended,
            Err(Failure::Io(source)) => {
                return Err(CallError::Run {
                    program: program(),
                    source,
                });
            }
            Err(Failure::Timeout) => {
                return Err(CallError::Timeout {
                    program: program(),
                    limit,
                });
            }
            Err(Failure::TooMuch) => return Err(CallError::TooMuch { program: program() }),
        };
        if !ended.status.success() {
            return Err(self.failure(&ended));
        }
        if ended.stdout.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        serde_json::from_slice(&ended.stdout)
            .map(Some)
            .map_err(|source| CallError::Output {
                program: program(),
                source,
            })
    }

    fn spawn(&self, environment: &[(String, String)]) -> io::Result<Child> {
        let mut command = Command::new(&self.path);
        command
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Its own group, so that what it started can be killed with it.
            .process_group(0);
        let mut attempt = 1;
        loop {
            match command.spawn() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && attempt < BUSY_ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn failure(&self, ended: &Ended) -> CallError {
        if let Ok(error) = serde_json::from_slice::<PluginError>(&ended.stdout) {
            return CallError::Plugin {
                plugin: self.kind.clone(),
                error,
            };
        }
        let status = match (ended.status.code(), ended.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        let mut output = ended.stdout.clone();
        output.extend_from_slice(&ended.stderr);
        let end = output
            .get(output.len().saturating_sub(MOST_COMPLAINT)..)
            .unwrap_or_default();
        let output = String::from_utf8_lossy(end).trim().to_owned();
        CallError::Died {
            program: self.path.clone(),
            status,
            output,
        }
    }
}

struct Ended {
    status: std::process::ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

enum Failure {
    Io(io::Error),
    Timeout,
    TooMuch,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Feeds the child, collects its output and its end; kills it and what it started when that fails.
fn talk(mut child: Child, input: &[u8], limit: Duration) -> Result<Ended, Failure> {
    let group = Pid::from_child(&child);
    match exchange(&mut child, input, Instant::now() + limit) {
        Ok((stdout, stderr)) => Ok(Ended {
            status: child.wait()?,
            stdout,
            stderr,
        }),
        Err(failure) => {
            // Best effort: it may have ended this moment.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = child.kill();
            collect(child);
            Err(failure)
        }
    }
}

/// What was killed leaves at once, unless the kernel holds it: then a thread waits for it, and not the caller.
fn collect(mut child: Child) {
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let ended =
        pidfd.is_ok_and(|pidfd| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&LEAVE)) == Ok(1));
    if ended {
        // It is there to be collected: this cannot fail.
        let _ = child.wait();
    } else {
        // Without a thread it stays a zombie for as long as this process lives.
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }
}

fn exchange(child: &mut Child, input: &[u8], end: Instant) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(io::Error::from)?;
    let mut stdin = child.stdin.take();
    let mut stdout = Stream::of(child.stdout.take())?;
    let mut stderr = Stream::of(child.stderr.take())?;
    let mut left = input;
    if let Some(pipe) = &stdin {
        rustix::io::ioctl_fionbio(pipe, true).map_err(io::Error::from)?;
    }
    loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        fds.extend(
            stdout
                .borrow()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        fds.extend(
            stderr
                .borrow()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let rest = end
            .checked_duration_since(Instant::now())
            .ok_or(Failure::Timeout)?;
        let rest = Timespec::try_from(rest).map_err(|_| Failure::Timeout)?;
        match poll(&mut fds, Some(&rest)) {
            Ok(0) => return Err(Failure::Timeout),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::Io(error.into())),
        }
        let ended = !fds.first().is_none_or(|fd| fd.revents().is_empty());
        drop(fds);
        if feed(stdin.as_mut(), &mut left)? {
            stdin = None;
        }
        stdout.drain()?;
        stderr.drain()?;
        // A daemon that a plugin leaves behind may hold the pipes open: the plugin's own end counts.
        if ended {
            return Ok((stdout.bytes, stderr.bytes));
        }
    }
}

/// Writes what the pipe takes; true when there is nothing more to write.
fn feed(stdin: Option<&mut std::process::ChildStdin>, left: &mut &[u8]) -> io::Result<bool> {
    let Some(stdin) = stdin else { return Ok(true) };
    while !left.is_empty() {
        match stdin.write(left) {
            Ok(count) => *left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // It does not read its input: VERSION does not have to.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// One of the child's outputs.
struct Stream<R> {
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Stream<R> {
    fn of(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe,
            bytes: Vec::new(),
        })
    }

    fn borrow(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there.
    fn drain(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 8192];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self
                    .bytes
                    .extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Io(error)),
            }
            if self.bytes.len() > MOST_OUTPUT {
                return Err(Failure::TooMuch);
            }
        }
        Ok(())
    }
}

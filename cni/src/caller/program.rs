//! One plugin program: found, started, and its answer read.

use super::error::CallError;
use super::exchange::{Ended, Failure, MOST_OUTPUT, talk};
use crate::config::NetworkConfig;
use crate::error::PluginError;
use serde_json::Value;
use std::io::{self, ErrorKind};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How much of what a program printed is kept for the error.
const MOST_COMPLAINT: usize = 16 << 10;
/// A program file is "busy" while somebody writes it: an upgrade in progress (libcni tries as often).
const BUSY_ATTEMPTS: u32 = 30;
const BUSY_PAUSE: Duration = Duration::from_millis(200);

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
        let child = self.spawn(environment).map_err(|source| CallError::Start {
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
            Err(Failure::TooMuch) => {
                return Err(CallError::TooMuch {
                    program: program(),
                    limit: MOST_OUTPUT,
                });
            }
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
        if let Ok(source) = serde_json::from_slice::<PluginError>(&ended.stdout) {
            return CallError::Plugin {
                plugin: self.kind.clone(),
                source,
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

//! One command in a container, for ExecSync: its output streams to the caller, then its exit.
//!
//! ```text
//!   spawn --> joins the container, executes --> runs --ends--> output drained --> final message
//!                                                '--timeout, or the caller is gone--> its processes are killed
//! ```

mod processes;

use std::io;
use std::time::Duration;

use coracle_linux::cgroup::Cgroup;
use coracle_runtime::Stdio;
use coracle_runtime::exec as runtime_exec;
use coracle_shim_api::pod::{ExecOutput, ExecRequest};
use oci_spec::runtime::Process;
use tokio::sync::mpsc;

use crate::call::{Connection, Refused};
use crate::container::Live;
use crate::ended::Ended;
use crate::ready;
use crate::reaper::{Making, Reaper};
use crate::streams::{self, Caller, Ends, Gone, Readers};
use crate::trace::Trace;

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error("process")]
    Parse(#[from] serde_json::Error),
    #[error("run the command")]
    Run(#[from] runtime_exec::ExecError),
    #[error("open the command's standard streams")]
    Streams(#[source] io::Error),
    #[error("watch the command")]
    Watch(#[source] io::Error),
}

impl From<ExecError> for Refused {
    fn from(error: ExecError) -> Self {
        match &error {
            ExecError::Parse(_) => Self::invalid(error),
            ExecError::Run(run) if is_of_request(run) => Self::invalid(error),
            ExecError::Run(_) | ExecError::Streams(_) | ExecError::Watch(_) => Self::failed(error),
        }
    }
}

fn is_of_request(error: &runtime_exec::ExecError) -> bool {
    use runtime_exec::ExecError as Run;
    match error {
        Run::Plan(_) | Run::Identity(_) | Run::Affinity { .. } => true,
        Run::Cgroup(_)
        | Run::Listener(_)
        | Run::Channel(_)
        | Run::NotRunning
        | Run::Namespaces { .. }
        | Run::Clone(_)
        | Run::Process(_)
        | Run::Died(_) => false,
    }
}

/// A command that has been started.
pub(crate) struct Command {
    executing: runtime_exec::Executing,
    ends: Ends,
    timeout_ms: u64,
    cgroup: Cgroup,
    reaper: Reaper,
    /// Until the command's process exists and can be claimed.
    making: Making,
    trace: Trace,
    container_id: String,
}

/// Starts a command; the caller of [`Command::run`] sees to it.
pub(crate) fn spawn(
    request: &ExecRequest,
    live: &Live,
    reaper: &Reaper,
    trace: &Trace,
) -> Result<Command, ExecError> {
    let process: Process = serde_json::from_slice(&request.process)?;
    let terminal = process.terminal().unwrap_or_default();
    let (stdio, ends) = streams::open(terminal, false).map_err(ExecError::Streams)?;
    let making = reaper.making();
    let executing = {
        let plan = runtime_exec::plan(in_container(live, process, stdio)?)?;
        let step = trace.begin("Exec", "clone", &request.container_id);
        step.end(runtime_exec::spawn(plan))?
    };
    Ok(Command {
        executing,
        ends,
        timeout_ms: request.timeout_ms,
        cgroup: live.container.cgroup.clone(),
        reaper: reaper.clone(),
        making,
        trace: trace.clone(),
        container_id: request.container_id.clone(),
    })
}

fn in_container(live: &Live, process: Process, stdio: Stdio) -> Result<runtime_exec::ExecRequest, ExecError> {
    let container = &live.container;
    Ok(runtime_exec::ExecRequest {
        id: container.id.to_string(),
        pid: container.pid,
        pidfd: container.pidfd.try_clone().map_err(ExecError::Watch)?,
        cgroup: container.cgroup.clone(),
        process,
        seccomp: live.seccomp.clone(),
        state: container.state(coracle_runtime::state::Status::Running),
        stdio,
        preserve_fds: 0,
        no_new_keyring: false,
    })
}

impl Command {
    /// Sees the command to its end, or ends it.
    pub(crate) async fn run(
        self,
        caller: Connection,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<(), Refused> {
        let (trace, id) = (self.trace.clone(), self.container_id.clone());
        let step = trace.begin("Exec", "", &id);
        step.end(self.see_to_its_end(caller, output).await)
    }

    async fn see_to_its_end(
        mut self,
        caller: Connection,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<(), Refused> {
        let process = tokio::select! {
            process = ready::finish(self.executing) => process.map_err(ExecError::from)?,
            // Dropping what is being made undoes it.
            () = caller.closed() => return Ok(()),
        };
        let _claim = self.reaper.claim(process.pid);
        drop(self.making);
        let readers = Readers::new(self.ends.take_output(process.console), |stream| {
            Caller::new(stream, output.clone())
        });
        let mut ended = Ended::of(process.pidfd);
        let outcome = match readers {
            Err(error) => Err(ExecError::Watch(error).into()),
            Ok(readers) => tokio::select! {
                sent = send(&mut ended, readers, &output) => match sent {
                    Ok(()) => return Ok(()),
                    Err(Gone) => Ok(()),
                },
                () = limit(self.timeout_ms) => Err(Refused::Timeout(self.timeout_ms)),
                () = caller.closed() => Ok(()),
            },
        };
        processes::kill(process.pid, &self.cgroup).await;
        ended.wait().await;
        outcome
    }
}

/// Sends all output, and when the command has ended its exit.
async fn send(
    ended: &mut Ended,
    readers: Readers<Caller>,
    output: &mpsc::Sender<ExecOutput>,
) -> Result<(), Gone> {
    let progress = readers.progress();
    let sent = readers.run();
    tokio::pin!(sent);
    let mut all_sent = false;
    let exit = loop {
        tokio::select! {
            exit = ended.wait() => break exit,
            result = &mut sent, if !all_sent => {
                result?;
                all_sent = true;
            }
        }
    };
    if !all_sent {
        // A process that the command has left behind may hold the streams open for ever.
        streams::drained(sent, &progress).await.unwrap_or(Ok(()))?;
    }
    let last = ExecOutput {
        exited: true,
        exit_code: i32::from(exit.shell_code()),
        ..Default::default()
    };
    output.send(last).await.map_err(|_| Gone)
}

/// Returns when the time is up; never without a limit.
async fn limit(timeout_ms: u64) {
    match timeout_ms {
        0 => std::future::pending().await,
        limit => tokio::time::sleep(Duration::from_millis(limit)).await,
    }
}

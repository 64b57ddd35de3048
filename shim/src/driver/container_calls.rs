//! Calls about one container, and what happens to it by itself.

use std::os::fd::AsFd;
use std::time::SystemTime;

use coracle_linux::pidfd;
use coracle_linux::process::{self, Exit};
use coracle_runtime::seccomp::Filter;
use coracle_runtime::{ContainerId, CreateError, StartError};
use coracle_shim_api::pod::{
    ContainerState, CreateContainerRequest, CreateContainerResponse, Empty, ExecOutput, ExecRequest,
    KillContainerRequest, StartContainerResponse,
};
use tokio::sync::{mpsc, oneshot};

use super::{Driver, Event};
use crate::call::{Connection, Refused, Reply, answer};
use crate::container::request::{self, Kept, RequestError};
use crate::container::{Container, ContainerError, Live, Phase, nanoseconds};
use crate::ended::Ended;
use crate::exec;
use crate::ready;
use crate::reaper::Making;
use crate::report;
use crate::streams::log::{Log, LogError, LogFile};

impl Driver {
    pub(super) fn create(&mut self, request: CreateContainerRequest, reply: Reply<CreateContainerResponse>) {
        match self.begin_create(request) {
            Ok((id, go_on, kept)) => {
                let log_path = kept.log_path.clone();
                let phase = Phase::Creating {
                    reply,
                    kept,
                    go_on: Some(go_on),
                };
                self.containers
                    .insert(id.clone(), Container::new(id, phase, log_path));
            }
            Err(refused) => answer(reply, Err(refused)),
        }
    }

    fn begin_create(
        &mut self,
        request: CreateContainerRequest,
    ) -> Result<(String, oneshot::Sender<()>, Kept), Refused> {
        let pod = self.running_pod()?;
        let checked: ContainerId = request.id.parse().map_err(RequestError::Id)?;
        let id = request.id.clone();
        if self.containers.contains_key(&id) {
            return Err(Refused::Exists(id));
        }
        let step = self.trace.begin("CreateContainer", "plan", &id);
        let planned = step.end(request::plan(checked, request, pod))?;
        let making = self.reaper.making();
        let step = self.trace.begin("CreateContainer", "clone", &id);
        let creating = step
            .end(coracle_runtime::spawn(planned.plan))
            .map_err(ContainerError::Create)?;
        let (go_on, given_up) = oneshot::channel::<()>();
        let (trace, name) = (self.trace.clone(), id.clone());
        self.begin(async move {
            let step = trace.begin("CreateContainer", "child", &name);
            let created = tokio::select! {
                created = ready::finish(creating) => Some(created.map(Box::new)),
                // The sender is dropped, never used.
                _ = given_up => None,
            };
            step.finish(matches!(created, Some(Ok(_))));
            Event::Created(name.clone(), created, making)
        });
        Ok((id, go_on, planned.kept))
    }

    pub(super) fn created(
        &mut self,
        id: &str,
        result: Option<Result<Box<coracle_runtime::Container>, CreateError>>,
        making: Making,
    ) {
        let Some(mut entry) = self.containers.remove(id) else {
            return;
        };
        let Phase::Creating { reply, mut kept, .. } = entry.phase else {
            // Once for each creation; but what is not being created is not to be forgotten for it.
            self.containers.insert(id.into(), entry);
            return;
        };
        let refused = match result {
            Some(Ok(container)) => {
                entry.pid = container.pid.as_raw_nonzero().get().unsigned_abs();
                entry.created_at = Some(SystemTime::now());
                let mut live = self.adopt(id, *container, kept.seccomp.take(), making);
                let log = open_log(&mut live, &mut kept);
                entry.stdin = kept.ends.stdin;
                entry.phase = Phase::Created(live);
                return self.keep(id, entry, reply, log);
            }
            Some(Err(error)) => ContainerError::Create(error).into(),
            None => Refused::Cancelled(id.into()),
        };
        // Everybody who waits for it is told that there will be none.
        answer(reply, Err(refused));
        for deleting in entry.deleting {
            answer(deleting, Ok(Empty::new()));
        }
        for waiting in entry.waiting {
            answer(waiting, Err(Refused::Unknown(id.into())));
        }
    }

    /// Sees to the end of a container's first process, whatever comes.
    fn adopt(
        &self,
        id: &str,
        container: coracle_runtime::Container,
        seccomp: Option<Filter>,
        making: Making,
    ) -> Box<Live> {
        for warning in &container.warnings {
            report::log(id, warning);
        }
        let claim = Some(self.reaper.claim(container.pid));
        drop(making);
        let live = Box::new(Live {
            container,
            claim,
            seccomp,
        });
        self.watch_exit(id, &live);
        live
    }

    fn keep(
        &mut self,
        id: &str,
        mut entry: Container,
        reply: Reply<CreateContainerResponse>,
        log: Result<Option<Log>, LogError>,
    ) {
        match log {
            Ok(log) => {
                entry.log = log;
                let (pid, created_at) = (entry.pid, nanoseconds(entry.created_at));
                let response = CreateContainerResponse {
                    pid,
                    created_at,
                    ..Default::default()
                };
                answer(reply, Ok(response));
            }
            // Answered when it is gone again.
            Err(error) => entry.failed = Some((reply, ContainerError::Log(error).into())),
        }
        if entry.failed.is_some() || !entry.deleting.is_empty() {
            let _ = entry.end();
        }
        self.containers.insert(id.into(), entry);
    }

    fn watch_exit(&self, id: &str, live: &Live) {
        let id = id.to_owned();
        match live.container.pidfd.try_clone() {
            Ok(pidfd) => self.begin(async move {
                let exit = Ended::of(pidfd).wait().await;
                Event::Exited(id, exit)
            }),
            // Out of descriptors. A container nobody watches would never end: it ends now, which takes no time.
            Err(_) => {
                let _ = live.signal(libc::SIGKILL);
                let exit = process::wait(live.container.pidfd.as_fd()).unwrap_or(Exit::Signal(9));
                let _ = self.events.send(Event::Exited(id, exit));
            }
        }
    }

    pub(super) fn start(&mut self, id: &str, reply: Reply<StartContainerResponse>) {
        match self.begin_start(id) {
            // `begin_start` found it.
            Ok(()) => {
                if let Some(container) = self.containers.get_mut(id) {
                    container.start_reply = Some(reply);
                }
            }
            Err(refused) => answer(reply, Err(refused)),
        }
    }

    fn begin_start(&mut self, id: &str) -> Result<(), Refused> {
        self.running_pod()?;
        let trace = self.trace.clone();
        let entry = self.container(id)?;
        let not_created = |is| Refused::ContainerState {
            id: id.into(),
            is,
            wanted: "created",
        };
        let Some(starting) = entry.phase.start() else {
            return Err(not_created(entry.status()));
        };
        let starting = starting.map_err(|error| match error {
            // Killed, and its end not yet collected.
            StartError::Ended => not_created("ended"),
            StartError::NotWaiting | StartError::Channel(_) | StartError::Exec(_) | StartError::Hook(_) => {
                ContainerError::Start(error).into()
            }
        })?;
        entry.started_at = Some(SystemTime::now());
        let (making, name) = (self.reaper.making(), id.to_owned());
        self.begin(async move {
            let step = trace.begin("StartContainer", "", &name);
            let started = step.end(ready::finish(starting).await);
            drop(making);
            Event::Started(name.clone(), started)
        });
        Ok(())
    }

    pub(super) fn started(&mut self, id: &str, result: Result<(), StartError>) {
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        let Some(reply) = entry.start_reply.take() else {
            return;
        };
        match result {
            Ok(()) => {
                let started_at = nanoseconds(entry.started_at);
                answer(
                    reply,
                    Ok(StartContainerResponse {
                        started_at,
                        ..Default::default()
                    }),
                );
            }
            Err(error) => {
                if let StartError::Exec(why) = &error {
                    entry.start_error = Some(why.clone());
                    entry.started_at = None;
                }
                // After a failed poststart hook the payload runs; the specification wants it gone.
                let _ = entry.end();
                answer(reply, Err(ContainerError::Start(error).into()));
            }
        }
        if entry.settles_after_start {
            self.settled(id);
        }
    }

    pub(super) fn kill(&mut self, request: &KillContainerRequest) -> Result<Empty, Refused> {
        let signal = request.signal;
        if !(1..=64).contains(&signal) {
            return Err(ContainerError::Signal(signal).into());
        }
        let entry = self.container(&request.id)?;
        match &entry.phase {
            Phase::Creating { .. } | Phase::Changing => Err(Refused::ContainerState {
                id: request.id.clone(),
                is: entry.status(),
                wanted: "created, running or stopped",
            }),
            Phase::Created(live) | Phase::Running(live) => {
                if request.all {
                    signal_all(live, signal)?;
                }
                live.signal(signal)?;
                Ok(Empty::new())
            }
            Phase::Ending(..) | Phase::Stopped(..) | Phase::Removing(_) => Ok(Empty::new()),
        }
    }

    pub(super) fn wait(&mut self, id: &str, reply: Reply<ContainerState>) {
        match self.containers.get_mut(id) {
            None => answer(reply, Err(Refused::Unknown(id.into()))),
            Some(entry) => match (entry.has_stopped(), entry.state()) {
                (true, Some(state)) => answer(reply, Ok(state)),
                _ => {
                    // Callers that left are forgotten here, so that polling does not add up.
                    entry.waiting.retain(|waiting| !waiting.is_closed());
                    entry.waiting.push(reply);
                }
            },
        }
    }

    pub(super) fn delete(&mut self, id: &str, reply: Reply<Empty>) {
        let Some(entry) = self.containers.get_mut(id) else {
            return answer(reply, Err(Refused::Unknown(id.into())));
        };
        match entry.end() {
            Ok(()) => entry.deleting.push(reply),
            Err(error) => return answer(reply, Err(error.into())),
        }
        self.remove_if_stopped(id);
    }

    pub(super) fn reopen_log(&mut self, id: &str) -> Result<Empty, Refused> {
        let entry = self.container(id)?;
        match (&entry.phase, &entry.log, &entry.log_path) {
            (Phase::Running(_), Some(log), Some(path)) => {
                log.reopen(path).map_err(ContainerError::Log)?;
                Ok(Empty::new())
            }
            (Phase::Running(_), _, _) => Ok(Empty::new()),
            _ => Err(Refused::ContainerState {
                id: id.into(),
                is: entry.status(),
                wanted: "running",
            }),
        }
    }

    pub(super) fn exec(
        &mut self,
        request: ExecRequest,
        caller: Connection,
        output: mpsc::Sender<ExecOutput>,
        reply: Reply<()>,
    ) {
        let Some(entry) = self.containers.get(&request.container_id) else {
            return answer(reply, Err(Refused::Unknown(request.container_id)));
        };
        let Phase::Running(live) = &entry.phase else {
            let is = entry.status();
            return answer(
                reply,
                Err(Refused::ContainerState {
                    id: request.container_id,
                    is,
                    wanted: "running",
                }),
            );
        };
        match exec::spawn(&request, live, &self.reaper, &self.trace) {
            Ok(command) => {
                tokio::task::spawn_local(async move { answer(reply, command.run(caller, output).await) });
            }
            Err(error) => answer(reply, Err(error.into())),
        }
    }
}

/// Opens the log and begins to read.
fn open_log(live: &mut Live, kept: &mut Kept) -> Result<Option<Log>, LogError> {
    let output = kept.ends.take_output(live.container.console.take());
    let file = kept.log_path.as_deref().map(LogFile::open).transpose()?;
    output.map(|output| Log::start(output, file)).transpose()
}

/// Signals every process of the container but the first. SIGKILL is done again until nothing is left once the first
/// process has ended.
fn signal_all(live: &Live, signal: i32) -> Result<(), ContainerError> {
    let cgroup = &live.container.cgroup;
    if signal == libc::SIGKILL {
        cgroup.kill_all()?;
        return Ok(());
    }
    for pid in cgroup
        .procs()?
        .into_iter()
        .filter(|pid| *pid != live.container.pid)
    {
        if let Ok(process) = pidfd::open(pid) {
            // One that has ended meanwhile has no use for it.
            let _ = pidfd::send_signal_number(process.as_fd(), signal);
        }
    }
    Ok(())
}

//! Calls about one container, and what happens to it by itself.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use coracle_linux::pidfd;
use coracle_linux::process::Exit;
use coracle_runtime::{CreateError, StartError};
use coracle_shim_api::pod::{
    ContainerState, CreateContainerRequest, CreateContainerResponse, Empty, ExecOutput, ExecRequest,
    KillContainerRequest, StartContainerResponse,
};
use tokio::sync::oneshot;
use ttrpc::r#async::ServerStreamSender;

use super::{Driver, Event, Refused, Reply, answer};
use crate::container::request::{self, Ends};
use crate::container::{Container, ContainerError, Live, Phase, collect, nanoseconds};
use crate::exec;
use crate::log::{Log, LogFile, Output};
use crate::own_cgroup;
use crate::pod::PidMode;
use crate::ready;
use crate::server::Connection;

impl Driver {
    pub(super) fn create(&mut self, request: CreateContainerRequest, reply: Reply<CreateContainerResponse>) {
        match self.begin_create(request) {
            Ok((id, go_on, ends)) => {
                let log_path = ends.log_path.clone();
                let phase = Phase::Creating {
                    reply,
                    ends,
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
    ) -> Result<(String, oneshot::Sender<()>, Ends), Refused> {
        let id = request.id.clone();
        let pod = self.running_pod()?;
        if self.containers.contains_key(&id) {
            return Err(Refused::Exists(id));
        }
        let planned = {
            let _span = self.trace.span("CreateContainer.plan", &id);
            request::plan(request, pod)?
        };
        let making = self.reaper.making();
        let creating = {
            let _span = self.trace.span("CreateContainer.clone", &id);
            coracle_runtime::spawn(planned.plan).map_err(ContainerError::Create)?
        };
        let (go_on, given_up) = oneshot::channel::<()>();
        let (trace, name) = (self.trace.clone(), id.clone());
        self.begin(async move {
            let _span = trace.span("CreateContainer.child", &name);
            let created = tokio::select! {
                created = ready::finish(creating) => Some(created),
                // The sender is dropped, never used.
                _ = given_up => None,
            };
            drop(making);
            Event::Created(name.clone(), created)
        });
        Ok((id, go_on, planned.ends))
    }

    pub(super) fn created(
        &mut self,
        id: &str,
        result: Option<Result<coracle_runtime::Container, CreateError>>,
    ) {
        let Some(mut entry) = self.containers.remove(id) else {
            return;
        };
        let Phase::Creating { reply, mut ends, .. } = entry.phase else {
            return;
        };
        let container = match result {
            Some(Ok(container)) => container,
            failed => {
                let refused = match failed {
                    Some(Err(error)) => ContainerError::Create(error).into(),
                    _ => Refused::Cancelled(id.into()),
                };
                answer(reply, Err(refused));
                entry
                    .deleting
                    .drain(..)
                    .for_each(|reply| answer(reply, Ok(Empty::new())));
                entry
                    .waiting
                    .drain(..)
                    .for_each(|reply| answer(reply, Err(Refused::Unknown(id.into()))));
                return;
            }
        };
        entry.pid = container.pid.as_raw_nonzero().get().unsigned_abs();
        entry.created_at = Some(SystemTime::now());
        let claim = Some(self.reaper.claim(container.pid));
        let mut live = Box::new(Live {
            container,
            claim,
            seccomp: ends.seccomp.take(),
        });
        let watched = self
            .watch_exit(id, &live)
            .and_then(|()| open_log(&mut live, ends));
        let answered = match watched {
            Ok((log, stdin)) => {
                entry.log = log;
                entry.stdin = stdin;
                Ok(CreateContainerResponse {
                    pid: entry.pid,
                    created_at: nanoseconds(entry.created_at),
                    ..Default::default()
                })
            }
            Err(error) => {
                // Its end is seen to, and so is its removal: nobody knows it but us.
                let _ = live.signal(libc::SIGKILL);
                entry.deleting.push(oneshot::channel().0);
                Err(error.into())
            }
        };
        entry.phase = Phase::Created(live);
        if !entry.deleting.is_empty() {
            let _ = entry.end();
        }
        self.containers.insert(id.into(), entry);
        answer(reply, answered);
    }

    fn watch_exit(&self, id: &str, live: &Live) -> Result<(), ContainerError> {
        let pidfd = live.container.pidfd.try_clone().map_err(ContainerError::Watch)?;
        let id = id.to_owned();
        self.begin(async move {
            let exit = collect(pidfd).await;
            Event::Exited(id, exit)
        });
        Ok(())
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
        if !matches!(entry.phase, Phase::Created(_)) {
            return Err(Refused::ContainerState {
                id: id.into(),
                is: entry.status(),
                wanted: "created",
            });
        }
        let Phase::Created(mut live) = std::mem::replace(&mut entry.phase, Phase::Removing(Exit::Code(0)))
        else {
            return Err(Refused::Unknown(id.into()));
        };
        let starting = live.container.start();
        entry.phase = match &starting {
            Ok(_) => Phase::Running(live),
            Err(_) => Phase::Created(live),
        };
        let starting = starting.map_err(ContainerError::Start)?;
        entry.started_at = Some(SystemTime::now());
        let (making, name) = (self.reaper.making(), id.to_owned());
        self.begin(async move {
            let _span = trace.span("StartContainer", &name);
            let started = ready::finish(starting).await;
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
                // After a failed poststart hook the payload runs; the specification wants it gone.
                let _ = entry.end();
                answer(reply, Err(ContainerError::Start(error).into()));
            }
        }
    }

    pub(super) fn kill(&mut self, request: &KillContainerRequest) -> Result<Empty, Refused> {
        let signal = request.signal;
        if !(1..=64).contains(&signal) {
            return Err(ContainerError::Signal(signal).into());
        }
        let entry = self.container(&request.id)?;
        match &entry.phase {
            Phase::Creating { .. } => Err(Refused::ContainerState {
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
        output: ServerStreamSender<ExecOutput>,
        reply: Reply<()>,
    ) {
        let entry = match self.containers.get(&request.container_id) {
            Some(entry) => entry,
            None => return answer(reply, Err(Refused::Unknown(request.container_id))),
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
            Err(error) => answer(reply, Err(ContainerError::Exec(error).into())),
        }
    }

    pub(super) fn exited(&mut self, id: &str, exit: Exit) {
        let own_pid_namespace = !self.pod_shares_pids();
        let trace = self.trace.clone();
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        entry.finished_at = Some(SystemTime::now());
        let mut live = match std::mem::replace(&mut entry.phase, Phase::Removing(exit)) {
            Phase::Created(live) | Phase::Running(live) => live,
            other => {
                entry.phase = other;
                return;
            }
        };
        live.claim = None;
        let cgroup = live.container.cgroup.clone();
        let drained = entry.log.as_ref().map(|log| log.drained(DRAIN));
        entry.phase = Phase::Ending(live, exit);
        let name = id.to_owned();
        self.begin(async move {
            let _span = trace.span("Stop.settle", &name);
            // With a PID namespace of its own the kernel has ended the rest before the first process was collected.
            if !own_pid_namespace {
                // What cannot be killed now shows when the cgroup is removed.
                let _ = own_cgroup::sweep(&cgroup).await;
            }
            if let Some(drained) = drained {
                drained.await;
            }
            Event::Settled(name.clone())
        });
    }

    pub(super) fn settled(&mut self, id: &str) {
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        let (live, exit) = match std::mem::replace(&mut entry.phase, Phase::Removing(Exit::Code(0))) {
            Phase::Ending(live, exit) => (live, exit),
            other => {
                entry.phase = other;
                return;
            }
        };
        // The counter goes away with the cgroup, which is ours to remove: so this is never too late.
        entry.oom_killed = live
            .container
            .cgroup
            .oom_kills()
            .ok()
            .flatten()
            .is_some_and(|count| count > 0);
        entry.stdin = None;
        entry.phase = Phase::Stopped(live, exit);
        if let Some(state) = entry.state() {
            entry
                .waiting
                .drain(..)
                .for_each(|reply| answer(reply, Ok(state.clone())));
        }
        self.remove_if_stopped(id);
    }

    /// Begins the removal that was asked for, once it can be done.
    fn remove_if_stopped(&mut self, id: &str) {
        let trace = self.trace.clone();
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        if entry.deleting.is_empty() || !matches!(entry.phase, Phase::Stopped(..)) {
            return;
        }
        if let Phase::Stopped(live, exit) =
            std::mem::replace(&mut entry.phase, Phase::Removing(Exit::Code(0)))
        {
            entry.phase = Phase::Removing(exit);
            let (making, name) = (self.reaper.making(), id.to_owned());
            self.begin(async move {
                let _span = trace.span("DeleteContainer", &name);
                let removed = live.remove().await;
                drop(making);
                Event::Removed(name.clone(), live, removed)
            });
        }
    }

    pub(super) fn removed(&mut self, id: &str, live: Box<Live>, result: Result<(), ContainerError>) {
        let Some(mut entry) = self.containers.remove(id) else {
            return;
        };
        // A poststop hook that failed is for the log only (runtime specification, "Lifecycle", 13).
        let failed = match result {
            Err(ContainerError::Poststop(error)) => {
                eprintln!(
                    "coracle-shim: container {id}: {}",
                    crate::server::chain(&ContainerError::Poststop(error))
                );
                None
            }
            Err(error) => Some(crate::server::chain(&error)),
            Ok(()) => None,
        };
        let Some(failed) = failed else {
            entry
                .deleting
                .drain(..)
                .for_each(|reply| answer(reply, Ok(Empty::new())));
            return;
        };
        let refused = || Refused::NotRemoved {
            id: id.into(),
            why: failed.clone(),
        };
        entry
            .deleting
            .drain(..)
            .for_each(|reply| answer(reply, Err(refused())));
        if let Phase::Removing(exit) = entry.phase {
            entry.phase = Phase::Stopped(live, exit);
        }
        self.containers.insert(id.into(), entry);
        self.fail_shutdown(refused);
    }

    pub(super) fn end_all_containers(&mut self) {
        for entry in self.containers.values_mut() {
            // Its process is ours: nothing forbids to kill it.
            let _ = entry.end();
        }
    }

    pub(super) fn remove_all_containers(&mut self) {
        let ids: Vec<String> = self.containers.keys().cloned().collect();
        for id in ids {
            if let Some(entry) = self
                .containers
                .get_mut(&id)
                .filter(|entry| entry.deleting.is_empty())
            {
                // Nobody waits for this one alone.
                entry.deleting.push(oneshot::channel().0);
            }
            self.remove_if_stopped(&id);
        }
    }

    fn pod_shares_pids(&self) -> bool {
        self.pod().is_none_or(|pod| pod.pid_mode() != PidMode::Container)
    }
}

/// Opens the log and begins to read.
fn open_log(
    live: &mut Live,
    ends: Ends,
) -> Result<(Option<Log>, Option<std::os::fd::OwnedFd>), ContainerError> {
    let output = match (live.container.console.take(), ends.output) {
        (Some(master), _) => Some(Output::Terminal(master)),
        (None, Some((stdout, stderr))) => Some(Output::Pipes { stdout, stderr }),
        (None, None) => None,
    };
    let file = ends.log_path.as_deref().map(LogFile::open).transpose()?;
    let log = output.map(|output| Log::start(output, file)).transpose()?;
    Ok((log, ends.stdin))
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

/// How long the end of a container waits for the rest of its output while some other process holds its pipes.
const DRAIN: Duration = Duration::from_secs(1);

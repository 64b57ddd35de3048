//! The one task that owns the pod's state. Calls arrive as [`Request`]s, the ends of what was begun as [`Event`]s; both are
//! handled one after the other and never wait, so nothing needs a lock.
//!
//! ```text
//!  pod:        New --StartPod--> Starting --> Running --StopPod--> Stopping --> Stopped --Shutdown--> (the shim leaves)
//!                                   '-fails-> Failed ------------------------------------Shutdown-----^
//!
//!  container:  Creating --> Created --StartContainer--> Running     (its process ends, whenever)
//!                 '-fails-> (none)     |                   |
//!                                      '----> Ending <-----'        rest of its cgroup killed, output drained
//!                                               |
//!                                            Stopped --DeleteContainer--> Removing --> (none)
//! ```
//! Deleting a container that has not ended, or stopping the pod, kills it and waits for the same arrows.

mod container_calls;
mod container_end;
mod pod_calls;

use std::collections::BTreeMap;

use coracle_linux::process::Exit;
use coracle_runtime::{CreateError, StartError};
use coracle_shim_api::pod::{Empty, StartPodResponse};
use tokio::sync::mpsc;

use crate::call::{Refused, Reply, Request, answer};
use crate::container::{Container, ContainerError, Live};
use crate::pod::{Pod, PodError};
use crate::reaper::{Making, Reaper};
use crate::trace::Trace;

/// Something that was begun has come to its end.
enum Event {
    PodStarted(Result<Box<Pod>, PodError>, Reply<StartPodResponse>, Making),
    PodStopped(Box<Pod>, Result<(), PodError>),
    PodRemoved(Box<Pod>, Result<(), PodError>),
    /// `None`: given up before it was there.
    Created(
        String,
        Option<Result<Box<coracle_runtime::Container>, CreateError>>,
        Making,
    ),
    Started(String, Result<(), StartError>),
    Exited(String, Exit),
    Settled(String),
    Removed(String, Box<Live>, Result<(), ContainerError>),
}

enum PodPhase {
    New,
    Starting,
    Running(Box<Pod>),
    Failed,
    Stopping(Box<Pod>),
    /// The pod is with the task that stops or removes it.
    Leaving,
    Stopped(Box<Pod>),
}

/// See the drawing at the top.
pub(crate) struct Driver {
    sandbox_id: String,
    trace: Trace,
    reaper: Reaper,
    phase: PodPhase,
    containers: BTreeMap<String, Container>,
    events: mpsc::UnboundedSender<Event>,
    stop_replies: Vec<Reply<Empty>>,
    shutdown_replies: Vec<Reply<Empty>>,
    finished: bool,
}

impl Driver {
    /// Handles calls until Shutdown is done. Must run inside a `LocalSet`.
    pub(crate) async fn run(
        sandbox_id: String,
        trace: Trace,
        reaper: Reaper,
        mut requests: mpsc::Receiver<Request>,
    ) {
        let (events, mut ended) = mpsc::unbounded_channel();
        let mut driver = Self {
            sandbox_id,
            trace,
            reaper,
            phase: PodPhase::New,
            containers: BTreeMap::new(),
            events,
            stop_replies: Vec::new(),
            shutdown_replies: Vec::new(),
            finished: false,
        };
        while !driver.finished {
            tokio::select! {
                // Ends first: a call then sees the newest state.
                biased;
                Some(event) = ended.recv() => driver.handle(event),
                Some(request) = requests.recv() => driver.call(request),
            }
            driver.advance();
        }
    }

    fn call(&mut self, request: Request) {
        match request {
            Request::StartPod(request, reply) => self.start_pod(request, reply),
            Request::SetInterfaceSysctls(reply) => answer(reply, self.set_interface_sysctls()),
            Request::State(reply) => answer(reply, Ok(self.state())),
            Request::Create(request, reply) => self.create(*request, reply),
            Request::Start(id, reply) => self.start(&id, reply),
            Request::Kill(request, reply) => answer(reply, self.kill(&request)),
            Request::Wait(id, reply) => self.wait(&id, reply),
            Request::Delete(id, reply) => self.delete(&id, reply),
            Request::ReopenLog(id, reply) => answer(reply, self.reopen_log(&id)),
            Request::Exec {
                request,
                caller,
                output,
                reply,
            } => self.exec(request, caller, output, reply),
            Request::StopPod(reply) => self.stop_pod(reply),
            Request::Shutdown(reply) => self.shutdown(reply),
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::PodStarted(result, reply, making) => self.pod_started(result, reply, making),
            Event::PodStopped(pod, result) => self.pod_stopped(pod, result),
            Event::PodRemoved(pod, result) => self.pod_removed(pod, result),
            Event::Created(id, result, making) => self.created(&id, result, making),
            Event::Started(id, result) => self.started(&id, result),
            Event::Exited(id, exit) => self.exited(&id, exit),
            Event::Settled(id) => self.settled(&id),
            Event::Removed(id, live, result) => self.removed(&id, live, result),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, Refused> {
        let found = self
            .containers
            .get_mut(id)
            .filter(|container| container.failed.is_none());
        found.ok_or_else(|| Refused::Unknown(id.into()))
    }

    /// Begins something whose end is an event.
    fn begin(&self, work: impl Future<Output = Event> + 'static) {
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            // The driver outlives all but the last moment of the shim.
            let _ = events.send(work.await);
        });
    }
}

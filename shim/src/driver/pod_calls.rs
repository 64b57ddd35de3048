//! Calls about the pod as a whole.

use std::mem;

use coracle_shim_api::pod::{Empty, StartPodRequest, StartPodResponse, StateResponse};

use super::{Driver, Event, PodPhase};
use crate::call::{Refused, Reply, answer};
use crate::container::Container;
use crate::pod::{Pod, PodError, PodPlan};
use crate::reaper::Making;

impl PodPhase {
    fn name(&self) -> &'static str {
        match self {
            Self::New => "not started",
            Self::Starting => "being started",
            Self::Running(_) => "running",
            Self::Failed => "one whose start failed",
            Self::Stopping(_) | Self::Leaving => "being stopped",
            Self::Stopped(_) => "stopped",
        }
    }

    /// Running -> Stopping. False: it is in another phase.
    fn stop(&mut self) -> bool {
        let (next, begun) = match mem::replace(self, Self::Leaving) {
            Self::Running(pod) => (Self::Stopping(pod), true),
            other => (other, false),
        };
        *self = next;
        begun
    }

    /// Stopping, Stopped -> Leaving: the pod, for the task that goes on with it. `None`: it is in another phase.
    fn lend(&mut self) -> Option<Box<Pod>> {
        match mem::replace(self, Self::Leaving) {
            Self::Stopping(pod) | Self::Stopped(pod) => Some(pod),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Driver {
    pub(super) fn start_pod(&mut self, request: StartPodRequest, reply: Reply<StartPodResponse>) {
        if !matches!(self.phase, PodPhase::New) {
            return answer(reply, Err(Refused::PodState(self.phase.name())));
        }
        let plan = match PodPlan::new(request, &self.sandbox_id) {
            Ok(plan) => plan,
            Err(error) => return answer(reply, Err(error.into())),
        };
        self.phase = PodPhase::Starting;
        let (trace, id) = (self.trace.clone(), self.sandbox_id.clone());
        let making = self.reaper.making();
        self.begin(async move {
            let step = trace.begin("StartPod", "", &id);
            let started = step.end(Pod::start(plan, &trace).await).map(Box::new);
            Event::PodStarted(started, reply, making)
        });
    }

    pub(super) fn pod_started(
        &mut self,
        result: Result<Box<Pod>, PodError>,
        reply: Reply<StartPodResponse>,
        making: Making,
    ) {
        match result {
            Ok(mut pod) => {
                pod.claim_init(&self.reaper);
                drop(making);
                let (init_pid, has_interface_sysctls) = (pod.init_pid(), pod.has_interface_sysctls());
                self.phase = PodPhase::Running(pod);
                answer(
                    reply,
                    Ok(StartPodResponse {
                        init_pid,
                        has_interface_sysctls,
                        ..Default::default()
                    }),
                );
            }
            Err(error) => {
                self.phase = PodPhase::Failed;
                answer(reply, Err(error.into()));
            }
        }
    }

    pub(super) fn set_interface_sysctls(&self) -> Result<Empty, Refused> {
        self.running_pod()?.set_interface_sysctls()?;
        Ok(Empty::new())
    }

    pub(super) fn state(&self) -> StateResponse {
        let pod = match &self.phase {
            PodPhase::Running(pod) => Some(pod),
            _ => None,
        };
        StateResponse {
            sandbox_id: self.sandbox_id.clone(),
            started: pod.is_some(),
            shim_pid: std::process::id(),
            init_pid: pod.map_or(0, |pod| pod.init_pid()),
            containers: self
                .containers
                .values()
                .filter_map(|container| container.state())
                .collect(),
            ..Default::default()
        }
    }

    /// The pod, if containers can be made in it.
    pub(super) fn running_pod(&self) -> Result<&Pod, Refused> {
        match &self.phase {
            PodPhase::Running(pod) => Ok(pod),
            other => Err(Refused::PodState(other.name())),
        }
    }

    /// The pod, while anything can be in it.
    pub(super) fn pod(&self) -> Option<&Pod> {
        match &self.phase {
            PodPhase::Running(pod) | PodPhase::Stopping(pod) => Some(pod),
            _ => None,
        }
    }

    pub(super) fn stop_pod(&mut self, reply: Reply<Empty>) {
        match &self.phase {
            PodPhase::Running(_) | PodPhase::Stopping(_) | PodPhase::Leaving => {
                self.stop_replies.push(reply);
                self.begin_to_stop();
            }
            PodPhase::Starting => answer(reply, Err(Refused::PodState(self.phase.name()))),
            PodPhase::New | PodPhase::Failed | PodPhase::Stopped(_) => answer(reply, Ok(Empty::new())),
        }
    }

    pub(super) fn pod_stopped(&mut self, pod: Box<Pod>, result: Result<(), PodError>) {
        self.phase = PodPhase::Stopped(pod);
        answer_all(&mut self.stop_replies, result.map_err(Refused::from));
    }

    pub(super) fn shutdown(&mut self, reply: Reply<Empty>) {
        if let PodPhase::Starting = self.phase {
            return answer(reply, Err(Refused::PodState(self.phase.name())));
        }
        self.begin_to_stop();
        self.shutdown_replies.push(reply);
    }

    fn begin_to_stop(&mut self) {
        if self.phase.stop() {
            self.end_all_containers();
        }
    }

    pub(super) fn pod_removed(&mut self, pod: Box<Pod>, result: Result<(), PodError>) {
        self.phase = PodPhase::Stopped(pod);
        match result {
            Ok(()) => self.finish(),
            Err(error) => answer_all(&mut self.shutdown_replies, Err(error.into())),
        }
    }

    /// Takes the next step of stopping or leaving, if it is time for it.
    pub(super) fn advance(&mut self) {
        let leaving = !self.shutdown_replies.is_empty();
        match &self.phase {
            PodPhase::Stopping(_) if self.containers.values().all(Container::has_stopped) => self.end_pod(),
            PodPhase::Stopped(_) if leaving && self.containers.is_empty() => self.remove_pod(),
            PodPhase::Stopped(_) if leaving => self.remove_all_containers(),
            PodPhase::New | PodPhase::Failed if leaving => self.finish(),
            PodPhase::New
            | PodPhase::Starting
            | PodPhase::Running(_)
            | PodPhase::Failed
            | PodPhase::Stopping(_)
            | PodPhase::Leaving
            | PodPhase::Stopped(_) => {}
        }
    }

    fn end_pod(&mut self) {
        let Some(mut pod) = self.phase.lend() else { return };
        let (trace, id) = (self.trace.clone(), self.sandbox_id.clone());
        self.begin(async move {
            let step = trace.begin("StopPod", "init", &id);
            let stopped = step.end(pod.stop().await);
            Event::PodStopped(pod, stopped)
        });
    }

    fn remove_pod(&mut self) {
        let Some(mut pod) = self.phase.lend() else { return };
        let (trace, id) = (self.trace.clone(), self.sandbox_id.clone());
        self.begin(async move {
            let step = trace.begin("Shutdown", "remove", &id);
            let removed = step.end(pod.remove().await);
            Event::PodRemoved(pod, removed)
        });
    }

    /// A container that could not be removed keeps the shim from leaving; the caller may ask again.
    pub(super) fn fail_shutdown(&mut self, refused: Refused) {
        answer_all(&mut self.shutdown_replies, Err(refused));
    }

    fn finish(&mut self) {
        answer_all(&mut self.stop_replies, Ok(()));
        answer_all(&mut self.shutdown_replies, Ok(()));
        self.finished = true;
    }
}

fn answer_all(replies: &mut Vec<Reply<Empty>>, result: Result<(), Refused>) {
    for reply in replies.drain(..) {
        answer(reply, result.clone().map(|()| Empty::new()));
    }
}

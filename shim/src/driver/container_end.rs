//! How a container ends: its first process does, whoever wanted that; the rest follows by itself.

use std::sync::Arc;
use std::time::SystemTime;

use coracle_linux::process::Exit;
use coracle_shim_api::pod::Empty;
use tokio::sync::oneshot;

use super::{Driver, Event};
use crate::call::{Refused, answer};
use crate::container::{ContainerError, Live};
use crate::own_cgroup;
use crate::pod::PidMode;
use crate::streams::log::Log;

impl Driver {
    pub(super) fn exited(&mut self, id: &str, exit: Exit) {
        let own_pid_namespace = !self.pod_shares_pids();
        let trace = self.trace.clone();
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        if !entry.phase.exit(exit) {
            return;
        }
        entry.finished_at = Some(SystemTime::now());
        let cgroup = entry.phase.live().map(|live| live.container.cgroup.clone());
        let drained = entry.log.as_ref().map(Log::drained);
        let name = id.to_owned();
        self.begin(async move {
            let step = trace.begin("Stop", "settle", &name);
            // With a PID namespace of its own the kernel has ended the rest before the first process was collected.
            if let Some(cgroup) = cgroup.filter(|_| !own_pid_namespace) {
                // What cannot be killed now shows when the cgroup is removed.
                let _ = own_cgroup::sweep(&cgroup).await;
            }
            if let Some(drained) = drained {
                drained.await;
            }
            step.finish(true);
            Event::Settled(name.clone())
        });
    }

    pub(super) fn settled(&mut self, id: &str) {
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        if entry.start_reply.is_some() {
            entry.settles_after_start = true;
            return;
        }
        if !entry.phase.settle() {
            return;
        }
        // The counter goes away with the cgroup, which is ours to remove: so this is never too late.
        let kills = entry
            .phase
            .live()
            .and_then(|live| live.container.cgroup.oom_kills().ok().flatten());
        entry.oom_killed = kills.is_some_and(|count| count > 0);
        entry.stdin = None;
        if let Some(state) = entry.state() {
            entry
                .waiting
                .drain(..)
                .for_each(|reply| answer(reply, Ok(state.clone())));
        }
        self.remove_if_stopped(id);
    }

    /// Begins the removal that was asked for, once it can be done.
    pub(super) fn remove_if_stopped(&mut self, id: &str) {
        let trace = self.trace.clone();
        let Some(entry) = self.containers.get_mut(id) else {
            return;
        };
        let wanted = entry.failed.is_some() || !entry.deleting.is_empty();
        if !wanted {
            return;
        }
        if let Some(live) = entry.phase.lend() {
            let (making, name) = (self.reaper.making(), id.to_owned());
            self.begin(async move {
                let step = trace.begin("DeleteContainer", "", &name);
                let removed = step.end(live.remove().await);
                drop(making);
                Event::Removed(name.clone(), live, removed)
            });
        }
    }

    pub(super) fn removed(&mut self, id: &str, live: Box<Live>, result: Result<(), ContainerError>) {
        let Some(mut entry) = self.containers.remove(id) else {
            return;
        };
        let failed = result.err().map(|error| Refused::NotRemoved {
            id: id.into(),
            source: Arc::new(error),
        });
        if let Some((reply, refused)) = entry.failed.take() {
            answer(reply, Err(refused));
        }
        let Some(refused) = failed else {
            entry
                .deleting
                .drain(..)
                .for_each(|reply| answer(reply, Ok(Empty::new())));
            return;
        };
        entry
            .deleting
            .drain(..)
            .for_each(|reply| answer(reply, Err(refused.clone())));
        entry.phase.give_back(live);
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

//! What is done again of a creation that failed or was given up.

use super::{CreateError, Creating, Stage, watch};
use crate::hooks::HookRun;
use crate::state::Status;
use std::os::fd::AsFd as _;

impl Creating {
    /// Undoes what was made, in reverse. Gives the error back, unless there are hooks to wait for first.
    pub(super) fn undo(&mut self, error: CreateError) -> Option<CreateError> {
        let Some(hooks) = self.take_back() else {
            return Some(error);
        };
        // Without its descriptor nobody would be told of its end.
        if watch(&self.epoll, hooks.as_fd()).is_err() {
            let _ = hooks.finish();
            return Some(error);
        }
        self.stage = Stage::Undo(error, Box::new(hooks));
        None
    }

    /// Ends the first process, removes the cgroup, and begins the poststop hooks: what hooks before them have set up,
    /// these take down (runtime.md, "Lifecycle", 5 to 13). After success nothing is left here to be taken back.
    fn take_back(&mut self) -> Option<HookRun> {
        self.stage = Stage::Serve;
        let state = self.birth.process().map(|_| self.state(Status::Stopped));
        self.birth.end(self.socket.as_fd());
        if let Some(cgroup) = self.cgroup.take() {
            let _ = cgroup.remove();
        }
        let hooks = std::mem::take(&mut self.facts.hooks.poststop);
        if hooks.is_empty() {
            return None;
        }
        HookRun::start_all(hooks, state?).ok()
    }
}

impl Drop for Creating {
    /// Given up before its end.
    fn drop(&mut self) {
        if let Some(hooks) = self.take_back() {
            let _ = hooks.finish();
        }
    }
}

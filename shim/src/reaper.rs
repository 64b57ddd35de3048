//! Orphans. The shim is the subreaper of everything below it, so a process whose parent has ended and whose PID namespace
//! has no init of ours (pid mode NODE, hooks that fork) becomes its child, and somebody has to collect it.
//!
//! Processes with an owner (containers, commands, the pod's init) are collected by their owner through a pidfd; they are
//! claimed here so that this leaves them alone. While the runtime makes a process it has children nobody knows yet, so
//! orphans wait until it is done.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Handle on the reaper; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Reaper {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    owned: RefCell<BTreeSet<i32>>,
    making: Cell<usize>,
    idle: Notify,
}

/// A child that somebody else collects.
pub(crate) struct Claim {
    pid: i32,
    shared: Rc<Shared>,
}

/// While it lives no orphan is collected.
pub(crate) struct Making {
    shared: Rc<Shared>,
}

impl Reaper {
    /// Leaves this child to the caller.
    pub(crate) fn claim(&self, pid: Pid) -> Claim {
        let pid = pid.as_raw_nonzero().get();
        self.shared.owned.borrow_mut().insert(pid);
        Claim {
            pid,
            shared: Rc::clone(&self.shared),
        }
    }

    /// To hold while the runtime has children of its own.
    pub(crate) fn making(&self) -> Making {
        self.shared.making.set(self.shared.making.get() + 1);
        Making {
            shared: Rc::clone(&self.shared),
        }
    }

    /// Collects orphans for ever.
    pub(crate) async fn run(self) -> std::io::Result<()> {
        let mut ended = signal(SignalKind::child())?;
        loop {
            tokio::select! {
                _ = ended.recv() => {}
                () = self.shared.idle.notified() => {}
            }
            if self.shared.making.get() == 0 {
                self.collect();
            }
        }
    }

    fn collect(&self) {
        // Absent without CONFIG_PROC_CHILDREN; then dead orphans stay until the shim ends, which costs an entry each.
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
        let owned = self.shared.owned.borrow();
        let pids = children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok());
        for pid in pids.filter(|pid| !owned.contains(pid)).filter_map(Pid::from_raw) {
            let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.owned.borrow_mut().remove(&self.pid);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.shared.making.set(self.shared.making.get() - 1);
        self.shared.idle.notify_one();
    }
}

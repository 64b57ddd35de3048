//! Attributes of the calling process: `prctl(2)`.

use rustix::process::{DumpableBehavior, Signal};
use std::io;

/// Whether other processes of the same user may look into this one (`/proc/PID/fd`, `mem`, `exe`, `root`, ptrace).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    let behavior = if dumpable {
        DumpableBehavior::Dumpable
    } else {
        DumpableBehavior::NotDumpable
    };
    Ok(rustix::process::set_dumpable_behavior(behavior)?)
}

/// The signal this process gets when its parent dies; a change of user or program image clears it.
pub fn set_parent_death_signal(signal: Option<Signal>) -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}

/// Makes this process the one that inherits the orphans among its descendants.
pub fn set_child_subreaper(on: bool) -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(
        on.then(rustix::process::getpid),
    )?)
}

/// Whether `execve` may no longer grant privileges. Cannot be undone.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

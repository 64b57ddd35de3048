//! Waiting for the kernel without anybody waiting for us.
//!
//! Closing an nf_tables socket after a deletion waits for a grace period. A child without standard streams closes it
//! after the plugin has answered and ended.

use coracle_linux::process;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use std::time::Duration;

/// Closing the socket while deleted elements wait for their grace period (8 to 15 ms here) holds the lock that every
/// nf_tables transaction of the namespace needs, for as long. Later the lock is free at once.
const GRACE: Duration = Duration::from_millis(100);

/// Gives the socket of rules to a child. Without a child it is closed here.
///
/// Whoever closes the socket last waits. That must be the child: it goes on until this program has ended, which it sees
/// by the end of a pipe that this program keeps open.
pub(crate) fn hold<T>(rules: T) {
    let Ok((ended, alive)) = pipe_with(PipeFlags::CLOEXEC) else {
        return drop(rules);
    };
    let mut ends = (Some(ended), Some(alive));
    let work = || {
        ends.1 = None;
        close_streams();
        if let Some(ended) = &ends.0 {
            let mut buffer = [0];
            // Nothing is ever written: this returns at the end of the pipe.
            let _ = rustix::io::read(ended, &mut buffer);
        }
        std::thread::sleep(GRACE);
        0
    };
    match process::clone(&process::Clone::default(), work) {
        // Never closed here: the kernel does both when this program ends, and the child, which sees the end of the
        // pipe, is the last to close the socket.
        Ok(_) => std::mem::forget((ends.1, rules)),
        Err(_) => drop(rules),
    }
}

/// Whoever reads the plugin's output must see its end now.
fn close_streams() {
    let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) else {
        return;
    };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    let _ = rustix::stdio::dup2_stderr(&null);
}

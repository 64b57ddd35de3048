//! Waiting for the kernel without anybody waiting for us.
//!
//! Deleting a veth and closing an nf_tables socket after a deletion wait for grace periods. A child without standard
//! streams does both after the plugin has answered and ended.

use crate::rules::Rules;
use coracle_linux::netlink::route::link::{self, Which};
use coracle_linux::netlink::{Protocol, Socket};
use coracle_linux::process;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use std::time::Duration;

/// Closing the socket while deleted elements wait for their grace period (8 to 15 ms here) holds the lock that every
/// nf_tables transaction of the namespace needs, for as long. Later the lock is free at once.
const GRACE: Duration = Duration::from_millis(100);

/// Gives the rules' socket and the deletion of a link to a child. Without a child they happen here. The link is known by
/// its number: a new one of its name may be there by then.
///
/// Whoever closes the socket last waits. That must be the child: it goes on until this program has ended, which it sees
/// by the end of a pipe that this program keeps open.
pub(crate) fn hold(rules: Option<Rules>, link: Option<u32>) {
    if rules.is_none() && link.is_none() {
        return;
    }
    let Ok((ended, alive)) = pipe_with(PipeFlags::CLOEXEC) else {
        return delete(link);
    };
    let mut ends = (Some(ended), Some(alive));
    let work = || {
        ends.1 = None;
        close_streams();
        delete(link);
        if let Some(ended) = &ends.0 {
            let mut buffer = [0];
            // Nothing is ever written: this returns at the end of the pipe.
            let _ = rustix::io::read(ended, &mut buffer);
        }
        std::thread::sleep(GRACE);
        0
    };
    match process::clone(&process::Clone::default(), work) {
        // Never closed here: the kernel does it when this program ends, after the rules' socket.
        Ok(_) => std::mem::forget(ends.1),
        Err(_) => delete(link),
    }
}

fn delete(link: Option<u32>) {
    if let (Some(index), Ok(mut socket)) = (link, Socket::open(Protocol::Route)) {
        // Nobody is left to tell; GC and a repeated DEL find the link by its name.
        let _ = socket.request(&[link::delete(Which::Index(index))]);
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

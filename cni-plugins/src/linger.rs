//! Waiting for the kernel without anybody waiting for us.
//!
//! Deleting a veth and closing an nf_tables socket after a deletion wait for grace periods. A child without standard
//! streams does both after the plugin has answered and ended.

use crate::rules::Rules;
use coracle_linux::process;
use rustix::fs::{Mode, OFlags, open};

/// Gives the rules' socket and the deletion of a link to a child. Without a child they happen here.
pub(crate) fn hold(rules: Option<Rules>, link: Option<String>) {
    if rules.is_none() && link.is_none() {
        return;
    }
    let work = || {
        close_streams();
        delete(link.as_deref());
        0
    };
    match process::clone(&process::Clone::default(), work) {
        // The child has its own descriptor of the socket: this program's end does not close it for good.
        Ok(_) => {}
        Err(_) => delete(link.as_deref()),
    }
}

fn delete(link: Option<&str>) {
    if let Some(name) = link {
        // Nobody is left to tell; GC and a repeated DEL find the link by its name.
        let _ = coracle_linux::link::delete(name);
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

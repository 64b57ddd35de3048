//! Waiting for a container in the foreground: signals are passed on to it, with a terminal also what is typed and what is
//! shown, and its exit is the result. Nothing in here allocates while it waits.

use super::CliError;
use super::console::Console;
use super::notify_socket::NotifySocket;
use super::signals::Signals;
use coracle_linux::process::{self, Exit};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Waits for the process behind `pidfd`, whose terminal's other end is `console`.
pub(super) fn wait(
    pidfd: BorrowedFd<'_>,
    console: Option<&OwnedFd>,
    signals: Signals,
    mut notify: Option<NotifySocket>,
) -> Result<Exit, CliError> {
    let failed = |doing| move |source| CliError::Foreground { doing, source };
    let mut console = console
        .map(Console::attach)
        .transpose()
        .map_err(failed("attaching the terminal"))?;
    loop {
        let mut ready = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            PollFd::new(&signals, PollFlags::empty()),
            PollFd::new(&signals, PollFlags::empty()),
            PollFd::new(&signals, PollFlags::empty()),
            PollFd::new(&signals, PollFlags::empty()),
        ];
        if let Some(notify) = &notify {
            ready[2] = PollFd::new(notify, PollFlags::IN);
        }
        if let Some(console) = &console {
            console.watch(&mut ready[3..]);
        }
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("waiting for the container")(errno.into())),
        }
        // This process is the one that the service manager knows; once it is ready, nothing more is passed on.
        let main_pid = rustix::process::getpid().as_raw_nonzero().get();
        notify.take_if(|notify| notify.pass_on(main_pid));
        let window_changed = signals.forward(pidfd);
        if let Some(console) = &mut console {
            if window_changed {
                console.resize();
            }
            console.copy();
        }
        if let Some(exit) = process::try_wait(pidfd).map_err(failed("collecting the container"))? {
            if let Some(console) = &mut console {
                console.drain();
            }
            return Ok(exit);
        }
    }
}

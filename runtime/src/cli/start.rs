//! `start`: opens the gate of a created container.

use super::notify_socket::NotifySocket;
use super::{CliError, Global};
use clap::{Arg, ArgMatches, Command};
use coracle_linux::pidfd::{self, Pid};
use coracle_runtime::ContainerId;
use coracle_runtime::state::Status;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

pub(super) fn command() -> Command {
    Command::new("start")
        .about("Lets a created container execute its payload")
        .defer(|command| command.arg(Arg::new("id").value_name("CONTAINER").required(true)))
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let id: ContainerId = args.get_one::<String>("id").map_or("", String::as_str).parse()?;
    let record = global.store.load(&id)?;
    let status = record.status(&global.store.dir(&id))?;
    let process = record.process()?;
    let (Status::Created, Some(process)) = (status, process) else {
        // It may have ended before its gate was opened, and said why.
        return Err(global.store.last_words(&id).map_or_else(
            || CliError::NotCreated {
                id: id.to_string(),
                status,
            },
            CliError::Exec,
        ));
    };
    let fifo = global.store.fifo(&id);
    let failed = |source| CliError::Fifo {
        path: fifo.clone(),
        source,
    };
    let notify = NotifySocket::bind(&global.store, &id)?;
    let said = open_gate(&fifo, &process).map_err(failed)?;
    // Without its gate a container counts as started.
    std::fs::remove_file(&fifo).map_err(failed)?;
    // Where a filter lets it say nothing, or before the gate was open, its last words are in a file.
    let silent = said.as_ref().is_none_or(String::is_empty);
    let said = match silent {
        true => global.store.last_words(&id).or(said),
        false => said,
    };
    match said {
        None => Err(CliError::EndedBeforeStart),
        Some(error) if !error.is_empty() => {
            // Its last act was to say so, and whoever deletes it next is to find it stopped.
            pidfd::wait_end(process.as_fd(), Some(Duration::from_secs(10))).map_err(CliError::Kill)?;
            Err(CliError::Exec(error))
        }
        Some(_) => {
            let hooks = record.run_poststart();
            if hooks.is_err() {
                // runtime.md, "Lifecycle", 9: the container is stopped then. What is left is for `delete`.
                super::delete::kill(&record)?;
            }
            hooks?;
            if let (Some(notify), Some(pid)) = (notify, Pid::from_raw(record.pid)) {
                notify.wait(process.as_fd(), pid)?;
            }
            Ok(0)
        }
    }
}

/// Opens the fifo for reading, for which the first process waits, and reads until that closes it: nothing when the
/// payload was executed, an error otherwise. `None` when the process ended without opening it.
fn open_gate(fifo: &Path, process: &OwnedFd) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let gate = rustix::fs::open(fifo, flags, Mode::empty())?;
    let mut said = Vec::new();
    loop {
        let mut ready = [
            PollFd::new(&gate, PollFlags::IN),
            PollFd::new(process, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        // Until somebody has opened the other end there is neither data nor a hangup (poll(2), fifo(7)).
        let (gate_ready, ended) = (!ready[0].revents().is_empty(), !ready[1].revents().is_empty());
        if gate_ready {
            let mut buffer = [0; 4096];
            match rustix::io::read(&gate, &mut buffer) {
                Ok(0) => return Ok(Some(String::from_utf8_lossy(&said).into_owned())),
                Ok(length) => said.extend_from_slice(&buffer[..length]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        } else if ended {
            return Ok(None);
        }
    }
}

//! The end of a child.

use std::os::fd::{AsFd, OwnedFd};

use coracle_linux::process::{self, Exit};

use crate::ready;

/// The end of a child. It is collected once and can be asked for again, also after a wait was given up half-way.
pub(crate) struct Ended {
    pidfd: OwnedFd,
    exit: Option<Exit>,
}

impl Ended {
    pub(crate) fn of(pidfd: OwnedFd) -> Self {
        Self { pidfd, exit: None }
    }

    /// Waits for the child's end and collects it.
    pub(crate) async fn wait(&mut self) -> Exit {
        loop {
            if let Some(exit) = self.exit {
                return exit;
            }
            self.exit = match process::try_wait(self.pidfd.as_fd()) {
                Ok(None) => ready::readable(self.pidfd.as_fd()).await.err().map(|_| UNKNOWN),
                Ok(exit) => exit,
                // Not our child any more; how it ended nobody knows.
                Err(_) => Some(UNKNOWN),
            };
        }
    }
}

const UNKNOWN: Exit = Exit::Code(255);

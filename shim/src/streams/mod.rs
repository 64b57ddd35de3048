//! The standard streams of the pod's processes: containers, and the commands that Exec runs in them.
//!
//! ```text
//!                  pipes.rs          reader.rs                  subscribers
//!   process --stdout pipe--> [ one reader ] --what was read--> log/       container: its CRI log file
//!           --stderr pipe--> [ one reader ] ------------------> caller.rs  command: whoever asked for it
//!           --pty master---> [ one reader ]
//!           <-stdin pipe---- (held open, so that the process does not meet its end)
//! ```
//! A reader reads whatever is there, hands it to its subscriber, and goes on when that can take more: the log always can
//! (what it cannot write it drops and counts), a caller when it has got the last piece.
//!
//! Where the rest belongs that CRI asks for. Attach is one more subscriber of a container's readers, beside the log; Exec
//! with streams is a command whose subscriber is a socket. Standard input is a writer beside the reader, at the end that
//! [`Ends`] holds; closing it is the process's end of input. A resize is an ioctl on the pty master of [`Output::Terminal`].

mod caller;
pub(crate) mod log;
mod pipes;
mod reader;

pub(crate) use caller::Caller;
pub(crate) use pipes::{Ends, open};
pub(crate) use reader::{Gone, Readers, drained};

use std::os::fd::OwnedFd;

/// One stream of output.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The open ends of a process's output.
pub(crate) enum Output {
    /// Two pipes.
    Pipes {
        /// Read end of standard output.
        stdout: OwnedFd,
        /// Read end of standard error.
        stderr: OwnedFd,
    },
    /// The master of the process's terminal, where both streams are one.
    Terminal(OwnedFd),
}

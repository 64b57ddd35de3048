//! A command's output on its way to the caller.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use coracle_shim_api::pod::ExecOutput;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::ended::Ended;
use crate::ready;

/// Which of the command's streams.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Stdout,
    Stderr,
}

/// One stream of a command.
pub(super) struct Source {
    fd: AsyncFd<OwnedFd>,
    kind: Kind,
    /// Bytes the caller may still get.
    left: Cell<usize>,
    phase: Cell<Phase>,
}

/// What becomes of a stream at the moment.
#[derive(Clone, Copy)]
enum Phase {
    Reading,
    /// Something that was read is on its way to the caller.
    Sending,
    Ended,
}

impl Source {
    pub(super) fn new(fd: OwnedFd, kind: Kind) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(fd.as_fd(), true)?;
        Ok(Self {
            fd: ready::watch(fd)?,
            kind,
            left: Cell::new(MAX_OUTPUT),
            phase: Cell::new(Phase::Reading),
        })
    }

    /// Sends until the stream ends; an error means that the caller is gone.
    async fn send(
        &self,
        output: &mpsc::Sender<ExecOutput>,
    ) -> Result<(), mpsc::error::SendError<ExecOutput>> {
        let sent = self.send_all(output).await;
        self.phase.set(Phase::Ended);
        sent
    }

    async fn send_all(
        &self,
        output: &mpsc::Sender<ExecOutput>,
    ) -> Result<(), mpsc::error::SendError<ExecOutput>> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return Ok(());
            };
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?));
            match read {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(count)) => {
                    // What is too much is read and dropped, so that the command is not blocked.
                    let count = count.min(self.left.get());
                    self.left.set(self.left.get() - count);
                    if count > 0 {
                        self.phase.set(Phase::Sending);
                        output.send(self.chunk(&buffer[..count])).await?;
                        self.phase.set(Phase::Reading);
                    }
                }
                // A terminal whose other side is closed says EIO.
                Ok(Err(_)) => return Ok(()),
                Err(_would_block) => {}
            }
        }
    }

    /// Whether there is something that the caller has not got yet.
    fn is_behind(&self) -> bool {
        match self.phase.get() {
            Phase::Reading => ready::is_readable(self.fd.get_ref().as_fd()),
            Phase::Sending => true,
            Phase::Ended => false,
        }
    }

    fn chunk(&self, bytes: &[u8]) -> ExecOutput {
        match self.kind {
            Kind::Stdout => ExecOutput {
                stdout: bytes.into(),
                ..Default::default()
            },
            Kind::Stderr => ExecOutput {
                stderr: bytes.into(),
                ..Default::default()
            },
        }
    }
}

/// Sends all output, and when the command has ended its exit. Returns what is wrong with the caller.
pub(super) async fn stream(
    ended: &mut Ended,
    sources: Vec<Source>,
    output: &mpsc::Sender<ExecOutput>,
) -> Result<(), mpsc::error::SendError<ExecOutput>> {
    let sent = send_all(&sources, output);
    tokio::pin!(sent);
    let mut all_sent = false;
    let exit = loop {
        tokio::select! {
            exit = ended.wait() => break exit,
            result = &mut sent, if !all_sent => {
                result?;
                all_sent = true;
            }
        }
    };
    if !all_sent {
        // A process that the command has left behind may hold the streams open for ever.
        let drained = ready::drained(sent, || sources.iter().any(Source::is_behind)).await;
        drained.unwrap_or(Ok(()))?;
    }
    let exit_code = i32::from(exit.shell_code());
    output
        .send(ExecOutput {
            exited: true,
            exit_code,
            ..Default::default()
        })
        .await
}

async fn send_all(
    sources: &[Source],
    output: &mpsc::Sender<ExecOutput>,
) -> Result<(), mpsc::error::SendError<ExecOutput>> {
    match sources {
        [first, second] => tokio::try_join!(first.send(output), second.send(output)).map(|((), ())| ()),
        [only] => only.send(output).await,
        _ => Ok(()),
    }
}

/// Bytes of each stream that a caller gets, as the kubelet's other runtimes have it.
const MAX_OUTPUT: usize = 16 << 20;
/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

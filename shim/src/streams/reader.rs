//! The reader of a process's output, and what it hands it to.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use super::{Output, Stream};
use crate::ready;

/// Who gets what is read from one stream.
pub(crate) trait Subscriber {
    /// Takes what was just read.
    fn take(&mut self, bytes: &[u8]);
    /// Returns once it can take more. Nothing is read meanwhile.
    async fn ready(&mut self) -> Result<(), Gone>;
    /// The stream has ended.
    fn end(&mut self);
}

/// The subscriber is there no more; there is nothing to read for.
#[derive(Debug)]
pub(crate) struct Gone;

/// The readers of one process: two of its pipes, or one of its terminal.
pub(crate) struct Readers<S>(Vec<Reader<S>>);

impl<S: Subscriber> Readers<S> {
    /// Readers of `output`, each with a subscriber of its own.
    pub(crate) fn new(output: Option<Output>, mut subscriber: impl FnMut(Stream) -> S) -> io::Result<Self> {
        let mut reader = |fd, stream| Reader::new(fd, subscriber(stream));
        Ok(Self(match output {
            Some(Output::Pipes { stdout, stderr }) => {
                vec![reader(stdout, Stream::Stdout)?, reader(stderr, Stream::Stderr)?]
            }
            Some(Output::Terminal(master)) => vec![reader(master, Stream::Stdout)?],
            None => Vec::new(),
        }))
    }

    /// To see how far they are while they run.
    pub(crate) fn progress(&self) -> Progress {
        Progress(
            self.0
                .iter()
                .map(|reader| Rc::downgrade(&reader.source))
                .collect(),
        )
    }

    /// Reads until all streams have ended, or a subscriber is gone.
    pub(crate) async fn run(self) -> Result<(), Gone> {
        let mut readers = self.0.into_iter();
        match (readers.next(), readers.next()) {
            (Some(first), Some(second)) => tokio::try_join!(first.run(), second.run()).map(|((), ())| ()),
            (Some(only), None) => only.run().await,
            (None, _) => Ok(()),
        }
    }
}

/// One stream and its subscriber.
struct Reader<S> {
    source: Rc<Source>,
    subscriber: S,
}

/// A stream that has not ended.
struct Source {
    fd: AsyncFd<OwnedFd>,
    /// The subscriber has not yet done with what was read last.
    held: Cell<bool>,
}

impl<S: Subscriber> Reader<S> {
    fn new(fd: OwnedFd, subscriber: S) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let source = Source {
            fd: ready::watch(fd)?,
            held: Cell::new(false),
        };
        Ok(Self {
            source: Rc::new(source),
            subscriber,
        })
    }

    async fn run(mut self) -> Result<(), Gone> {
        while let Ok(mut ready) = self.source.fd.readable().await {
            match ready.try_io(|fd| read(fd.get_ref(), &mut self.subscriber)) {
                // What a pty master says when the last process has closed the other side is an error, EIO.
                Ok(Ok(0)) | Ok(Err(_)) => break,
                Ok(Ok(_)) => {
                    self.source.held.set(true);
                    self.subscriber.ready().await?;
                    self.source.held.set(false);
                    // A stream that is always ready must not keep the others waiting.
                    tokio::task::yield_now().await;
                }
                Err(_would_block) => {}
            }
        }
        self.subscriber.end();
        Ok(())
    }
}

/// One read; returns its bytes. The buffer is the thread's, since nothing waits in between.
fn read(fd: &OwnedFd, subscriber: &mut impl Subscriber) -> io::Result<usize> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(READ_SIZE, 0);
        let count = rustix::io::read(fd, &mut scratch[..])?;
        if count > 0 {
            subscriber.take(&scratch[..count]);
        }
        Ok(count)
    })
}

/// How far readers are.
#[derive(Clone)]
pub(crate) struct Progress(Vec<Weak<Source>>);

impl Progress {
    /// Whether there is something that a subscriber has not got yet.
    fn is_behind(&self) -> bool {
        let mut open = self.0.iter().filter_map(Weak::upgrade);
        open.any(|source| source.held.get() || ready::is_readable(source.fd.get_ref().as_fd()))
    }
}

/// Waits for the end of output whose writer has ended, which comes at once unless some other process holds its pipe open:
/// then nobody waits longer than a second in vain. While there is still something to read it is not in vain: on a busy
/// machine, or with a slow disk or caller, the second can be over before everything has been read. `None`: given up.
pub(crate) async fn drained<T>(end: impl Future<Output = T>, progress: &Progress) -> Option<T> {
    tokio::pin!(end);
    for _ in 0..DRAIN_ROUNDS {
        match tokio::time::timeout(DRAIN, &mut end).await {
            Ok(ended) => return Some(ended),
            Err(_elapsed) if progress.is_behind() => {}
            Err(_elapsed) => return None,
        }
    }
    None
}

/// How long the silence of a pipe that is held open is listened to.
const DRAIN: Duration = Duration::from_secs(1);
/// Seconds in all, should the process that holds it go on writing.
const DRAIN_ROUNDS: u32 = 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes; a pipe's default capacity is 64 KiB, and more than a quarter of it at once gains nothing measurable.
const READ_SIZE: usize = 16 * 1024;

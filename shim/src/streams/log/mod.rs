//! A container's output becomes its CRI log file.
//!
//! ```text
//!   container --stdout pipe--> [ nonblocking read ] -> Lines (stdout) -.
//!             --stderr pipe--> [ nonblocking read ] -> Lines (stderr) --+-> one write(2) per batch -> LogFile
//!             --pty master---> [ nonblocking read ] -> Lines (stdout) -'
//! ```
//! One task per container reads whatever is there. It never stops reading: what cannot be written is dropped and counted,
//! so that a full disk does not block the container. It ends at the end of all streams, which may come after the
//! container's (a process elsewhere can hold a pipe open), so nobody waits for it without a limit.

mod file;
mod line;

pub(crate) use file::{LogError, LogFile};

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::SystemTime;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::ready;
use line::{Batch, Flush, Lines, Stream};

/// The open ends of a container's output.
pub(crate) enum Output {
    /// Two pipes.
    Pipes {
        /// Read end of standard output.
        stdout: OwnedFd,
        /// Read end of standard error.
        stderr: OwnedFd,
    },
    /// The master of the container's terminal, where both streams are one.
    Terminal(OwnedFd),
}

/// Handle on the log task of one container.
pub(crate) struct Log {
    shared: Rc<Shared>,
    ended: watch::Receiver<bool>,
    /// The streams that have not ended.
    open: Vec<Weak<AsyncFd<OwnedFd>>>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// `None`: the output is read and thrown away.
    file: RefCell<Option<LogFile>>,
    dropped: Cell<u64>,
}

impl Log {
    /// Starts reading `output` into `file`. Must be called inside a `LocalSet`.
    pub(crate) fn start(output: Output, file: Option<LogFile>) -> Result<Self, LogError> {
        let sources = match output {
            Output::Pipes { stdout, stderr } => {
                vec![
                    Source::new(stdout, Stream::Stdout, false)?,
                    Source::new(stderr, Stream::Stderr, false)?,
                ]
            }
            Output::Terminal(master) => vec![Source::new(master, Stream::Stdout, true)?],
        };
        let shared = Rc::new(Shared {
            file: RefCell::new(file),
            dropped: Cell::new(0),
        });
        let open = sources.iter().map(|source| Rc::downgrade(&source.fd)).collect();
        let (end, ended) = watch::channel(false);
        let task = tokio::task::spawn_local(read_all(sources, Rc::clone(&shared), end));
        Ok(Self {
            shared,
            ended,
            open,
            task,
        })
    }

    /// Opens the path anew; every batch from now on goes to the new file.
    pub(crate) fn reopen(&self, path: &Path) -> Result<(), LogError> {
        let file = LogFile::open(path)?;
        self.shared.file.replace(Some(file));
        Ok(())
    }

    /// Lines that could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }

    /// Returns when all streams have ended, or as soon as only a process that holds one of them open could still write;
    /// reading goes on behind it.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        let open = self.open.clone();
        async move {
            let behind = || {
                let mut open = open.iter().filter_map(Weak::upgrade);
                open.any(|fd| ready::is_readable(fd.get_ref().as_fd()))
            };
            // An error means that the task is gone, so all is read.
            let end = ended.wait_for(|ended| *ended);
            let _ = ready::drained(end, behind).await;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_all(sources: Vec<Source>, shared: Rc<Shared>, end: watch::Sender<bool>) {
    let mut sources = sources.into_iter();
    match (sources.next(), sources.next()) {
        (Some(first), Some(second)) => {
            tokio::join!(first.run(&shared), second.run(&shared));
        }
        (Some(only), None) => only.run(&shared).await,
        (None, _) => {}
    }
    let _ = end.send(true);
}

/// One stream of output.
struct Source {
    fd: Rc<AsyncFd<OwnedFd>>,
    lines: Lines,
}

impl Source {
    fn new(fd: OwnedFd, stream: Stream, terminal: bool) -> Result<Self, LogError> {
        rustix::io::ioctl_fionbio(&fd, true).map_err(LogError::watch)?;
        let fd = ready::watch(fd).map_err(LogError::Watch)?;
        Ok(Self {
            fd: Rc::new(fd),
            lines: Lines::new(stream, terminal),
        })
    }

    /// Reads until the stream ends.
    async fn run(mut self, shared: &Shared) {
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                break;
            };
            match ready.try_io(|fd| pump(fd.get_ref(), &mut self.lines, shared)) {
                Ok(Ok(0)) | Ok(Err(_)) => break,
                // A stream that is always ready must not keep the others waiting.
                Ok(Ok(_)) => tokio::task::yield_now().await,
                Err(_would_block) => {}
            }
        }
        shared.write(|batch, flush| self.lines.finish(SystemTime::now(), batch, flush));
    }
}

/// One read, one write; returns the bytes read. The buffers are the thread's, since nothing waits in between.
fn pump(fd: &OwnedFd, lines: &mut Lines, shared: &Shared) -> std::io::Result<usize> {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(READ_SIZE, 0);
        let count = match rustix::io::read(fd, &mut scratch[..]) {
            Ok(count) => count,
            // What a pty master says when the last process has closed the other side.
            Err(rustix::io::Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        shared.write(|batch, flush| lines.push(&scratch[..count], SystemTime::now(), batch, flush));
        Ok(count)
    })
}

impl Shared {
    /// Writes what `fill` puts into a batch, in one write unless it is a lot.
    fn write(&self, fill: impl FnOnce(&mut Batch, Flush<'_>)) {
        BATCH.with_borrow_mut(|batch| {
            batch.clear();
            fill(batch, &mut |batch| self.append(batch));
            self.append(batch);
        });
    }

    fn append(&self, batch: &mut Batch) {
        let written = match self.file.borrow().as_ref() {
            Some(file) => file.append(batch),
            None => batch.lines(),
        };
        self.dropped.set(self.dropped.get() + (batch.lines() - written));
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static BATCH: RefCell<Batch> = RefCell::new(Batch::default());
}

/// Bytes; a pipe's default capacity is 64 KiB, and more than a quarter of it at once gains nothing measurable.
const READ_SIZE: usize = 16 * 1024;

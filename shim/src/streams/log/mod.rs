//! The subscriber of a container's output: its CRI log file.
//!
//! ```text
//!   stdout (or terminal) --> Lines (stdout) -.
//!   stderr ----------------> Lines (stderr) --+-> one write(2) per batch -> LogFile
//! ```
//! One task per container reads both. It never stops reading: what cannot be written is dropped and counted, so that a full
//! disk does not block the container. It ends at the end of all streams, which may come after the container's (a process
//! elsewhere can hold a pipe open), so nobody waits for it without a limit.

mod file;
mod line;

pub(crate) use file::{LogError, LogFile};

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::Output;
use super::reader::{Gone, Progress, Readers, Subscriber, drained};
use line::{Batch, Flush, Lines};

/// Handle on the log task of one container.
pub(crate) struct Log {
    sink: Rc<Sink>,
    ended: watch::Receiver<bool>,
    progress: Progress,
    task: tokio::task::JoinHandle<()>,
}

/// What both streams of a container write to.
struct Sink {
    /// `None`: the output is read and thrown away.
    file: RefCell<Option<LogFile>>,
    dropped: Cell<u64>,
}

impl Log {
    /// Starts reading `output` into `file`. Must be called inside a `LocalSet`.
    pub(crate) fn start(output: Output, file: Option<LogFile>) -> Result<Self, LogError> {
        let sink = Rc::new(Sink {
            file: RefCell::new(file),
            dropped: Cell::new(0),
        });
        let terminal = matches!(output, Output::Terminal(_));
        let readers = Readers::new(Some(output), |stream| Logged {
            sink: Rc::clone(&sink),
            lines: Lines::new(stream, terminal),
        });
        let readers = readers.map_err(LogError::Watch)?;
        let progress = readers.progress();
        let (end, ended) = watch::channel(false);
        let task = tokio::task::spawn_local(async move {
            // The file is never gone.
            let _ = readers.run().await;
            let _ = end.send(true);
        });
        Ok(Self {
            sink,
            ended,
            progress,
            task,
        })
    }

    /// Opens the path anew; every batch from now on goes to the new file.
    pub(crate) fn reopen(&self, path: &Path) -> Result<(), LogError> {
        let file = LogFile::open(path)?;
        self.sink.file.replace(Some(file));
        Ok(())
    }

    /// Lines that could not be written.
    pub(crate) fn dropped(&self) -> u64 {
        self.sink.dropped.get()
    }

    /// Returns when all streams have ended, or as soon as only a process that holds one of them open could still write;
    /// reading goes on behind it.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.clone();
        let progress = self.progress.clone();
        async move {
            // An error means that the task is gone, so all is read.
            let end = ended.wait_for(|ended| *ended);
            let _ = drained(end, &progress).await;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One stream on its way to the file.
struct Logged {
    sink: Rc<Sink>,
    lines: Lines,
}

impl Subscriber for Logged {
    fn take(&mut self, bytes: &[u8]) {
        let lines = &mut self.lines;
        self.sink
            .write(|batch, flush| lines.push(bytes, SystemTime::now(), batch, flush));
    }

    async fn ready(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    fn end(&mut self) {
        let lines = &mut self.lines;
        self.sink
            .write(|batch, flush| lines.finish(SystemTime::now(), batch, flush));
    }
}

impl Sink {
    /// Writes what `fill` puts into a batch, in one write unless it is a lot. The batch is the thread's, since nothing waits
    /// in between.
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
    static BATCH: RefCell<Batch> = RefCell::new(Batch::default());
}

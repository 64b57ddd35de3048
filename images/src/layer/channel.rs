//! Carries a byte stream from asynchronous tasks to a blocking thread.

use std::io::{self, Read};

use hyper::body::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Reads what a task sends. An empty chunk is the end; a sender that goes away without one has been cancelled, which is an error, so
/// that half a stream is never taken for the whole.
pub(crate) struct ChannelReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl ChannelReader {
    pub(crate) fn new(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the download was cancelled");
            self.current = self.chunks.blocking_recv().ok_or_else(gone)??;
            self.ended = self.current.is_empty();
        }
        let count = self.current.len().min(buffer.len());
        self.current
            .copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}

//! The subscriber of a command's output: whoever asked for the command.

use coracle_shim_api::pod::ExecOutput;
use tokio::sync::mpsc;

use super::Stream;
use super::reader::{Gone, Subscriber};

/// Sends what is read from one stream to the caller, piece by piece.
pub(crate) struct Caller {
    stream: Stream,
    output: mpsc::Sender<ExecOutput>,
    /// Bytes that may still be sent.
    left: usize,
    /// On its way.
    piece: Option<ExecOutput>,
}

impl Caller {
    pub(crate) fn new(stream: Stream, output: mpsc::Sender<ExecOutput>) -> Self {
        Self {
            stream,
            output,
            left: MAX_OUTPUT,
            piece: None,
        }
    }
}

impl Subscriber for Caller {
    fn take(&mut self, bytes: &[u8]) {
        // What is too much is read and dropped, so that the command is not blocked.
        let count = bytes.len().min(self.left);
        self.left -= count;
        let bytes = bytes[..count].to_vec();
        let mut piece = ExecOutput::new();
        match self.stream {
            Stream::Stdout => piece.stdout = bytes,
            Stream::Stderr => piece.stderr = bytes,
        }
        self.piece = (count > 0).then_some(piece);
    }

    async fn ready(&mut self) -> Result<(), Gone> {
        match self.piece.take() {
            Some(piece) => self.output.send(piece).await.map_err(|_| Gone),
            None => Ok(()),
        }
    }

    fn end(&mut self) {}
}

/// Bytes of each stream that a caller gets, as the kubelet's other runtimes have it.
const MAX_OUTPUT: usize = 16 << 20;

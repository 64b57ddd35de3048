//! What `play` tells the person: events on stderr, the containers' logs on stdout and stderr as they were written.

use std::io::{self, Write};

use super::super::error::chain;
use super::super::logs::Stream;

/// Speaks for one pod.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pod: String,
    /// Several pods are played: log lines name theirs.
    several: bool,
}

impl Voice {
    pub(crate) fn new(pod: &str, several: bool) -> Voice {
        Voice {
            pod: pod.to_owned(),
            several,
        }
    }

    /// One event.
    pub(crate) fn say(&self, event: &str) {
        let _ = writeln!(io::stderr(), "pod {}: {}", self.pod, event.replace('\n', " "));
    }

    /// What has failed, and why.
    pub(super) fn fail(&self, error: &dyn std::error::Error) {
        self.say(&chain(error));
    }

    /// One line of a container's log. A reader that has gone away does not end the pod.
    pub(super) fn log(&self, container: &str, stream: Stream, text: &[u8]) {
        let mut line = if self.several {
            format!("[{}/{container}] ", self.pod)
        } else {
            format!("[{container}] ")
        }
        .into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        let _ = match stream {
            Stream::Stdout => io::stdout().write_all(&line),
            Stream::Stderr => io::stderr().write_all(&line),
        };
    }
}

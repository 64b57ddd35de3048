//! `coraclectl logs`: what a container has written, from its CRI log file.

mod line;
mod tail;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_cri_api::runtime_v1::ContainerState;
use thiserror::Error;

use super::client::{Client, ClientError};
use super::pods::{self, FindError};

pub(crate) use line::Stream;
pub(crate) use tail::Tail;

/// Prints a container's log: its stdout to stdout, its stderr to stderr.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Goes on until the container ends.
    #[arg(short, long)]
    follow: bool,
    /// The pod's name.
    pod: String,
    /// The container's name.
    container: String,
}

#[derive(Debug, Error)]
pub(crate) enum LogsError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("container {0:?} has no log file")]
    NoLog(String),
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("write the log")]
    Write(#[from] io::Error),
}

pub(crate) async fn run(client: &Client, arguments: &Arguments) -> Result<u8, LogsError> {
    let sandbox = pods::find(client, &arguments.namespace, &arguments.pod).await?;
    let container = pods::find_container(client, &sandbox, &arguments.container).await?;
    let status = client.container_status(&container.id).await?;
    let path = status
        .map(|status| status.log_path)
        .filter(|path| !path.is_empty());
    let path = PathBuf::from(path.ok_or_else(|| LogsError::NoLog(arguments.container.clone()))?);
    let mut tail = Tail::new(&path);
    loop {
        // The state is asked first: what was written before the end is there to be read.
        let goes_on = arguments.follow && is_running(client, &container.id).await?;
        match print_new(&mut tail, &path, !goes_on)? {
            Printed::NobodyReads => return Ok(0),
            Printed::All if !goes_on => return Ok(0),
            Printed::All => tokio::time::sleep(POLL).await,
            Printed::Some => {}
        }
    }
}

const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, PartialEq, Eq)]
enum Printed {
    All,
    Some,
    NobodyReads,
}

/// Prints what is new, all of it when it is the `last` time.
fn print_new(tail: &mut Tail, path: &Path, last: bool) -> Result<Printed, LogsError> {
    let mut written = Ok(());
    let mut emit = |stream: Stream, text: &[u8]| {
        if written.is_ok() {
            written = print(stream, text);
        }
    };
    let mut more = true;
    while more {
        more = tail.read(&mut emit).map_err(|source| LogsError::Read {
            path: path.to_owned(),
            source,
        })?;
        if !last {
            break;
        }
    }
    if last {
        tail.finish(&mut emit);
    }
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::NobodyReads),
        Err(error) => Err(error.into()),
        Ok(()) if more => Ok(Printed::Some),
        Ok(()) => Ok(Printed::All),
    }
}

fn print(stream: Stream, text: &[u8]) -> io::Result<()> {
    let line = [text, b"\n"].concat();
    match stream {
        Stream::Stdout => io::stdout().write_all(&line),
        Stream::Stderr => io::stderr().write_all(&line),
    }
}

async fn is_running(client: &Client, id: &str) -> Result<bool, ClientError> {
    match client.container_status(id).await {
        Err(error) if error.is_not_found() => Ok(false),
        status => Ok(status?.is_some_and(|status| status.state() == ContainerState::ContainerRunning)),
    }
}

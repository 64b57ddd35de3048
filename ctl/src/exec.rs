//! `coraclectl exec`: one command in a running container, without a terminal.

use std::io::{self, Write};
use std::time::Duration;

use thiserror::Error;

use super::client::{Client, ClientError};
use super::pods::{self, FindError};
use super::table;

/// Runs a command in a container and ends with its exit code.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Ends the command after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// The pod's name.
    pod: String,
    /// The container's name.
    container: String,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

#[derive(Debug, Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("write the command's output")]
    Write(#[from] io::Error),
}

pub(crate) async fn run(client: &Client, arguments: Arguments) -> Result<u8, ExecError> {
    let sandbox = pods::find(client, &arguments.namespace, &arguments.pod).await?;
    let container = pods::find_container(client, &sandbox, &arguments.container).await?;
    let timeout = arguments
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    let answer = client
        .exec_sync(&arguments.container, &container.id, arguments.command, timeout)
        .await?;
    table::unless_closed(io::stdout().write_all(&answer.stdout))?;
    table::unless_closed(io::stderr().write_all(&answer.stderr))?;
    Ok(u8::try_from(answer.exit_code).unwrap_or(u8::MAX))
}

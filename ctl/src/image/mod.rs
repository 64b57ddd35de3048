//! `coraclectl image`: the daemon's images.

mod import;
mod ls;
mod pull;
mod rm;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::daemon::{Daemon, DaemonError};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Import(import::Arguments),
    Pull(pull::Arguments),
    Ls(ls::Arguments),
    Rm(rm::Arguments),
}

#[derive(Debug, Error)]
pub(crate) enum ImageError {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} ends before any byte of an archive", path.display())]
    EmptyArchive { path: PathBuf },
    #[error("there is no image {0:?}")]
    NoImage(String),
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error("write the result")]
    Write(#[from] io::Error),
    #[error("write the list as JSON")]
    Json(#[from] serde_json::Error),
}

pub(crate) async fn run(daemon: &Daemon, command: Command) -> Result<u8, ImageError> {
    match command {
        Command::Import(arguments) => import::run(daemon, arguments).await,
        Command::Pull(arguments) => pull::run(daemon, &arguments).await,
        Command::Ls(arguments) => ls::run(daemon, &arguments).await,
        Command::Rm(arguments) => rm::run(daemon, &arguments).await,
    }
}

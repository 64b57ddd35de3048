//! `coraclectl image`: the daemon's images.

mod import;
mod ls;
mod pull;
mod rm;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::client::{Client, ClientError};

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
    Client(#[from] ClientError),
    #[error("write the result")]
    Write(#[from] io::Error),
    #[error("write the list as JSON")]
    Json(#[from] serde_json::Error),
}

pub(crate) async fn run(client: &Client, command: Command) -> Result<u8, ImageError> {
    match command {
        Command::Import(arguments) => import::run(client, arguments).await,
        Command::Pull(arguments) => pull::run(client, &arguments).await,
        Command::Ls(arguments) => ls::run(client, &arguments).await,
        Command::Rm(arguments) => rm::run(client, &arguments).await,
    }
}

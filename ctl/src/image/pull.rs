//! `coraclectl image pull`.

use std::io::{self, Write};

use super::super::client::Client;
use super::super::table;
use super::ImageError;

/// Pulls an image from its registry, through the mirrors the daemon is configured with.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The image, as in a manifest.
    reference: String,
}

pub(super) async fn run(client: &Client, arguments: &Arguments) -> Result<u8, ImageError> {
    let id = client.pull_image(&arguments.reference, None).await?;
    table::unless_closed(writeln!(
        io::stdout(),
        "{} {}",
        arguments.reference,
        table::short(&id)
    ))?;
    Ok(0)
}

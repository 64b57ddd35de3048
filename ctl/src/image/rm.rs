//! `coraclectl image rm`.

use super::super::client::Client;
use super::ImageError;

/// Removes an image with all its tags. Containers that use it keep running.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tags, digests or ids.
    #[arg(required = true)]
    references: Vec<String>,
}

pub(super) async fn run(client: &Client, arguments: &Arguments) -> Result<u8, ImageError> {
    for reference in &arguments.references {
        // To CRI, removing what is not there is not an error; to a person it is.
        if client.image_status(reference).await?.is_none() {
            return Err(ImageError::NoImage(reference.clone()));
        }
        client.remove_image(reference).await?;
    }
    Ok(0)
}

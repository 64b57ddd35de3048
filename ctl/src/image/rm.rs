//! `coraclectl image rm`.

use super::super::daemon::Daemon;
use super::ImageError;

/// Removes an image with all its tags. Containers that use it keep running.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tags, digests or ids.
    #[arg(required = true)]
    references: Vec<String>,
}

pub(super) async fn run(daemon: &Daemon, arguments: &Arguments) -> Result<u8, ImageError> {
    for reference in &arguments.references {
        // To CRI, removing what is not there is no error; to a person it is.
        if daemon.image_status(reference).await?.is_none() {
            return Err(ImageError::NoImage(reference.clone()));
        }
        daemon.remove_image(reference).await?;
    }
    Ok(0)
}

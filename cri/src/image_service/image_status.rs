//! ImageStatus, from memory. An image that is not there is no error: the answer is empty.

use std::collections::HashMap;

use coracle_cri_api::runtime_v1::{ImageStatusRequest, ImageStatusResponse};
use tonic::Status;

use super::{info, item, name};
use crate::daemon::Daemon;

pub(super) fn image_status(
    daemon: &Daemon,
    request: ImageStatusRequest,
) -> Result<ImageStatusResponse, Status> {
    let Some(image) = daemon.images.get(&name(request.image)?) else {
        return Ok(ImageStatusResponse::default());
    };
    Ok(ImageStatusResponse {
        image: Some(item(&image)),
        info: if request.verbose {
            info(&image)?
        } else {
            HashMap::new()
        },
    })
}

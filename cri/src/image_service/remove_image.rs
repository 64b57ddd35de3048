//! RemoveImage: with all its names. An image that is not there is removed; containers that use it keep their layers.

use coracle_cri_api::runtime_v1::{RemoveImageRequest, RemoveImageResponse};
use tonic::{Code, Status};

use super::name;
use crate::daemon::Daemon;
use crate::grpc;

pub(super) async fn remove_image(
    daemon: &Daemon,
    request: RemoveImageRequest,
) -> Result<RemoveImageResponse, Status> {
    let name = name(request.image)?;
    daemon
        .images
        .remove(&name)
        .await
        .map_err(|error| grpc::status(Code::Internal, &error))?;
    Ok(RemoveImageResponse {})
}

//! PullImage. A client that goes away cancels the pull at once: this future is dropped, and nothing of it stays.

use coracle_cri_api::runtime_v1::{AuthConfig, PullImageRequest, PullImageResponse};
use coracle_images::{Auth, Reference};
use tonic::Status;

use super::{RequestError, code_of, name};
use crate::daemon::Daemon;
use crate::grpc;

pub(super) async fn pull_image(
    daemon: &Daemon,
    request: PullImageRequest,
) -> Result<PullImageResponse, Status> {
    let name = name(request.image)?;
    let reference = Reference::parse(&name).map_err(RequestError::from)?;
    let auth = request.auth.map(auth);
    let image = daemon
        .images
        .pull(&reference, auth.as_ref(), &daemon.config.registry_config_dir)
        .await
        .map_err(|error| grpc::status(code_of(error.kind()), &error))?;
    Ok(PullImageResponse {
        image_ref: image.id.clone(),
    })
}

fn auth(config: AuthConfig) -> Auth {
    Auth {
        username: config.username,
        password: config.password,
        auth: config.auth,
        server_address: config.server_address,
        identity_token: config.identity_token,
        registry_token: config.registry_token,
    }
}

//! CRI's ImageService: one file per RPC.

mod image_fs_info;
mod image_status;
mod list_images;
mod pull_image;
mod remove_image;

use std::collections::HashMap;
use std::sync::Arc;

use coracle_cri_api::runtime_v1 as v1;
use coracle_cri_api::runtime_v1::image_service_server::ImageService;
use coracle_images::{Image, ImageUser, Kind, ReferenceError};
use tonic::{Code, Request, Response, Status};

use crate::daemon::Daemon;
use crate::grpc::{self, unimplemented};

/// CRI's ImageService on this daemon.
#[derive(Debug)]
pub(crate) struct Images {
    daemon: Arc<Daemon>,
}

impl Images {
    pub(crate) fn new(daemon: &Arc<Daemon>) -> Images {
        Images {
            daemon: Arc::clone(daemon),
        }
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    type StreamImagesStream = tokio_stream::Empty<Result<v1::StreamImagesResponse, Status>>;

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(list_images::list_images(
            &self.daemon,
            request.into_inner(),
        )))
    }

    async fn stream_images(
        &self,
        _: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        unimplemented("StreamImages")
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        Ok(Response::new(image_status::image_status(
            &self.daemon,
            request.into_inner(),
        )?))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        Ok(Response::new(
            pull_image::pull_image(&self.daemon, request.into_inner()).await?,
        ))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        Ok(Response::new(
            remove_image::remove_image(&self.daemon, request.into_inner()).await?,
        ))
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        Ok(Response::new(image_fs_info::image_fs_info(&self.daemon)))
    }
}

/// What a request for an image lacks.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("image.image: missing")]
    Missing,
    #[error("image.image")]
    Reference(#[from] ReferenceError),
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Status {
        grpc::status(Code::InvalidArgument, &error)
    }
}

/// The gRPC code of a kind of image error.
pub(crate) fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Unauthorized => Code::PermissionDenied,
        Kind::Unavailable => Code::Unavailable,
        Kind::Corrupt => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

fn name(image: Option<v1::ImageSpec>) -> Result<String, RequestError> {
    let name = image.unwrap_or_default().image;
    if name.is_empty() {
        Err(RequestError::Missing)
    } else {
        Ok(name)
    }
}

fn item(image: &Image) -> v1::Image {
    let (uid, username) = match image.user_spec() {
        ImageUser::Uid(uid) => (Some(v1::Int64Value { value: uid.into() }), String::new()),
        ImageUser::Name(name) => (None, name),
    };
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid,
        username,
        spec: Some(v1::ImageSpec {
            image: image.id.clone(),
            ..v1::ImageSpec::default()
        }),
        pinned: false,
    }
}

fn info(image: &Image) -> Result<HashMap<String, String>, Status> {
    let config =
        serde_json::to_string(&image.config).map_err(|error| grpc::status(Code::Internal, &error))?;
    Ok(HashMap::from([("imageSpec".to_owned(), config)]))
}

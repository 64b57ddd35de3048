//! Calls about images.

use coracle_cri_api::import_v1::{ImportRequest, ImportedImage};
use coracle_cri_api::runtime_v1::{
    Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PodSandboxConfig, PullImageRequest,
    RemoveImageRequest,
};
use tokio_stream::Stream;

use super::pods::QUICK;
use super::{CALL_TIMEOUT, Client, ClientError, request};

impl Client {
    /// Pulls `reference`, as long as that takes; the image's id. Dropping the future cancels the pull.
    pub(crate) async fn pull_image(
        &self,
        reference: &str,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String, ClientError> {
        let message = PullImageRequest {
            image: Some(spec(reference)),
            auth: None,
            sandbox_config,
        };
        let result = self.images().pull_image(message).await;
        Ok(self.answer("PullImage", reference, result)?.image_ref)
    }

    /// None when the image is not here.
    pub(crate) async fn image_status(&self, reference: &str) -> Result<Option<Image>, ClientError> {
        let message = ImageStatusRequest {
            image: Some(spec(reference)),
            verbose: false,
        };
        let result = self.images().image_status(request(message, QUICK)).await;
        Ok(self.answer("ImageStatus", reference, result)?.image)
    }

    pub(crate) async fn list_images(&self) -> Result<Vec<Image>, ClientError> {
        let result = self
            .images()
            .list_images(request(ListImagesRequest::default(), QUICK))
            .await;
        Ok(self.answer("ListImages", "", result)?.images)
    }

    pub(crate) async fn remove_image(&self, reference: &str) -> Result<(), ClientError> {
        let message = RemoveImageRequest {
            image: Some(spec(reference)),
        };
        let result = self.images().remove_image(request(message, CALL_TIMEOUT)).await;
        self.answer("RemoveImage", reference, result).map(drop)
    }

    /// Sends an archive piece by piece; `source` names it in errors.
    pub(crate) async fn import_images(
        &self,
        source: &str,
        pieces: impl Stream<Item = ImportRequest> + Send + 'static,
    ) -> Result<Vec<ImportedImage>, ClientError> {
        let result = self.importer().import(pieces).await;
        Ok(self.answer("Import", source, result)?.images)
    }
}

fn spec(reference: &str) -> ImageSpec {
    ImageSpec {
        image: reference.to_owned(),
        ..ImageSpec::default()
    }
}

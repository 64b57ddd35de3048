//! ImageImport/Import: images from an archive that arrives as a stream.

use std::sync::Arc;

use coracle_cri_api::import_v1::image_import_server::ImageImport;
use coracle_cri_api::import_v1::{ImportRequest, ImportResponse, ImportedImage};
use coracle_images::{Image, Reference, ReferenceError};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::daemon::Daemon;
use crate::grpc;
use crate::image_service::code_of;

/// Between the socket and the unpacking.
const BUFFER: usize = 1 << 20;

/// The import service on this daemon.
#[derive(Debug)]
pub(crate) struct Import {
    daemon: Arc<Daemon>,
}

impl Import {
    pub(crate) fn new(daemon: &Arc<Daemon>) -> Import {
        Import {
            daemon: Arc::clone(daemon),
        }
    }
}

#[tonic::async_trait]
impl ImageImport for Import {
    async fn import(
        &self,
        request: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<ImportResponse>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.unwrap_or_default();
        let name = first
            .name
            .as_deref()
            .filter(|name| !name.is_empty())
            .map(parse)
            .transpose()?;
        let (write, read) = tokio::io::duplex(BUFFER);
        let import = async {
            let images = self.daemon.images.import(read, name.as_ref()).await;
            images.map_err(|error| grpc::status(code_of(error.kind()), &error))
        };
        // A client that goes away is not the end of the archive: its error drops the import.
        let (imported, ()) = tokio::try_join!(import, feed(write, first.chunk, stream))?;
        Ok(Response::new(ImportResponse {
            images: imported.iter().map(item).collect(),
        }))
    }
}

/// Passes every chunk on. The import may have seen enough before the end: the rest is read and dropped.
async fn feed(
    mut to: DuplexStream,
    first: Vec<u8>,
    mut rest: Streaming<ImportRequest>,
) -> Result<(), Status> {
    let mut wanted = to.write_all(&first).await.is_ok();
    while let Some(message) = rest.message().await? {
        wanted = wanted && to.write_all(&message.chunk).await.is_ok();
    }
    Ok(())
}

/// The name is not one that an image can have.
#[derive(Debug, thiserror::Error)]
#[error("name")]
struct NameError(#[from] ReferenceError);

fn parse(name: &str) -> Result<Reference, Status> {
    Reference::parse(name).map_err(|error| grpc::status(Code::InvalidArgument, &NameError::from(error)))
}

fn item(image: &Arc<Image>) -> ImportedImage {
    ImportedImage {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
    }
}

//! ListImages, from memory.

use coracle_cri_api::runtime_v1::{ListImagesRequest, ListImagesResponse};

use super::item;
use crate::daemon::Daemon;

pub(super) fn list_images(daemon: &Daemon, request: ListImagesRequest) -> ListImagesResponse {
    let wanted = request
        .filter
        .and_then(|filter| filter.image)
        .unwrap_or_default()
        .image;
    let images = if wanted.is_empty() {
        daemon.images.list()
    } else {
        daemon.images.get(&wanted).into_iter().collect()
    };
    ListImagesResponse {
        images: images.iter().map(|image| item(image)).collect(),
    }
}

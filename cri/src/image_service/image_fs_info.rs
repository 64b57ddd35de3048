//! ImageFsInfo: what images and writable layers use of the disk; kept up to date elsewhere, nothing is walked here.

use coracle_cri_api::runtime_v1::{FilesystemUsage, ImageFsInfoResponse};

use crate::clock::now;
use crate::daemon::Daemon;
use crate::stats;

pub(super) fn image_fs_info(daemon: &Daemon) -> ImageFsInfoResponse {
    let fs_id = Some(stats::file_system(&daemon.config.root));
    let images = daemon.images.usage();
    let layers = daemon.samples.all_layers();
    let usage = |bytes, inodes| FilesystemUsage {
        timestamp: now(),
        fs_id: fs_id.clone(),
        used_bytes: stats::value(bytes),
        inodes_used: stats::value(inodes),
    };
    ImageFsInfoResponse {
        image_filesystems: vec![usage(images.bytes, images.inodes)],
        container_filesystems: vec![usage(layers.bytes, layers.inodes)],
    }
}

//! VOLUME of an image: a directory of the container's own, with what the image has there, writable whatever the root is.
//!
//! ```text
//! image's /data  --copied when the container is made (the runtime)-->  <container>/volumes/0  --bound at-->  /data
//! ```
//! As in containerd: it goes with the container, and a mount of the request or of the runtime at that very place comes
//! first.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::{Request, mounts};

/// A directory below the container's that holds its image volumes, by number.
const DIRECTORY: &str = "volumes";

/// One VOLUME.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageVolume {
    /// On the host; to be made.
    pub(crate) directory: PathBuf,
    /// Its place in the container.
    pub(crate) destination: PathBuf,
}

/// The volumes of the image that nothing in `mounts` takes the place of. What names no place is left out with a warning.
pub(super) fn plan(request: &Request<'_>, mounts: &[Value]) -> Vec<ImageVolume> {
    let mut volumes: Vec<ImageVolume> = Vec::new();
    for text in request.image.volumes {
        let Some(destination) = destination(text) else {
            tracing::warn!(
                container = request.id,
                volume = text,
                "the image's VOLUME names no directory: left out"
            );
            continue;
        };
        let taken = mounts
            .iter()
            .any(|mount| mount["destination"].as_str().map(Path::new) == Some(&destination))
            || volumes.iter().any(|volume| volume.destination == destination);
        if !taken {
            let directory = request.directory.join(DIRECTORY).join(volumes.len().to_string());
            volumes.push(ImageVolume {
                directory,
                destination,
            });
        }
    }
    volumes
}

impl ImageVolume {
    pub(super) fn mount(&self) -> Value {
        mounts::bind(
            &self.directory,
            &self.destination.display().to_string(),
            &["rbind", "rprivate", "rw"],
        )
    }
}

/// Relative ones mean the root, `..` goes no further up than that; the root itself is no volume.
fn destination(text: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (clean != Path::new("/") && !text.contains('\0')).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_a_directory_below_the_root_however_it_is_written() {
        for (text, expected) in [
            ("/data", Some("/data")),
            ("data/", Some("/data")),
            ("//var//lib/../db/.", Some("/var/db")),
            ("/../../etc", Some("/etc")),
            ("", None),
            ("/", None),
            ("/a/..", None),
        ] {
            assert_eq!(destination(text).as_deref(), expected.map(Path::new), "{text:?}");
        }
    }
}

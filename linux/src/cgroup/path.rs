//! Which paths may name a cgroup.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use super::CgroupError;

/// The path without what means nothing (`//`, `.`).
///
/// # Errors
/// It could point anywhere but below a mount point, or it is the root cgroup itself.
pub fn absolute(path: &Path) -> Result<PathBuf, CgroupError> {
    let refuse = |reason| CgroupError::Path {
        path: path.to_owned(),
        reason,
    };
    if !path.is_absolute() {
        return Err(refuse("not absolute"));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) if is_sound(name) => clean.push(name),
            Component::Normal(_) => {
                return Err(refuse(
                    "a name of more than 255 bytes, or with a control character",
                ));
            }
            Component::ParentDir | Component::Prefix(_) => return Err(refuse("`..` is not allowed")),
        }
    }
    if clean == Path::new("/") {
        return Err(refuse("it is the root cgroup"));
    }
    Ok(clean)
}

fn is_sound(name: &OsStr) -> bool {
    let bytes = name.as_encoded_bytes();
    bytes.len() <= 255 && !bytes.iter().any(u8::is_ascii_control)
}

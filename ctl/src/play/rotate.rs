//! Log files do not grow without end: what a kubelet does, with one old file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::client::Client;
use super::super::error::chain;
use super::voice::Voice;

/// How often the sizes are looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// The kubelet's containerLogMaxSize.
const LARGEST: u64 = 10 << 20;

pub(super) fn is_due(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() > LARGEST)
}

/// Renames the file and has the pod's shim begin a new one. If that fails the old name comes back, so that nothing is
/// written where nobody looks.
pub(super) async fn rotate(client: &Client, container: &str, id: &str, path: &Path, voice: &Voice) {
    let old = old_name(path);
    if let Err(error) = fs::rename(path, &old) {
        voice.say(&format!(
            "log of container {container} is not rotated: {}",
            chain(&error)
        ));
        return;
    }
    if let Err(error) = client.reopen_log(container, id).await {
        let back = if path.exists() {
            Ok(())
        } else {
            fs::rename(&old, path)
        };
        let then = back
            .err()
            .map(|error| format!("; and it keeps its new name: {}", chain(&error)))
            .unwrap_or_default();
        voice.say(&format!(
            "log of container {container} is not rotated: {}{then}",
            chain(&error)
        ));
    }
}

/// Removes the log of an attempt long past, and its old part.
pub(super) fn remove(path: &Path) {
    // What is left goes with the pod's directory.
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(old_name(path));
}

fn old_name(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

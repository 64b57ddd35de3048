//! Work on paths of the host that a request names. Such a path may lie on a file system that hangs, whose server is dead for
//! example, and a thread that the kernel holds there can neither be ended nor waited for.
//!
//! ```text
//!   request --reserves the path--> a thread of its own --answers--> request
//!      | waits at most PATIENCE            | whenever the kernel lets go, nobody listening any more:
//!      '-> an error that names it          '-> takes back what it did
//! ```
//!
//! So such work takes no thread that other work needs, and a request that is repeated adds no thread to the one that hangs.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::Code;

use crate::error::chain;
use crate::pods::Pods;

/// A file system on a loaded disk answers within seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an undo waits.
const UNDO: Duration = Duration::from_secs(5);
/// Somebody may remove a directory above, which was empty, while one is made in it.
const ATTEMPTS: u32 = 5;

/// Why the work is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostPathError {
    #[error("{}: no answer within {} s: its file system hangs", .0.display(), PATIENCE.as_secs())]
    Hangs(PathBuf),
    #[error("{}: start a thread", path.display())]
    Thread { path: PathBuf, source: io::Error },
    #[error("{}: the thread was ended", .0.display())]
    Ended(PathBuf),
}

impl HostPathError {
    /// Its code for clients.
    pub(crate) fn code(&self) -> Code {
        match self {
            HostPathError::Hangs(_) => Code::DeadlineExceeded,
            HostPathError::Thread { .. } | HostPathError::Ended(_) => Code::Internal,
        }
    }
}

/// Runs `work` beside the executor, alone on this path. When this is dropped or gives up, the work goes on, and its result
/// is given to `take_back`.
pub(crate) async fn work_on<T: Send + 'static>(
    pods: &Pods,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
    take_back: impl FnOnce(T) + Send + 'static,
) -> Result<T, HostPathError> {
    let answer = async {
        let alone = pods.reserve(format!("host path {}", path.display())).await;
        let (tell, told) = oneshot::channel();
        let thread = std::thread::Builder::new().name("host path".to_owned());
        let started = thread.spawn(move || {
            let _alone = alone;
            if let Err(result) = tell.send(work()) {
                take_back(result);
            }
        });
        started.map_err(|source| HostPathError::Thread {
            path: path.to_owned(),
            source,
        })?;
        told.await.map_err(|_| HostPathError::Ended(path.to_owned()))
    };
    tokio::time::timeout(PATIENCE, answer)
        .await
        .map_err(|_| HostPathError::Hangs(path.to_owned()))?
}

/// What would have to be made for `path` to be a directory, outermost first.
pub(crate) fn missing(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        if ancestor.try_exists()? {
            break;
        }
        missing.push(ancestor.to_owned());
    }
    missing.reverse();
    Ok(missing)
}

/// Makes the directory and those above it, mode 0755, as users of every runtime have come to expect.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path);
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
            made => return made,
        }
    }
}

/// Removes what an undone request had made, outermost first, as far as it is empty. What hangs is left to its thread.
pub(crate) async fn take_back(made: &[String]) {
    if made.is_empty() {
        return;
    }
    let (tell, told) = oneshot::channel();
    let all = made.to_vec();
    let thread = std::thread::Builder::new().name("host path".to_owned());
    let started = thread.spawn(move || {
        remove_empty(&all);
        // Nobody may be waiting any more.
        let _ = tell.send(());
    });
    if let Err(error) = started {
        tracing::warn!(?made, error = %chain(&error), "cannot take back what was made");
    } else if tokio::time::timeout(UNDO, told).await.is_err() {
        tracing::warn!(?made, "what was made is taken back when its file system answers");
    }
}

/// The same, at once.
pub(crate) fn remove_empty(made: &[impl AsRef<Path>]) {
    for directory in made.iter().rev() {
        // Somebody uses it, or it is gone: both are fine.
        let _ = std::fs::remove_dir(directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn what_is_missing_is_named_made_and_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let path = base.join("a/b");
        let missing_ones = missing(&path).unwrap();
        assert_eq!(missing_ones, [base.join("a"), path.clone()]);
        make(&path).unwrap();
        assert!(missing(&path).unwrap().is_empty());
        std::fs::write(base.join("a/file"), "").unwrap();
        remove_empty(&missing_ones);
        assert!(base.join("a").is_dir() && !path.exists());
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_taken_back_and_holds_its_path_until_then() {
        let pods = Pods::default();
        let path = Path::new("/somewhere");
        let (go_on, blocked) = mpsc::channel::<()>();
        let (started, begun) = oneshot::channel();
        let (tell, taken_back) = oneshot::channel();
        let first = work_on(
            &pods,
            path,
            move || {
                started.send(()).unwrap();
                blocked.recv().unwrap();
                7
            },
            move |result| tell.send(result).unwrap(),
        );
        tokio::select! {
            _ = first => panic!("it is blocked"),
            begun = begun => begun.unwrap(),
        }
        let again = work_on(&pods, path, || (), |()| ());
        tokio::pin!(again);
        tokio::select! {
            biased;
            _ = &mut again => panic!("the first is not done"),
            () = tokio::task::yield_now() => {}
        }
        go_on.send(()).unwrap();
        assert_eq!(taken_back.await.unwrap(), 7);
        again.await.unwrap();
    }
}

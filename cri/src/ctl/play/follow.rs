//! Following one attempt's log until the attempt is over.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::logs::Tail;
use super::voice::Voice;

/// A log being followed; [`Follower::finish`] prints the rest.
#[derive(Debug)]
pub(super) struct Follower {
    over: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(voice: Voice, container: String, path: PathBuf) -> Follower {
        let (over, mut is_over) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut tail = Tail::new(&path);
            let mut emit = |stream, text: &[u8]| voice.log(&container, stream, text);
            loop {
                let ended = tokio::time::timeout(INTERVAL, &mut is_over).await.is_ok();
                if let Err(error) = tail.read(&mut emit) {
                    voice.say(&format!("log of container {container}: {error}"));
                    return;
                }
                if ended {
                    tail.finish(&mut emit);
                    return;
                }
            }
        });
        Follower { over, task }
    }

    /// The container has ended: what it wrote last is printed before this returns.
    pub(super) async fn finish(self) {
        // A follower that has stopped by itself has said why.
        let _ = self.over.send(());
        let _ = self.task.await;
    }
}

const INTERVAL: Duration = Duration::from_millis(100);

//! Following one attempt's log until the attempt is over.
//!
//! On a thread of its own: whoever reads our output may stop reading, and then printing waits. The pod must not wait
//! with it, and Ctrl-C must still work.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::logs::Tail;
use super::voice::Voice;

/// A log being followed; [`Follower::finish`] prints the rest.
#[derive(Debug)]
pub(super) struct Follower {
    over: Arc<AtomicBool>,
    /// Closed when the thread has printed everything.
    done: oneshot::Receiver<()>,
}

impl Follower {
    pub(super) fn start(voice: Voice, container: String, path: PathBuf) -> Follower {
        let over = Arc::new(AtomicBool::new(false));
        let (running, done) = oneshot::channel();
        let is_over = Arc::clone(&over);
        let name = voice.clone();
        let started = thread::Builder::new().spawn(move || {
            follow(&voice, &container, path, &is_over);
            drop(running);
        });
        if let Err(error) = started {
            name.say(&format!("a log is not followed: {error}"));
        }
        Follower { over, done }
    }

    /// The container has ended: what it wrote last is printed before this returns, if anybody reads it.
    pub(super) async fn finish(self) {
        self.over.store(true, Ordering::Release);
        let _ = tokio::time::timeout(PATIENCE, self.done).await;
    }
}

const INTERVAL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(5);

fn follow(voice: &Voice, container: &str, path: PathBuf, is_over: &AtomicBool) {
    let mut tail = Tail::new(&path);
    let mut emit = |stream, text: &[u8]| voice.log(container, stream, text);
    loop {
        // Asked first: what was written before the end is there to be read.
        let over = is_over.load(Ordering::Acquire);
        match tail.read(&mut emit) {
            Ok(true) => {}
            Ok(false) if over => return tail.finish(&mut emit),
            Ok(false) => thread::sleep(INTERVAL),
            Err(error) => return voice.say(&format!("log of container {container}: {error}")),
        }
    }
}

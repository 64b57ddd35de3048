//! Following one attempt's log until the attempt is over.
//!
//! On a thread of its own: whoever reads our output may stop reading, and then printing waits. The pod must not wait
//! with it, and Ctrl-C must still work.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::error::chain;
use super::super::logs::Tail;
use super::voice::Voice;

/// A log being followed; [`Follower::finish`] prints the rest.
#[derive(Debug)]
pub(super) struct Follower {
    over: Arc<AtomicBool>,
    /// Pieces of output so far.
    printed: Arc<AtomicU64>,
    /// Closed when the thread has printed everything.
    done: oneshot::Receiver<()>,
}

impl Follower {
    pub(super) fn start(voice: Voice, container: String, path: PathBuf) -> Follower {
        let over = Arc::new(AtomicBool::new(false));
        let printed = Arc::new(AtomicU64::new(0));
        let (running, done) = oneshot::channel();
        let (is_over, counter) = (Arc::clone(&over), Arc::clone(&printed));
        let (teller, name) = (voice.clone(), container.clone());
        let started = thread::Builder::new().spawn(move || {
            follow(&voice, &container, path, &is_over, &counter);
            drop(running);
        });
        if let Err(error) = started {
            teller.say(&format!(
                "log of container {name} is not followed: {}",
                chain(&error)
            ));
        }
        Follower { over, printed, done }
    }

    /// The container has ended: what it wrote last is printed before this returns, if anybody reads it.
    pub(super) async fn finish(mut self) {
        self.over.store(true, Ordering::Release);
        loop {
            let before = self.printed.load(Ordering::Relaxed);
            let done = tokio::time::timeout(PATIENCE, &mut self.done).await;
            if done.is_ok() || self.printed.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(100);
/// A reader that takes nothing for so long does not read any more.
const PATIENCE: Duration = Duration::from_secs(5);

fn follow(voice: &Voice, container: &str, path: PathBuf, is_over: &AtomicBool, printed: &AtomicU64) {
    let mut tail = Tail::new(&path);
    let mut emit = |stream, text: &[u8]| {
        voice.log(container, stream, text);
        printed.fetch_add(1, Ordering::Relaxed);
    };
    loop {
        // Asked first: what was written before the end is there to be read.
        let over = is_over.load(Ordering::Acquire);
        match tail.read(&mut emit) {
            Ok(true) => {}
            Ok(false) if over => return tail.finish(&mut emit),
            Ok(false) => thread::sleep(INTERVAL),
            Err(error) => {
                return voice.say(&format!(
                    "log of container {container} is not followed: {}",
                    chain(&error)
                ));
            }
        }
    }
}

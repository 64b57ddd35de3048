//! Waiting for what another process does.

use std::time::{Duration, Instant};

/// A deadline for a hang, not a measure: a machine that does other things at the same time may take this long.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// Polls until there is a value.
///
/// # Panics
/// When [`PATIENCE`] is over.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until it is so.
///
/// # Panics
/// When [`PATIENCE`] is over.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, || done().then_some(()));
}

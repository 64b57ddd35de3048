//! Bounded waiting.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once: the bound for everything of ours.
pub const SOON: Duration = Duration::from_secs(5);

/// Asks until there is an answer, at most `bound`; the last refusal is the failure.
///
/// # Errors
/// What `ask` said last.
pub fn until<T, E>(bound: Duration, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + bound;
    let mut pause = Duration::from_millis(2);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(refusal) if Instant::now() >= end => return Err(refusal),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Asks until the answer is yes.
///
/// # Panics
/// With `what` when it is still no after `bound`.
pub fn until_true(bound: Duration, what: &str, mut ask: impl FnMut() -> bool) {
    let asked = until(bound, || if ask() { Ok(()) } else { Err(()) });
    assert!(asked.is_ok(), "not within {bound:?}: {what}");
}

//! Bounded waiting.
//!
//! A bound is there to end a test that would wait for ever; it measures no speed. So it counts the pauses between two
//! questions and not what the asking takes: on a machine that has no time, programs are as slow to ask as to answer.

use std::time::Duration;

/// How long a test waits for something that should happen at once: the bound for everything of ours.
pub const SOON: Duration = Duration::from_secs(5);

/// How long a program of others may take to start.
pub const START: Duration = Duration::from_secs(60);

/// Asks until there is an answer, with pauses of `bound` in all; the last refusal is the failure.
///
/// # Errors
/// What `ask` said last.
pub fn until<T, E>(bound: Duration, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut left = bound;
    let mut pause = Duration::from_millis(2);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(refusal) if left.is_zero() => return Err(refusal),
            Err(_) => std::thread::sleep(pause.min(left)),
        }
        left = left.saturating_sub(pause);
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

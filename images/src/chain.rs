//! How errors are told where there is nobody to give them to: in log lines, and of several hosts together.

use std::error::Error;

/// The error and its causes on one line, outermost first. No error's own text repeats its cause.
pub(crate) fn chain(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

//! How errors are told: the one text that the end of the program and the lines about a pod's progress have.

use std::error::Error;

/// The error and its causes on one line, outermost first. No error's own text repeats its cause.
pub(crate) fn chain(error: &dyn Error) -> String {
    let texts = std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ").replace('\n', " ")
}

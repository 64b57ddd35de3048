//! How errors are told: the one text that every edge (gRPC status, log line, end of the program) writes.

use std::error::Error;

/// The error and its causes on one line, outermost first. No error's own text repeats its cause.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    std::iter::once(error.to_string())
        .chain(causes.map(ToString::to_string))
        .collect::<Vec<_>>()
        .join(": ")
}

//! Errors as text: the one form of the status of a call, of the program's exit and of the lines of the shim's log.

use std::error::Error;

/// The error and its causes in one line: "what: cause: cause".
pub(crate) fn chain(error: &dyn Error) -> String {
    let texts = std::iter::successors(Some(error), |error| (*error).source()).map(ToString::to_string);
    texts.collect::<Vec<_>>().join(": ")
}

/// A line about a container in the shim's log (standard error).
pub(crate) fn log(container: impl std::fmt::Display, line: impl std::fmt::Display) {
    eprintln!("coracle-shim: container {container}: {line}");
}

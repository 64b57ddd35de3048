//! Why a call failed: the daemon was not reached, or it answered with an error.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tonic::{Code, Status};

/// One call that failed, and what it was about.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("coracled cannot be reached at unix://{}", path.display())]
    Unreachable { path: PathBuf, source: Disconnected },
    /// `object` is empty for calls that are about nothing in particular.
    #[error("{}", [*call, object].join(" ").trim_end())]
    Call {
        call: &'static str,
        object: String,
        source: Refused,
    },
}

impl ClientError {
    /// Whether the same call may succeed once the daemon is back.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. })
    }

    /// Whether the daemon does not know what the call was about.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Call { source, .. } if source.0.code() == Code::NotFound)
    }
}

/// What the daemon said, or the name of its code where it said nothing.
#[derive(Debug)]
pub(crate) struct Refused(Box<Status>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.message() {
            "" => write!(f, "{:?}", self.0.code()),
            message => f.write_str(message),
        }
    }
}

impl Error for Refused {
    /// A status that was made on this side has the text of its cause as its message (`tonic::Status::from_error`): the
    /// chain goes on behind that one.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source().and_then(Error::source)
    }
}

/// The innermost cause of a connection's failure: the layers around it (tonic, hyper) repeat one another and say nothing
/// of their own.
#[derive(Debug)]
pub(crate) struct Disconnected(Box<Status>);

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match causes(&self.0).last() {
            Some(cause) => write!(f, "{cause}"),
            None => f.write_str(self.0.message()),
        }
    }
}

impl Error for Disconnected {}

/// Tells a connection that failed from a call that failed.
pub(super) fn sort(status: Status) -> Result<Disconnected, Refused> {
    let connection =
        |cause: &(dyn Error + 'static)| cause.is::<io::Error>() || cause.is::<tonic::transport::Error>();
    let failed = causes(&status).any(connection);
    let status = Box::new(status);
    if failed {
        Ok(Disconnected(status))
    } else {
        Err(Refused(status))
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::chain;

    fn error(object: &str, status: Status) -> ClientError {
        match sort(status) {
            Ok(source) => ClientError::Unreachable {
                path: "/s".into(),
                source,
            },
            Err(source) => ClientError::Call {
                call: "StartContainer",
                object: object.to_owned(),
                source,
            },
        }
    }

    #[derive(Debug, Error)]
    #[error("outer")]
    struct Outer(#[source] fmt::Error);

    #[test]
    fn what_the_daemon_says_follows_what_it_was_asked() {
        let said = error("c", Status::not_found("no container\n\"c\": gone"));
        assert_eq!(chain(&said), "StartContainer c: no container \"c\": gone");
        assert!(said.is_not_found());
        let silent = error("", Status::new(Code::DeadlineExceeded, ""));
        assert_eq!(chain(&silent), "StartContainer: DeadlineExceeded");
    }

    #[test]
    fn a_cause_on_this_side_is_said_once() {
        let status = Status::from_error(Box::new(Outer(fmt::Error)));
        let wanted = format!("StartContainer c: outer: {}", fmt::Error);
        assert_eq!(chain(&error("c", status)), wanted);
        let status = Status::from_error(Box::new(io::Error::from_raw_os_error(111)));
        let lost = error("c", status);
        assert!(lost.is_unreachable());
        assert_eq!(
            chain(&lost),
            "coracled cannot be reached at unix:///s: Connection refused (os error 111)"
        );
    }
}

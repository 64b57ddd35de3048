//! The edge to clients, the same for every service: how an error becomes a status, and RPCs that are not there yet.

use std::error::Error;

use tonic::{Code, Response, Status};

use crate::error::chain;

/// The status of a request that failed. What is our own fault is also said in the log: here, and nowhere before.
pub(crate) fn status(code: Code, error: &dyn Error) -> Status {
    let text = chain(error);
    if code == Code::Internal {
        tracing::error!(error = %text, "request failed");
    }
    Status::new(code, text)
}

/// The answer of an RPC that does not exist yet.
pub(crate) fn unimplemented<T>(rpc: &'static str) -> Result<Response<T>, Status> {
    Err(Status::unimplemented(format!("{rpc}: not implemented yet")))
}

//! RPCs that are not there yet say so, by name.

use tonic::{Response, Status};

use super::failure::Failure;

/// The answer of an RPC that does not exist yet.
pub(crate) fn unimplemented<T>(rpc: &'static str) -> Result<Response<T>, Status> {
    Err(Failure::Unimplemented { rpc }.into())
}

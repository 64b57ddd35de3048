//! Calls about the node.

use coracle_cri_api::runtime_v1::{StatusRequest, StatusResponse};

use super::{Client, ClientError, request};
use std::time::Duration;

impl Client {
    /// What the daemon says of itself, its configuration included.
    pub(crate) async fn status(&self) -> Result<StatusResponse, ClientError> {
        let message = StatusRequest { verbose: true };
        let result = self.runtime().status(request(message, STATUS_TIMEOUT)).await;
        self.answer("Status", "", result)
    }
}

/// A daemon that takes longer is one that does not answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(15);

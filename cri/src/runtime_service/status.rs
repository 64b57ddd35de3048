//! Status: whether pods can run here, and what the runtime can do.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_cri_api::runtime_v1::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest,
    StatusResponse,
};
use serde_json::json;

use super::Failure;
use crate::daemon::Daemon;
use crate::error::chain;

/// The names that RunPodSandbox takes; the first is the default.
pub(super) const HANDLERS: [&str; 2] = ["", "coracle"];

pub(super) async fn status(daemon: Arc<Daemon>, request: StatusRequest) -> Result<StatusResponse, Failure> {
    let network = daemon.network.status().await;
    let conditions = vec![
        condition("RuntimeReady", None),
        condition("NetworkReady", network.err().map(|error| chain(&*error))),
    ];
    let handlers = HANDLERS.map(|name| RuntimeHandler {
        name: name.to_owned(),
        features: Some(RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: false,
        }),
    });
    Ok(StatusResponse {
        status: Some(RuntimeStatus { conditions }),
        info: if request.verbose {
            info(&daemon)?
        } else {
            HashMap::new()
        },
        runtime_handlers: handlers.to_vec(),
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    })
}

fn condition(kind: &str, fault: Option<String>) -> RuntimeCondition {
    RuntimeCondition {
        r#type: kind.to_owned(),
        status: fault.is_none(),
        reason: if fault.is_some() {
            format!("{kind}Not")
        } else {
            String::new()
        },
        message: fault.unwrap_or_default(),
    }
}

/// `config` as JSON, with `stateDir` beside our own key: clients look for a path of the runtime under that name.
fn info(daemon: &Daemon) -> Result<HashMap<String, String>, Failure> {
    let mut config = serde_json::to_value(&daemon.config)?;
    if let Some(config) = config.as_object_mut() {
        config.insert("stateDir".to_owned(), json!(daemon.config.state));
        config.insert("rootDir".to_owned(), json!(daemon.config.root));
    }
    Ok(HashMap::from([("config".to_owned(), config.to_string())]))
}

//! CRI's RuntimeService: one file per RPC.

mod container_plan;
mod container_stats;
mod container_status;
mod create_container;
mod exec_sync;
mod failure;
mod files;
mod id;
mod identity;
mod labels;
mod list_container_stats;
mod list_containers;
mod list_pod_sandbox;
mod list_pod_sandbox_stats;
mod pod_request;
mod pod_sandbox_stats;
mod pod_sandbox_status;
mod remove_container;
mod remove_pod_sandbox;
mod reopen_container_log;
mod request;
mod run_pod_sandbox;
mod runtime_config;
mod sandbox_request;
mod service;
mod start_container;
mod status;
mod stop_container;
mod stop_pod_sandbox;
mod update_runtime_config;
mod version;

pub(crate) use failure::Failure;
pub(crate) use files::remove_later;
pub(crate) use service::Runtime;

use crate::steps::Operation;

/// All steps as `rpc.step`, in the order in which they run.
pub(crate) fn step_names() -> impl Iterator<Item = String> {
    fn names<W, E>(operation: &'static Operation<W, E>) -> impl Iterator<Item = String> {
        operation
            .steps
            .iter()
            .map(|step| format!("{}.{}", operation.name, step.name))
    }
    names(&run_pod_sandbox::OPERATION)
        .chain(names(&create_container::OPERATION))
        .chain(names(&start_container::OPERATION))
        .chain(names(&stop_container::OPERATION))
        .chain(names(&remove_container::OPERATION))
        .chain(names(&stop_pod_sandbox::OPERATION))
        .chain(names(&remove_pod_sandbox::OPERATION))
}

/// What a start of the daemon finishes or undoes.
pub(crate) mod half_done {
    pub(crate) use super::create_container::undo as undo_create_container;
    pub(crate) use super::remove_container::finish as finish_remove_container;
    pub(crate) use super::remove_pod_sandbox::finish as finish_remove_pod_sandbox;
    pub(crate) use super::run_pod_sandbox::undo as undo_run_pod_sandbox;
}

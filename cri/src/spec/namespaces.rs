//! Which namespaces the container gets for itself. Those it shares with its pod are the shim's to join.

use coracle_cri_api::runtime_v1::{LinuxContainerSecurityContext, NamespaceMode, NamespaceOption};
use serde_json::{Value, json};

use super::{Host, PlanError, invalid, mode};

const FIELD: &str = "config.linux.security_context.namespace_options";

pub(super) fn plan(
    security: &LinuxContainerSecurityContext,
    sandbox: &NamespaceOption,
    host: &Host,
) -> Result<Vec<Value>, PlanError> {
    if let Some(asked) = &security.namespace_options {
        check("network", asked.network, sandbox.network)?;
        check("ipc", asked.ipc, sandbox.ipc)?;
        check("pid", asked.pid, sandbox.pid)?;
        check_user_namespace(asked)?;
    }
    let mut namespaces = vec![json!({ "type": "mount" })];
    if mode(sandbox.pid) == NamespaceMode::Container {
        namespaces.push(json!({ "type": "pid" }));
    }
    // On v1 a private view would hide the paths that tools in containers have learnt to read from /proc/self/cgroup.
    if host.unified_cgroups_only {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    Ok(namespaces)
}

/// POD is what an unset field reads as: the pod's own choice holds then.
fn check(field: &str, asked: i32, of_sandbox: i32) -> Result<(), PlanError> {
    let field = format!("{FIELD}.{field}");
    match NamespaceMode::try_from(asked) {
        Ok(NamespaceMode::Target) => Err(PlanError::Unsupported {
            field: format!("{field}: TARGET"),
        }),
        Ok(NamespaceMode::Pod) => Ok(()),
        Ok(same) if asked == of_sandbox => {
            tracing::trace!(?same, "as the pod");
            Ok(())
        }
        Ok(other) => Err(invalid(
            &field,
            other.as_str_name(),
            "the sandbox was made with another mode",
        )),
        Err(_) => Err(invalid(&field, &asked.to_string(), "no such mode")),
    }
}

/// NODE means the host's user namespace; everything else needs mappings, which are not implemented yet.
pub(crate) fn check_user_namespace(options: &NamespaceOption) -> Result<(), PlanError> {
    match options.userns_options.as_ref().map(|user| mode(user.mode)) {
        Some(NamespaceMode::Node) | None => Ok(()),
        Some(_) => Err(PlanError::Unsupported {
            field: format!("{FIELD}.userns_options"),
        }),
    }
}

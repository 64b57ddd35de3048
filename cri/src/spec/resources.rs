//! Limits: CRI's zero means "not set", OCI's absence does.

use coracle_cri_api::runtime_v1::{ContainerConfig, LinuxContainerResources};
use serde_json::{Value, json};

use super::{PlanError, invalid, set};

const FIELD: &str = "config.linux.resources";

pub(super) fn plan(config: &ContainerConfig, device_rules: Vec<Value>) -> Result<Value, PlanError> {
    let mut resources = json!({ "devices": device_rules });
    let Some(asked) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return Ok(resources);
    };
    check(asked)?;
    set(&mut resources, "cpu", cpu(asked));
    set(&mut resources, "memory", memory(asked));
    set(&mut resources, "hugepageLimits", hugepages(asked));
    if !asked.unified.is_empty() {
        set(&mut resources, "unified", Some(json!(asked.unified)));
    }
    Ok(resources)
}

fn check(asked: &LinuxContainerResources) -> Result<(), PlanError> {
    let unsigned = [
        ("cpu_period", asked.cpu_period),
        ("cpu_shares", asked.cpu_shares),
        ("memory_limit_in_bytes", asked.memory_limit_in_bytes),
    ];
    for (name, value) in unsigned {
        if value < 0 {
            return Err(invalid(
                &format!("{FIELD}.{name}"),
                &value.to_string(),
                "cannot be negative",
            ));
        }
    }
    for (name, list) in [
        ("cpuset_cpus", &asked.cpuset_cpus),
        ("cpuset_mems", &asked.cpuset_mems),
    ] {
        if !list
            .chars()
            .all(|character| character.is_ascii_digit() || ",-".contains(character))
        {
            return Err(invalid(&format!("{FIELD}.{name}"), list, "not a list like 0-3,7"));
        }
    }
    Ok(())
}

fn cpu(asked: &LinuxContainerResources) -> Option<Value> {
    let mut cpu = json!({});
    // The kernel takes 2 as the least weight; kubelet's minimum is 2 as well.
    set(&mut cpu, "shares", positive(asked.cpu_shares));
    set(
        &mut cpu,
        "quota",
        (asked.cpu_quota != 0).then(|| json!(asked.cpu_quota)),
    );
    set(&mut cpu, "period", positive(asked.cpu_period));
    set(&mut cpu, "cpus", text(&asked.cpuset_cpus));
    set(&mut cpu, "mems", text(&asked.cpuset_mems));
    filled(cpu)
}

fn memory(asked: &LinuxContainerResources) -> Option<Value> {
    let mut memory = json!({});
    set(&mut memory, "limit", positive(asked.memory_limit_in_bytes));
    set(
        &mut memory,
        "swap",
        (asked.memory_swap_limit_in_bytes != 0).then(|| json!(asked.memory_swap_limit_in_bytes)),
    );
    filled(memory)
}

fn hugepages(asked: &LinuxContainerResources) -> Option<Value> {
    // The kubelet lists every page size of the machine with a limit of 0 for pods that use none: nothing to enforce
    // that the pod's own cgroup does not.
    let limits: Vec<Value> = asked
        .hugepage_limits
        .iter()
        .filter(|limit| limit.limit > 0)
        .map(|limit| json!({ "pageSize": limit.page_size, "limit": limit.limit }))
        .collect();
    (!limits.is_empty()).then(|| json!(limits))
}

fn positive(value: i64) -> Option<Value> {
    (value > 0).then(|| json!(value))
}

fn text(value: &str) -> Option<Value> {
    (!value.is_empty()).then(|| json!(value))
}

fn filled(object: Value) -> Option<Value> {
    object
        .as_object()
        .is_some_and(|fields| !fields.is_empty())
        .then_some(object)
}

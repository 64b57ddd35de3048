//! Which capabilities the first process gets (capabilities(7)).

use coracle_cri_api::runtime_v1::LinuxContainerSecurityContext;
use serde_json::{Value, json};

use super::{Host, PlanError, invalid};

/// By number.
pub(super) const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container gets that asks for nothing: Docker's list, which images have come to rely on.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const FIELD: &str = "config.linux.security_context.capabilities";

pub(super) fn plan(security: &LinuxContainerSecurityContext, host: &Host) -> Result<Value, PlanError> {
    let wanted = names(security, host)?;
    let asked = security.capabilities.clone().unwrap_or_default();
    let mut ambient = Vec::new();
    for name in &asked.add_ambient_capabilities {
        ambient.push(parse(name)?);
    }
    Ok(json!({
        "bounding": wanted,
        "effective": wanted,
        "permitted": wanted,
        // Not inheritable: CVE-2022-24769. Ambient ones have to be, by the kernel's rule.
        "inheritable": ambient,
        "ambient": ambient,
    }))
}

/// The names of the capabilities that the container gets.
pub(super) fn names(
    security: &LinuxContainerSecurityContext,
    host: &Host,
) -> Result<Vec<&'static str>, PlanError> {
    let held: Vec<&str> = NAMES.into_iter().filter(|name| host.holds(name)).collect();
    if security.privileged {
        return Ok(held);
    }
    let asked = security.capabilities.clone().unwrap_or_default();
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut wanted: Vec<&str> = if asked.add_capabilities.iter().any(is_all) {
        held.clone()
    } else if asked.drop_capabilities.iter().any(is_all) {
        Vec::new()
    } else {
        DEFAULT.into_iter().filter(|name| held.contains(name)).collect()
    };
    if asked.add_capabilities.iter().any(is_all) && asked.drop_capabilities.iter().any(is_all) {
        wanted.clear();
    }
    for name in asked
        .add_capabilities
        .iter()
        .chain(&asked.add_ambient_capabilities)
        .filter(|name| !is_all(name))
    {
        let name = parse(name)?;
        if !held.contains(&name) {
            return Err(invalid(FIELD, name, "the daemon itself does not hold it"));
        }
        wanted.push(name);
    }
    for name in asked.drop_capabilities.iter().filter(|name| !is_all(name)) {
        let name = parse(name)?;
        wanted.retain(|kept| *kept != name);
    }
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

impl Host {
    /// Whether the daemon holds the capability with this full name.
    fn holds(&self, name: &str) -> bool {
        NAMES
            .iter()
            .position(|known| *known == name)
            .is_some_and(|number| self.capabilities >> number & 1 == 1)
    }
}

/// With and without the prefix, in any case.
fn parse(name: &str) -> Result<&'static str, PlanError> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .into_iter()
        .find(|known| known.strip_prefix("CAP_") == Some(bare))
        .ok_or_else(|| invalid(FIELD, name, "no such capability"))
}

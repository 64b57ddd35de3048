//! `linux.resources.network`: net_cls and net_prio, where those hierarchies are mounted.

use oci_spec::runtime::LinuxNetwork;

use crate::cgroup::SetupError;
use crate::cgroup::setting::Settings;

const PRIORITIES: &str = "linux.resources.network.priorities";

pub(in crate::cgroup) fn v1(network: &LinuxNetwork, settings: &mut Settings) -> Result<(), SetupError> {
    if let Some(class) = network.class_id() {
        settings.set(
            "net_cls",
            "linux.resources.network.classID",
            "net_cls.classid",
            class,
        );
    }
    for priority in network.priorities().iter().flatten() {
        let name = priority.name();
        // The kernel's own rule for interface names (dev_valid_name); a blank would end the name in the file.
        if name.is_empty() || name.len() > 15 || name.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(SetupError::Value {
                field: PRIORITIES,
                value: name.clone(),
                reason: "an interface name",
            });
        }
        settings.set(
            "net_prio",
            PRIORITIES,
            "net_prio.ifpriomap",
            format!("{name} {}", priority.priority()),
        );
    }
    Ok(())
}

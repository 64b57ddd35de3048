//! `linux.resources.pids`.

use oci_spec::runtime::LinuxPids;

use crate::cgroup::setting::Settings;

/// Negative is no limit. 0 is written as 1, as runc does for both of its drivers (systemd has no TasksMax=0): the
/// container's first process exists and can make no other either way.
pub(in crate::cgroup) fn v1(pids: &LinuxPids, settings: &mut Settings) {
    let value = match pids.limit() {
        limit if limit < 0 => "max".to_owned(),
        0 => "1".to_owned(),
        limit => limit.to_string(),
    };
    settings.set("pids", "linux.resources.pids.limit", "pids.max", value);
}

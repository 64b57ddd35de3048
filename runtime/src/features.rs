//! What this runtime can do, as the specification's `features` document (features.md, features-linux.md).

use crate::{identity, plan, seccomp};
use coracle_linux::cgroup::Layout;
use serde_json::{Value, json};

/// The newest version of the runtime specification that configurations may name.
pub const OCI_VERSION: &str = "1.3.0";

/// The document. It says what this version does on this host's architecture; what it only parses is not in it.
#[must_use]
pub fn features() -> Value {
    let rdma = Layout::detect().is_ok_and(|layout| layout.controller("rdma").is_some());
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": plan::MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": identity::known(),
            "cgroup": { "v1": true, "v2": false, "systemd": false, "systemdUser": false, "rdma": rdma },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::supported_architectures(),
                "knownFlags": seccomp::FLAGS,
                "supportedFlags": seccomp::FLAGS,
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "intelRdt": { "enabled": false },
            "memoryPolicy": {},
            "netDevices": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": false } },
        },
        "annotations": { "org.coracle.version": env!("CARGO_PKG_VERSION") },
        "potentiallyUnsafeConfigAnnotations": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_specifications() {
        let features = features();
        let parsed: oci_spec::runtime::Features = serde_json::from_value(features.clone()).unwrap();
        assert_eq!(parsed.oci_version_max(), "1.3.0");
        assert_eq!(features["linux"]["seccomp"]["actions"][0], "SCMP_ACT_ALLOW");
        let options = features["mountOptions"].as_array().unwrap();
        assert!(
            options.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()),
            "sorted"
        );
    }
}

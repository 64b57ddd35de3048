//! The plugins: the names upstream gave them, and what each does for a command. The only list of them.

use crate::failure::Failure;
use crate::{bridge, firewall, host_local, loopback, netns, portmap, tuning};
use coracle_cni_protocol::plugin::Plugin;

/// All plugins.
pub(crate) const PLUGINS: [Plugin<Failure>; 6] = [
    Plugin {
        name: "bridge",
        add: bridge::add,
        del: bridge::del,
        check: bridge::check,
        gc: Some(bridge::gc),
        status: Some(bridge::status),
        is_own_namespace: Some(netns::is_own),
    },
    Plugin {
        name: "host-local",
        add: host_local::add,
        del: host_local::del,
        check: host_local::check,
        gc: Some(host_local::gc),
        status: Some(host_local::status),
        // Addresses are given for any namespace, also by tools that have none.
        is_own_namespace: None,
    },
    Plugin {
        name: "loopback",
        add: loopback::add,
        del: loopback::del,
        check: loopback::check,
        gc: None,
        status: None,
        is_own_namespace: Some(netns::is_own),
    },
    Plugin {
        name: "portmap",
        add: portmap::add,
        del: portmap::del,
        check: portmap::check,
        gc: Some(portmap::gc),
        status: Some(portmap::status),
        is_own_namespace: Some(netns::is_own),
    },
    Plugin {
        name: "firewall",
        add: firewall::add,
        del: firewall::del,
        check: firewall::check,
        gc: Some(firewall::gc),
        status: Some(firewall::status),
        is_own_namespace: Some(netns::is_own),
    },
    Plugin {
        name: "tuning",
        add: tuning::add,
        del: tuning::del,
        check: tuning::check,
        // Backups lie in one directory for all networks and do not name theirs: none can be called stale.
        gc: None,
        status: Some(tuning::status),
        is_own_namespace: Some(netns::is_own),
    },
];

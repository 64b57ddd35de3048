//! Which code of the protocol each failure has. The only place that knows.

use crate::{bridge, firewall, host_local, ipam, netns, portmap, record, rules, sysctl, tuning};
use coracle_cni_protocol::{Code, ConfigError, PluginError, ResultError};
use coracle_linux::netlink::NetlinkError;

macro_rules! coded {
    ($($error:ty => $code:expr;)*) => {
        $(impl From<$error> for PluginErrorFrom {
            fn from(error: $error) -> Self {
                let code: fn(&$error) -> Code = $code;
                Self(PluginError::from_error(code(&error), &error))
            }
        })*
    };
}

/// A failure on its way out; `?` makes one of every module's error.
#[derive(Debug)]
pub(crate) struct PluginErrorFrom(pub(crate) PluginError);

impl From<PluginError> for PluginErrorFrom {
    fn from(error: PluginError) -> Self {
        Self(error)
    }
}

/// What a step of a plugin gives.
pub(crate) type Outcome<T> = Result<T, PluginErrorFrom>;

/// A key whose value this plugin does not support.
pub(crate) fn unsupported(key: &str, why: &str) -> PluginErrorFrom {
    PluginErrorFrom(PluginError::new(Code::UNSUPPORTED_FIELD, format!("{key}: {why}")))
}

/// A key whose value makes no sense.
pub(crate) fn invalid(key: &str, why: impl std::fmt::Display) -> PluginErrorFrom {
    PluginErrorFrom(PluginError::new(Code::INVALID_CONFIG, format!("{key}: {why}")))
}

coded! {
    ConfigError => |_| Code::DECODING_FAILURE;
    ResultError => |_| Code::DECODING_FAILURE;
    NetlinkError => |_| Code::INTERNAL;
    sysctl::SysctlError => |_| Code::IO_FAILURE;
    record::RecordError => |_| Code::IO_FAILURE;
    netns::NetnsError => |_| Code::INVALID_NETNS;
    rules::RulesError => |_| Code::INTERNAL;
    ipam::IpamError => |error| error.code();
    host_local::RangeError => |_| Code::INVALID_CONFIG;
    host_local::StoreError => |_| Code::IO_FAILURE;
    host_local::AllocateError => |_| Code::INTERNAL;
    bridge::BridgeError => |_| Code::INTERNAL;
    portmap::PortmapError => |error| error.code();
    firewall::FirewallError => |error| error.code();
    tuning::TuningError => |error| error.code();
}

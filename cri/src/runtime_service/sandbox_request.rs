//! What a request for a pod has to look like; every error names the field.

use std::net::IpAddr;

use coracle_cri_api::runtime_v1::{NamespaceMode, PodSandboxConfig, PortMapping, Protocol};

use super::Failure;
use crate::spec;

/// Linux' HOST_NAME_MAX (gethostname(2)).
const LONGEST_HOSTNAME: usize = 64;

/// Looks at every field; nothing is touched before all of them are right.
pub(super) fn check(config: &PodSandboxConfig, runtime_handler: &str) -> Result<(), Failure> {
    let missing = |field| Failure::Missing { field };
    let metadata = config
        .metadata
        .as_ref()
        .ok_or_else(|| missing("config.metadata"))?;
    if metadata.name.is_empty() {
        return Err(missing("config.metadata.name"));
    }
    if !super::status::HANDLERS.contains(&runtime_handler) {
        return Err(invalid(
            "runtime_handler",
            runtime_handler,
            "no such runtime handler",
        ));
    }
    if !config.log_directory.is_empty() && !config.log_directory.starts_with('/') {
        return Err(invalid(
            "config.log_directory",
            &config.log_directory,
            "not an absolute path",
        ));
    }
    check_hostname(&config.hostname)?;
    check_dns(config)?;
    for (index, port) in config.port_mappings.iter().enumerate() {
        check_port(index, port)?;
    }
    check_cgroup_parent(config)?;
    check_namespaces(config)
}

fn check_hostname(name: &str) -> Result<(), Failure> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if name.len() > LONGEST_HOSTNAME || !name.chars().all(allowed) {
        return Err(invalid(
            "config.hostname",
            name,
            "not a host name of at most 64 characters",
        ));
    }
    Ok(())
}

/// Each becomes a word of resolv.conf: a line break in one would be another line of it.
fn check_dns(config: &PodSandboxConfig) -> Result<(), Failure> {
    let Some(dns) = &config.dns_config else {
        return Ok(());
    };
    let mut words = dns.servers.iter().chain(&dns.searches).chain(&dns.options);
    match words.find(|word| word.is_empty() || word.contains(char::is_whitespace)) {
        Some(word) => Err(invalid("config.dns_config", word, "not one word")),
        None => Ok(()),
    }
}

/// A host port of 0 means none.
fn check_port(index: usize, port: &PortMapping) -> Result<(), Failure> {
    let refuse = |name, value: &str, wants| Failure::InvalidEntry {
        field: format!("config.port_mappings[{index}].{name}"),
        value: value.to_owned(),
        wants,
    };
    let in_range = |number: i32| (0..=65535).contains(&number);
    if !in_range(port.host_port) {
        return Err(refuse("host_port", &port.host_port.to_string(), "not a port"));
    }
    let published_nothing = port.host_port > 0 && port.container_port == 0;
    if !in_range(port.container_port) || published_nothing {
        return Err(refuse(
            "container_port",
            &port.container_port.to_string(),
            "not a port",
        ));
    }
    if Protocol::try_from(port.protocol).is_err() {
        return Err(refuse("protocol", &port.protocol.to_string(), "no such protocol"));
    }
    if !port.host_ip.is_empty() && port.host_ip.parse::<IpAddr>().is_err() {
        return Err(refuse("host_ip", &port.host_ip, "not an address"));
    }
    Ok(())
}

fn check_cgroup_parent(config: &PodSandboxConfig) -> Result<(), Failure> {
    let parent = config
        .linux
        .as_ref()
        .map_or("", |linux| linux.cgroup_parent.as_str());
    if parent.split('/').any(|part| part == "..") {
        return Err(invalid(
            "config.linux.cgroup_parent",
            parent,
            "leads out of itself",
        ));
    }
    Ok(())
}

fn check_namespaces(config: &PodSandboxConfig) -> Result<(), Failure> {
    let options = spec::namespace_options(config);
    spec::check_user_namespace(&options)?;
    let modes = [
        (
            "config.linux.security_context.namespace_options.network",
            options.network,
            false,
        ),
        (
            "config.linux.security_context.namespace_options.pid",
            options.pid,
            true,
        ),
        (
            "config.linux.security_context.namespace_options.ipc",
            options.ipc,
            false,
        ),
    ];
    for (field, mode, container_allowed) in modes {
        match NamespaceMode::try_from(mode) {
            Ok(NamespaceMode::Pod | NamespaceMode::Node) => {}
            Ok(NamespaceMode::Container) if container_allowed => {}
            Ok(other) => {
                let value = other.as_str_name().to_owned();
                return Err(Failure::Invalid {
                    field,
                    value,
                    wants: "not a mode of a sandbox",
                });
            }
            Err(_) => {
                return Err(Failure::Invalid {
                    field,
                    value: mode.to_string(),
                    wants: "no such mode",
                });
            }
        }
    }
    Ok(())
}

fn invalid(field: &'static str, value: &str, wants: &'static str) -> Failure {
    Failure::Invalid {
        field,
        value: value.to_owned(),
        wants,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_cri_api::runtime_v1::{
        DnsConfig, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, PodSandboxMetadata,
    };

    fn simple() -> PodSandboxConfig {
        let metadata = PodSandboxMetadata {
            name: "a".to_owned(),
            ..PodSandboxMetadata::default()
        };
        PodSandboxConfig {
            metadata: Some(metadata),
            ..PodSandboxConfig::default()
        }
    }

    fn linux(linux: LinuxPodSandboxConfig) -> PodSandboxConfig {
        PodSandboxConfig {
            linux: Some(linux),
            ..simple()
        }
    }

    fn namespaces(options: NamespaceOption) -> PodSandboxConfig {
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(options),
            ..LinuxSandboxSecurityContext::default()
        };
        linux(LinuxPodSandboxConfig {
            security_context: Some(security),
            ..LinuxPodSandboxConfig::default()
        })
    }

    fn port(container_port: i32, host_port: i32) -> PodSandboxConfig {
        let mapping = PortMapping {
            container_port,
            host_port,
            ..PortMapping::default()
        };
        PodSandboxConfig {
            port_mappings: vec![mapping],
            ..simple()
        }
    }

    fn with_port(change: impl FnOnce(&mut PortMapping)) -> PodSandboxConfig {
        let mut config = port(80, 8080);
        change(&mut config.port_mappings[0]);
        config
    }

    fn dns(server: &str) -> PodSandboxConfig {
        let dns = DnsConfig {
            servers: vec![server.to_owned()],
            ..DnsConfig::default()
        };
        PodSandboxConfig {
            dns_config: Some(dns),
            ..simple()
        }
    }

    #[test]
    fn what_is_right_passes() {
        for config in [simple(), port(80, 8080), port(80, 0), dns("10.0.0.1")] {
            check(&config, "").unwrap();
        }
        check(&simple(), "coracle").unwrap();
        for ip in ["127.0.0.1", "::1", "0.0.0.0"] {
            check(&with_port(|port| port.host_ip = ip.to_owned()), "").unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        let target = NamespaceMode::Target.into();
        let container = NamespaceMode::Container.into();
        let cases = [
            (PodSandboxConfig::default(), "config.metadata"),
            (
                PodSandboxConfig {
                    hostname: "a b".to_owned(),
                    ..simple()
                },
                "config.hostname",
            ),
            (
                PodSandboxConfig {
                    hostname: "a".repeat(65),
                    ..simple()
                },
                "config.hostname",
            ),
            (
                PodSandboxConfig {
                    log_directory: "logs".to_owned(),
                    ..simple()
                },
                "config.log_directory",
            ),
            (port(0, 80), "config.port_mappings[0].container_port"),
            (port(70000, 0), "config.port_mappings[0].container_port"),
            (port(80, -1), "config.port_mappings[0].host_port"),
            (
                with_port(|port| port.protocol = 9),
                "config.port_mappings[0].protocol",
            ),
            (
                with_port(|port| port.host_ip = "x".to_owned()),
                "config.port_mappings[0].host_ip",
            ),
            (dns("10.0.0.1\noptions x"), "config.dns_config"),
            (dns(""), "config.dns_config"),
            (
                namespaces(NamespaceOption {
                    pid: target,
                    ..NamespaceOption::default()
                }),
                "namespace_options.pid",
            ),
            (
                namespaces(NamespaceOption {
                    ipc: container,
                    ..NamespaceOption::default()
                }),
                "namespace_options.ipc",
            ),
            (
                namespaces(NamespaceOption {
                    network: 9,
                    ..NamespaceOption::default()
                }),
                "namespace_options.network",
            ),
            (
                linux(LinuxPodSandboxConfig {
                    cgroup_parent: "/a/../..".to_owned(),
                    ..LinuxPodSandboxConfig::default()
                }),
                "config.linux.cgroup_parent",
            ),
        ];
        for (config, names) in cases {
            let error = check(&config, "").unwrap_err().to_string();
            assert!(error.contains(names), "{config:?}: {error}");
        }
        assert!(
            check(&simple(), "kata")
                .unwrap_err()
                .to_string()
                .contains("runtime_handler")
        );
    }
}

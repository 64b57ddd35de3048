//! The files below /etc that every container of a pod sees: hosts, hostname, resolv.conf.

use std::io;
use std::path::{Path, PathBuf};

use coracle_cri_api::runtime_v1::{DnsConfig, NamespaceMode, PodSandboxConfig};

use crate::spec;

const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// A file of the pod cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub(crate) struct PodFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Makes the pod's directory with hostname and resolv.conf; hosts comes with the address.
pub(crate) fn write(directory: &Path, config: &PodSandboxConfig, hostname: &str) -> Result<(), PodFileError> {
    std::fs::create_dir_all(directory).map_err(error("create", directory))?;
    write_file(directory, "hostname", &format!("{hostname}\n"))?;
    write_file(
        directory,
        "resolv.conf",
        &resolv_conf(config.dns_config.as_ref())?,
    )?;
    write_hosts(directory, config, hostname, &[])
}

/// Names the pod's addresses. With the host's network, the host's file.
pub(crate) fn write_hosts(
    directory: &Path,
    config: &PodSandboxConfig,
    hostname: &str,
    ips: &[String],
) -> Result<(), PodFileError> {
    let text = if spec::network_mode(config) == NamespaceMode::Node {
        read_or_empty(Path::new("/etc/hosts"))?
    } else {
        let lines = ips.iter().map(|ip| format!("{ip}\t{hostname}\n"));
        LOCALHOST.to_owned() + &lines.collect::<String>()
    };
    write_file(directory, "hosts", &text)
}

/// Without DNS configuration: the host's, as pods with the kubelet's policy "Default" have it.
fn resolv_conf(dns: Option<&DnsConfig>) -> Result<String, PodFileError> {
    let Some(dns) =
        dns.filter(|dns| !(dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()))
    else {
        return read_or_empty(Path::new("/etc/resolv.conf"));
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    text.extend(dns.servers.iter().map(|server| format!("nameserver {server}\n")));
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok(text)
}

fn read_or_empty(path: &Path) -> Result<String, PodFileError> {
    match std::fs::read_to_string(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(error("read", path)),
    }
}

/// Written in place: containers of the pod have the file bound, and a new one would not reach them.
fn write_file(directory: &Path, name: &str, text: &str) -> Result<(), PodFileError> {
    let path = directory.join(name);
    std::fs::write(&path, text).map_err(error("write", &path))
}

fn error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> PodFileError {
    let path = path.to_owned();
    move |source| PodFileError {
        action,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_config_becomes_resolv_conf() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let dns = DnsConfig {
            servers: list(&["10.0.0.1", "fd00::1"]),
            searches: list(&["a.example", "b.example"]),
            options: list(&["ndots:5"]),
        };
        assert_eq!(
            resolv_conf(Some(&dns)).unwrap(),
            "search a.example b.example\nnameserver 10.0.0.1\nnameserver fd00::1\noptions ndots:5\n"
        );
    }

    #[test]
    fn hosts_names_every_address_of_the_pod() {
        let directory = tempfile::tempdir().unwrap();
        let ips = ["10.1.2.3".to_owned(), "fd00::3".to_owned()];
        write_hosts(directory.path(), &PodSandboxConfig::default(), "web", &ips).unwrap();
        let text = std::fs::read_to_string(directory.path().join("hosts")).unwrap();
        assert!(
            text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("10.1.2.3\tweb\nfd00::3\tweb\n")
        );
    }
}

//! Kernel parameters: only those that belong to a namespace of the container's own.

use super::PlanError;
use super::namespaces::NamespacePlan;
use coracle_linux::namespace::Namespaces;
use oci_spec::runtime::Spec;
use std::path::PathBuf;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SysctlPlan {
    /// Path below `/proc/sys`.
    pub(crate) path: PathBuf,
    pub(crate) value: String,
    /// It belongs to the network namespace, which must not be the maker's.
    pub(crate) of_network: bool,
}

pub(super) fn plan(spec: &Spec, namespaces: &NamespacePlan) -> Result<Vec<SysctlPlan>, PlanError> {
    let Some(listed) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) else {
        return Ok(Vec::new());
    };
    let mut plans = Vec::with_capacity(listed.len());
    for (key, value) in listed {
        plans.push(one(spec, key, value, namespaces)?);
    }
    // In a fixed order, which the map does not have, so that errors and traces are always the same.
    plans.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(plans)
}

fn one(spec: &Spec, key: &str, value: &str, namespaces: &NamespacePlan) -> Result<SysctlPlan, PlanError> {
    let field = || format!("linux.sysctl[{key:?}]");
    let path = path_of(key);
    let well_formed = path
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    if !well_formed || value.contains('\0') {
        return Err(PlanError::invalid(field(), value, "is not a kernel parameter"));
    }
    let (kind, name) = match namespace_of(&path) {
        Some(Owner::Namespace(kind, name)) => (kind, name),
        Some(Owner::Spec(other)) if other == "hostname" && spec.hostname().is_some() => {
            return Err(PlanError::invalid(
                field(),
                value,
                "conflicts with the field hostname",
            ));
        }
        Some(Owner::Spec(other)) if other == "domainname" && spec.domainname().is_some() => {
            return Err(PlanError::invalid(
                field(),
                value,
                "conflicts with the field domainname",
            ));
        }
        Some(Owner::Spec(_)) => (Namespaces::UTS, "uts"),
        None => {
            return Err(PlanError::invalid(
                field(),
                value,
                "belongs to no namespace: it would change the host",
            ));
        }
    };
    if !namespaces.has(kind) {
        return Err(PlanError::SysctlNeedsNamespace {
            key: key.to_owned(),
            namespace: name,
        });
    }
    Ok(SysctlPlan {
        path: PathBuf::from(path),
        value: value.to_owned(),
        of_network: kind == Namespaces::NET,
    })
}

enum Owner {
    Namespace(Namespaces, &'static str),
    Spec(&'static str),
}

fn namespace_of(path: &str) -> Option<Owner> {
    const IPC: &[&str] = &[
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    let top = path.split('/').next().unwrap_or_default();
    Some(match (path, top) {
        ("kernel/hostname", _) => Owner::Spec("hostname"),
        ("kernel/domainname", _) => Owner::Spec("domainname"),
        (_, "net") => Owner::Namespace(Namespaces::NET, "network"),
        (_, "user") => Owner::Namespace(Namespaces::USER, "user"),
        _ if IPC.contains(&path) || path.starts_with("fs/mqueue/") => {
            Owner::Namespace(Namespaces::IPC, "ipc")
        }
        _ => return None,
    })
}

/// Names are written `a.b.c` or `a/b/c`; whichever separator comes first is the separator, and the other one stands
/// for itself (`net/ipv4/conf/eth0.1/forwarding`; sysctl(8)).
fn path_of(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(first) if key.as_bytes().get(first) == Some(&b'.') => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_separators_are_understood() {
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
        assert_eq!(
            path_of("net/ipv4/conf/eth0.1/forwarding"),
            "net/ipv4/conf/eth0.1/forwarding"
        );
    }
}

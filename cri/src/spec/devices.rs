//! Device nodes and the rules that let the container use them.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use coracle_cri_api::runtime_v1::ContainerConfig;
use serde_json::{Value, json};

use super::{Host, PlanError, invalid};

/// Devices that every container may use: (major, minor); None: all minors. The runtime makes the nodes.
const ALWAYS: [(u32, Option<u32>); 8] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(2)), // ptmx
    (136, None),  // pts
];

/// Below /dev, but not the host's to give: they are file systems or names of the container's own.
const OWN: [&str; 6] = ["pts", "shm", "mqueue", "fd", "console", "ptmx"];

/// What goes into the spec.
pub(super) struct Devices {
    pub(super) nodes: Vec<Value>,
    pub(super) rules: Vec<Value>,
}

pub(super) fn plan(config: &ContainerConfig, privileged: bool, _host: &Host) -> Result<Devices, PlanError> {
    if privileged {
        let nodes = walk(Path::new("/dev"), Path::new("/dev"), 0)
            .into_iter()
            .map(|found| found.node())
            .collect();
        return Ok(Devices {
            nodes,
            rules: vec![json!({ "allow": true, "access": "rwm" })],
        });
    }
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    for kind in ["c", "b"] {
        rules.push(json!({ "allow": true, "type": kind, "access": "m" }));
    }
    for (major, minor) in ALWAYS {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        super::set(&mut rule, "minor", minor.map(Value::from));
        rules.push(rule);
    }
    let mut nodes = Vec::new();
    for (index, device) in config.devices.iter().enumerate() {
        let field = |name: &str| format!("config.devices[{index}].{name}");
        if !device.container_path.starts_with('/') {
            return Err(invalid(
                &field("container_path"),
                &device.container_path,
                "not an absolute path",
            ));
        }
        let access = if device.permissions.is_empty() {
            "rwm"
        } else {
            device.permissions.as_str()
        };
        if !access.chars().all(|letter| "rwm".contains(letter)) {
            return Err(invalid(&field("permissions"), access, "a subset of \"rwm\""));
        }
        let found = find(Path::new(&device.host_path), Path::new(&device.container_path));
        if found.is_empty() {
            return Err(invalid(
                &field("host_path"),
                &device.host_path,
                "neither a device nor a directory of devices",
            ));
        }
        for found in found {
            nodes.push(found.node());
            rules.push(found.rule(access));
        }
    }
    Ok(Devices { nodes, rules })
}

struct Found {
    path: PathBuf,
    metadata: Metadata,
}

impl Found {
    fn kind(&self) -> &'static str {
        if self.metadata.file_type().is_block_device() {
            "b"
        } else {
            "c"
        }
    }

    fn node(&self) -> Value {
        json!({
            "path": self.path,
            "type": self.kind(),
            "major": rustix::fs::major(self.metadata.rdev()),
            "minor": rustix::fs::minor(self.metadata.rdev()),
            "fileMode": self.metadata.mode() & 0o7777,
            "uid": self.metadata.uid(),
            "gid": self.metadata.gid(),
        })
    }

    fn rule(&self, access: &str) -> Value {
        json!({
            "allow": true,
            "type": self.kind(),
            "major": rustix::fs::major(self.metadata.rdev()),
            "minor": rustix::fs::minor(self.metadata.rdev()),
            "access": access,
        })
    }
}

/// The device, through symlinks, or all devices of a directory.
fn find(host: &Path, container: &Path) -> Vec<Found> {
    match std::fs::metadata(host) {
        Ok(metadata) if is_device(&metadata) => vec![Found {
            path: container.to_owned(),
            metadata,
        }],
        Ok(metadata) if metadata.is_dir() => walk(host, container, 0),
        _ => Vec::new(),
    }
}

/// All devices below a directory; symlinks in it are not followed.
fn walk(host: &Path, container: &Path, depth: usize) -> Vec<Found> {
    // Deeper than any /dev: a loop of bind mounts.
    if depth > 16 {
        return Vec::new();
    }
    let entries = std::fs::read_dir(host).into_iter().flatten().flatten();
    let named = entries.filter(|entry| !(depth == 0 && OWN.iter().any(|own| entry.file_name() == *own)));
    named
        .flat_map(|entry| match entry.metadata() {
            Ok(metadata) if is_device(&metadata) => {
                vec![Found {
                    path: container.join(entry.file_name()),
                    metadata,
                }]
            }
            Ok(metadata) if metadata.is_dir() => {
                walk(&entry.path(), &container.join(entry.file_name()), depth + 1)
            }
            _ => Vec::new(),
        })
        .collect()
}

fn is_device(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() || metadata.file_type().is_block_device()
}

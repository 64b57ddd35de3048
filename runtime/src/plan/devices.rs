//! Device nodes of a container.

use super::PlanError;
use super::mounts::clean;
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use std::path::PathBuf;

/// One device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    /// Where it goes, absolute in the container.
    pub(crate) path: PathBuf,
    pub(crate) kind: DeviceKind,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Character,
    Block,
    Fifo,
}

/// The defaults of the specification (config-linux.md, "Default Devices"), then what is listed; a listed one replaces
/// the default of its name.
pub(super) fn plan(linux: &Linux) -> Result<Vec<DevicePlan>, PlanError> {
    let listed = linux.devices().as_deref().unwrap_or_default();
    let listed = listed
        .iter()
        .enumerate()
        .map(|(index, device)| from_spec(index, device));
    let listed = listed.collect::<Result<Vec<_>, _>>()?;
    let defaults = DEFAULTS
        .iter()
        .map(|&(name, major, minor)| default_device(name, major, minor));
    let mut devices: Vec<_> = defaults
        .filter(|d| listed.iter().all(|l| l.path != d.path))
        .collect();
    devices.extend(listed);
    Ok(devices)
}

fn from_spec(index: usize, device: &LinuxDevice) -> Result<DevicePlan, PlanError> {
    let field = |name: &str| format!("linux.devices[{index}].{name}");
    if !device.path().is_absolute() {
        return Err(PlanError::invalid(
            field("path"),
            device.path().display(),
            "is not an absolute path",
        ));
    }
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => {
            return Err(PlanError::invalid(
                field("type"),
                "a",
                "is not a kind of device node",
            ));
        }
    };
    // The kernel's dev_t has 12 bits of major and 20 of minor.
    let number = |name: &str, value: i64, bits: u32| match u32::try_from(value) {
        Ok(number) if number < 1 << bits => Ok(number),
        _ if kind == DeviceKind::Fifo => Ok(0),
        _ => Err(PlanError::invalid(field(name), value, "is not a device number")),
    };
    let mode = device.file_mode().unwrap_or(0o666);
    if mode > 0o7777 && mode & 0o170_000 == 0 {
        return Err(PlanError::invalid(
            field("fileMode"),
            format!("{mode:o}"),
            "holds more than permission bits",
        ));
    }
    // (uid_t)-1 means "leave it as it is" to chown(2).
    let owner = |name: &str, id: Option<u32>| match id {
        Some(u32::MAX) => Err(PlanError::invalid(field(name), u32::MAX, "is not an id")),
        id => Ok(id.unwrap_or(0)),
    };
    Ok(DevicePlan {
        path: clean(device.path()),
        kind,
        major: number("major", device.major(), 12)?,
        minor: number("minor", device.minor(), 20)?,
        mode: mode & 0o7777,
        uid: owner("uid", device.uid())?,
        gid: owner("gid", device.gid())?,
    })
}

fn default_device(name: &str, major: u32, minor: u32) -> DevicePlan {
    let path = PathBuf::from(format!("/dev/{name}"));
    DevicePlan {
        path,
        kind: DeviceKind::Character,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }
}

const DEFAULTS: &[(&str, u32, u32)] = &[
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

//! `linux.resources.blockIO`. Weights need a scheduler that has them: BFQ's files are tried after the generic ones.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use crate::cgroup::SetupError;
use crate::cgroup::setting::{Setting, Settings, Step};

const WEIGHT: &str = "linux.resources.blockIO.weight";
const LEAF_WEIGHT: &str = "linux.resources.blockIO.leafWeight";
const WEIGHT_DEVICE: &str = "linux.resources.blockIO.weightDevice";

pub(in crate::cgroup) fn v1(block_io: &LinuxBlockIo, settings: &mut Settings) -> Result<(), SetupError> {
    weights(block_io, settings)?;
    device_weights(block_io, settings)?;
    for (devices, field, file) in [
        (
            block_io.throttle_read_bps_device(),
            "linux.resources.blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
        ),
        (
            block_io.throttle_write_bps_device(),
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
        ),
        (
            block_io.throttle_read_iops_device(),
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
        ),
        (
            block_io.throttle_write_iops_device(),
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
        ),
    ] {
        throttle(devices.as_deref().unwrap_or_default(), field, file, settings)?;
    }
    Ok(())
}

fn weights(block_io: &LinuxBlockIo, settings: &mut Settings) -> Result<(), SetupError> {
    if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
        check_weight(WEIGHT, weight)?;
        settings
            .steps
            .push(weight_setting(WEIGHT, "weight", weight.to_string()));
    }
    if let Some(weight) = block_io.leaf_weight().filter(|weight| *weight != 0) {
        check_weight(LEAF_WEIGHT, weight)?;
        settings.set("blkio", LEAF_WEIGHT, "blkio.leaf_weight", weight);
    }
    Ok(())
}

fn device_weights(block_io: &LinuxBlockIo, settings: &mut Settings) -> Result<(), SetupError> {
    for device in block_io.weight_device().iter().flatten() {
        let number = device_number(WEIGHT_DEVICE, device.major(), device.minor())?;
        if let Some(weight) = device.weight() {
            check_weight(WEIGHT_DEVICE, weight)?;
            let value = format!("{number} {weight}");
            settings
                .steps
                .push(weight_setting(WEIGHT_DEVICE, "weight_device", value));
        }
        if let Some(weight) = device.leaf_weight() {
            check_weight(WEIGHT_DEVICE, weight)?;
            let value = format!("{number} {weight}");
            settings.set("blkio", WEIGHT_DEVICE, "blkio.leaf_weight_device", value);
        }
    }
    Ok(())
}

fn weight_setting(field: &'static str, file: &str, value: String) -> Step {
    Step::Set(Setting::new("blkio", field, &format!("blkio.{file}"), value).or(&format!("blkio.bfq.{file}")))
}

fn throttle(
    devices: &[LinuxThrottleDevice],
    field: &'static str,
    file: &str,
    settings: &mut Settings,
) -> Result<(), SetupError> {
    for device in devices {
        let number = device_number(field, device.major(), device.minor())?;
        settings.set("blkio", field, file, format!("{number} {}", device.rate()));
    }
    Ok(())
}

fn device_number(field: &'static str, major: i64, minor: i64) -> Result<String, SetupError> {
    let number = format!("{major}:{minor}");
    if major < 0 || minor < 0 {
        return Err(SetupError::Value {
            field,
            value: number,
            reason: "a device number",
        });
    }
    Ok(number)
}

fn check_weight(field: &'static str, weight: u16) -> Result<(), SetupError> {
    if (10..=1000).contains(&weight) {
        return Ok(());
    }
    Err(SetupError::Value {
        field,
        value: weight.to_string(),
        reason: "10 to 1000",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttles_name_device_and_rate() {
        let json = r#"{"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}], "weight": 500}"#;
        let mut settings = Settings::default();
        v1(&serde_json::from_str(json).unwrap(), &mut settings).unwrap();
        let Step::Set(weight) = &settings.steps[0] else {
            panic!()
        };
        assert_eq!(weight.files, ["blkio.weight", "blkio.bfq.weight"]);
        let Step::Set(read) = &settings.steps[1] else {
            panic!()
        };
        assert_eq!(
            (read.files[0].as_str(), read.value.as_str()),
            ("blkio.throttle.read_bps_device", "8:0 600")
        );
    }

    #[test]
    fn weights_and_numbers_are_checked() {
        for json in [
            r#"{"weight": 5}"#,
            r#"{"leafWeight": 1001}"#,
            r#"{"weightDevice": [{"major": -1, "weight": 10}]}"#,
        ] {
            let refused = v1(&serde_json::from_str(json).unwrap(), &mut Settings::default());
            assert!(
                refused
                    .unwrap_err()
                    .to_string()
                    .contains("linux.resources.blockIO"),
                "{json}"
            );
        }
    }
}

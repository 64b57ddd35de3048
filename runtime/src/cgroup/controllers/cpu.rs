//! `linux.resources.cpu` without the cpuset part.

use oci_spec::runtime::LinuxCpu;

use crate::cgroup::SetupError;
use crate::cgroup::setting::{Setting, Settings, Step};

pub(in crate::cgroup) fn v1(cpu: &LinuxCpu, settings: &mut Settings) -> Result<(), SetupError> {
    // cpu.idle goes first: shares cannot be written while it is 1, and setting it resets them.
    if let Some(idle) = cpu.idle() {
        let field = "linux.resources.cpu.idle";
        if !(0..=1).contains(&idle) {
            return Err(SetupError::Value {
                field,
                value: idle.to_string(),
                reason: "0 or 1",
            });
        }
        settings.set("cpu", field, "cpu.idle", idle);
    }
    if let Some(shares) = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle() != Some(1))
    {
        settings.set("cpu", "linux.resources.cpu.shares", "cpu.shares", shares);
    }
    plan_bandwidth(cpu, settings)?;
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        settings.set(
            "cpu",
            "linux.resources.cpu.realtimePeriod",
            "cpu.rt_period_us",
            period,
        );
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        settings.set(
            "cpu",
            "linux.resources.cpu.realtimeRuntime",
            "cpu.rt_runtime_us",
            runtime,
        );
    }
    Ok(())
}

fn plan_bandwidth(cpu: &LinuxCpu, settings: &mut Settings) -> Result<(), SetupError> {
    let quota = cpu.quota().filter(|quota| *quota != 0);
    if let Some(quota) = quota.filter(|quota| *quota < -1) {
        let reason = "microseconds, or -1";
        return Err(SetupError::Value {
            field: "linux.resources.cpu.quota",
            value: quota.to_string(),
            reason,
        });
    }
    let period = cpu.period().filter(|period| *period != 0);
    let quota =
        quota.map(|quota| Setting::new("cpu", "linux.resources.cpu.quota", "cpu.cfs_quota_us", quota));
    let period =
        period.map(|period| Setting::new("cpu", "linux.resources.cpu.period", "cpu.cfs_period_us", period));
    match (period, quota) {
        // The parent's ratio of quota to period bounds both; which one may go first depends on the old values.
        (Some(period), Some(quota)) => settings.steps.push(Step::Both(period, quota)),
        (one, other) => settings.steps.extend(one.or(other).map(Step::Set)),
    }
    if let Some(burst) = cpu.burst() {
        settings.set("cpu", "linux.resources.cpu.burst", "cpu.cfs_burst_us", burst);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_means_untouched_and_bad_values_are_named() {
        let mut settings = Settings::default();
        v1(
            &serde_json::from_str(r#"{"shares": 0, "quota": 0, "period": 0}"#).unwrap(),
            &mut settings,
        )
        .unwrap();
        assert_eq!(settings.steps, []);
        for (json, text) in [
            (r#"{"quota": -5}"#, "cpu.quota: -5"),
            (r#"{"idle": 2}"#, "cpu.idle: 2"),
        ] {
            let error = v1(&serde_json::from_str(json).unwrap(), &mut settings).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

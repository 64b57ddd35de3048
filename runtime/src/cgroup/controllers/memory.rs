//! `linux.resources.memory`. `swap` is memory and swap together, as the v1 files have it.

use oci_spec::runtime::LinuxMemory;

use crate::cgroup::SetupError;
use crate::cgroup::setting::{IfMissing, Setting, Settings, Step};

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";

pub(in crate::cgroup) fn v1(memory: &LinuxMemory, settings: &mut Settings) -> Result<(), SetupError> {
    plan_limit_and_swap(memory, settings)?;
    if let Some(reservation) = memory.reservation() {
        let field = "linux.resources.memory.reservation";
        check(field, reservation)?;
        settings.set("memory", field, "memory.soft_limit_in_bytes", reservation);
    }
    if let Some(swappiness) = memory.swappiness() {
        let field = "linux.resources.memory.swappiness";
        if swappiness > 100 {
            return Err(SetupError::Value {
                field,
                value: swappiness.to_string(),
                reason: "0 to 100",
            });
        }
        settings.set("memory", field, "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.set(
            "memory",
            "linux.resources.memory.disableOOMKiller",
            "memory.oom_control",
            1,
        );
    }
    if let Some(tcp) = memory.kernel_tcp() {
        let field = "linux.resources.memory.kernelTCP";
        check(field, tcp)?;
        settings.set("memory", field, "memory.kmem.tcp.limit_in_bytes", tcp);
    }
    if memory.kernel().is_some() {
        // The specification lets runtimes ignore it; kernels have since 5.16 (memory.kmem.limit_in_bytes is inert).
        settings
            .warnings
            .push("linux.resources.memory.kernel: ignored, the kernel no longer has this limit".into());
    }
    if memory.use_hierarchy() == Some(false) {
        settings
            .warnings
            .push("linux.resources.memory.useHierarchy: ignored, memory cgroups are hierarchical".into());
    }
    Ok(())
}

fn plan_limit_and_swap(memory: &LinuxMemory, settings: &mut Settings) -> Result<(), SetupError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    // Without a limit there is nothing swap could add to: lifting one lifts both.
    let swap = memory
        .swap()
        .filter(|swap| *swap != 0)
        .or_else(|| limit.filter(|limit| *limit == -1));
    if let Some(limit) = limit {
        check(LIMIT, limit)?;
    }
    if let Some(swap) = swap {
        check(SWAP, swap)?;
    }
    if let (Some(limit), Some(swap)) = (limit, swap)
        && swap != -1
        && (limit == -1 || swap < limit)
    {
        let reason = "memory and swap together cannot be less than linux.resources.memory.limit";
        return Err(SetupError::Value {
            field: SWAP,
            value: swap.to_string(),
            reason,
        });
    }
    let limit_file = limit.map(|limit| Setting::new("memory", LIMIT, "memory.limit_in_bytes", limit));
    let swap_file = swap.map(|value| {
        let setting = Setting::new("memory", SWAP, "memory.memsw.limit_in_bytes", value);
        // Without swap accounting: "unlimited" is what there is, and "no swap at all" (swap equal to the limit) is
        // what the kubelet asks for everywhere, so that refusing it would mean refusing every pod.
        let harmless = value == -1 || Some(value) == limit;
        Setting {
            if_missing: if harmless {
                IfMissing::Warn
            } else {
                IfMissing::Fail
            },
            ..setting
        }
    });
    match (limit_file, swap_file) {
        // The kernel keeps limit <= memsw at every moment, so the order depends on the old values.
        (Some(limit), Some(swap)) => settings.steps.push(Step::Both(limit, swap)),
        (one, other) => settings.steps.extend(one.or(other).map(Step::Set)),
    }
    Ok(())
}

fn check(field: &'static str, value: i64) -> Result<(), SetupError> {
    if value < -1 {
        return Err(SetupError::Value {
            field,
            value: value.to_string(),
            reason: "a number of bytes, or -1",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Vec<String>, String> {
        let mut settings = Settings::default();
        v1(&serde_json::from_str(json).unwrap(), &mut settings).map_err(|error| error.to_string())?;
        let show = |setting: &Setting| format!("{}={}", setting.files[0], setting.value);
        let steps = settings.steps.iter().map(|step| match step {
            Step::Set(one) => show(one),
            Step::Both(one, other) => format!("{} {}", show(one), show(other)),
        });
        Ok(steps.collect())
    }

    #[test]
    fn limits_become_files() {
        assert_eq!(
            planned(r#"{"limit": 1000}"#).unwrap(),
            ["memory.limit_in_bytes=1000"]
        );
        assert_eq!(
            planned(r#"{"limit": 1000, "swap": 2000}"#).unwrap(),
            ["memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=2000"]
        );
        assert_eq!(
            planned(r#"{"limit": -1}"#).unwrap(),
            ["memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1"]
        );
        assert_eq!(
            planned(r#"{"reservation": 5, "swappiness": 60, "disableOOMKiller": true}"#).unwrap(),
            [
                "memory.soft_limit_in_bytes=5",
                "memory.swappiness=60",
                "memory.oom_control=1"
            ]
        );
        assert_eq!(
            planned(r#"{"limit": 0, "swap": 0, "disableOOMKiller": false}"#).unwrap(),
            [""; 0]
        );
    }

    #[test]
    fn impossible_limits_are_refused_by_field() {
        assert!(
            planned(r#"{"limit": -2}"#)
                .unwrap_err()
                .contains("memory.limit: -2")
        );
        assert!(
            planned(r#"{"limit": 10, "swap": 9}"#)
                .unwrap_err()
                .contains("memory.swap: 9")
        );
        assert!(
            planned(r#"{"limit": -1, "swap": 9}"#)
                .unwrap_err()
                .contains("memory.swap: 9")
        );
        assert!(
            planned(r#"{"swappiness": 101}"#)
                .unwrap_err()
                .contains("memory.swappiness: 101")
        );
    }
}

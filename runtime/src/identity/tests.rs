use super::capabilities::by_name;
use super::*;
use serde_json::json;

fn planned(extra: serde_json::Value) -> Result<IdentityPlan, String> {
    let mut process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}});
    process
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    plan(&serde_json::from_value(process).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn bad_values_are_refused_by_field() {
    for (extra, field) in [
        (json!({"user": {"uid": u32::MAX, "gid": 0}}), "process.user.uid"),
        (json!({"user": {"uid": 0, "gid": u32::MAX}}), "process.user.gid"),
        (
            json!({"user": {"uid": 0, "gid": 0, "additionalGids": [u32::MAX]}}),
            "process.user.additionalGids",
        ),
        (
            json!({"user": {"uid": 0, "gid": 0, "umask": 0o1000}}),
            "process.user.umask",
        ),
        (json!({"oomScoreAdj": 1001}), "process.oomScoreAdj"),
        (
            json!({"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}),
            "RLIMIT_CPU soft 2, hard 1",
        ),
        (
            json!({"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]}),
            "RLIMIT_CPU: given twice",
        ),
        (
            json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
            "process.ioPriority",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_FIFO", "priority": 0}}),
            "process.scheduler",
        ),
        (
            json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}),
            "process.scheduler",
        ),
    ] {
        let text = planned(extra).unwrap_err();
        assert!(text.contains(field), "{text}");
    }
}

#[test]
fn no_capabilities_field_means_none() {
    let plan = planned(json!({})).unwrap();
    assert!(plan.capabilities.bounding.is_empty() && plan.capabilities.permitted.is_empty());
    let plan = planned(json!({"capabilities": {"effective": ["CAP_KILL", "CAP_BPF"]}})).unwrap();
    let expected = by_name("CAP_KILL").unwrap() | by_name("bpf").unwrap();
    assert_eq!(plan.capabilities.effective, expected);
}

#[test]
fn all_41_capabilities_have_names() {
    let known = known();
    assert_eq!(known.len(), 41);
    assert_eq!(
        (known[0].as_str(), known[40].as_str()),
        ("CAP_CHOWN", "CAP_CHECKPOINT_RESTORE")
    );
}

//! Identity of a container's process: user, groups, capabilities, limits.

use coracle_tests::bundle::Bundle;
use coracle_tests::program::coracle;
use serde_json::{Value, json};

const STATUS: &str = "cat /proc/self/status; umask; id";

fn bundle(process: Value) -> Bundle {
    let mut bundle = Bundle::of_spec_command(STATUS);
    let fields = bundle.spec["process"].as_object_mut().unwrap();
    fields.extend(process.as_object().unwrap().clone());
    bundle
}

#[test]
fn sets_are_exactly_those_of_the_configuration() {
    let names = json!(["CAP_KILL", "CAP_CHOWN"]);
    let sets = json!({"bounding": names, "effective": names, "permitted": names, "inheritable": names, "ambient": names});
    let said = bundle(json!({"capabilities": sets})).call(&["run"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(said.field(set), "0000000000000021", "{set}");
    }
}

#[test]
fn without_capabilities_there_are_none() {
    let mut bundle = bundle(json!({}));
    bundle.spec["process"]
        .as_object_mut()
        .unwrap()
        .remove("capabilities");
    let said = bundle.call(&["run"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(said.field(set), "0000000000000000", "{set}");
    }
}

#[test]
fn an_ambient_set_survives_the_change_of_user() {
    let names = json!(["CAP_NET_BIND_SERVICE"]);
    let sets = json!({"bounding": names, "effective": names, "permitted": names, "inheritable": names, "ambient": names});
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 63});
    let said = bundle(json!({"capabilities": sets, "user": user})).call(&["run"]);
    assert_eq!(said.field("CapEff"), "0000000000000400");
    assert_eq!(
        said.field("Uid").split_whitespace().collect::<Vec<_>>(),
        ["1000"; 4]
    );
    assert_eq!(
        said.field("Gid").split_whitespace().collect::<Vec<_>>(),
        ["1001"; 4]
    );
    assert_eq!(said.field("Groups"), "7 8");
    assert!(said.out.contains("0077"), "{said:?}");
}

#[test]
fn groups_of_the_caller_are_not_kept() {
    let said = bundle(json!({"user": {"uid": 5, "gid": 6}})).call(&["run"]);
    assert_eq!(said.field("Groups"), "");
    assert!(said.out.contains("0022"), "the usual umask: {said:?}");
}

#[test]
fn capabilities_nobody_knows_are_left_out_with_a_warning() {
    let sets = json!({"bounding": ["CAP_KILL", "CAP_TIME_TRAVEL"]});
    let said = bundle(json!({"capabilities": sets})).call(&["run"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("CAP_TIME_TRAVEL"), "{said:?}");
    assert_eq!(said.field("CapBnd"), "0000000000000020");
}

#[test]
fn sets_are_cut_to_what_the_runtime_holds() {
    let mut all: Vec<String> = Vec::new();
    let features = coracle().arg("features").output().unwrap();
    let features: Value = serde_json::from_slice(&features.stdout).unwrap();
    all.extend(
        features["linux"]["capabilities"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().into()),
    );
    let sets = json!({"bounding": all, "effective": all, "permitted": all});
    let said = bundle(json!({"capabilities": sets})).call(&["run"]);
    assert_eq!(said.code, 0, "{said:?}");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .unwrap()
        .trim()
        .to_owned();
    assert_eq!(said.field("CapEff"), own);
}

#[test]
fn no_new_privs_is_as_configured() {
    for (value, shown) in [(true, "1"), (false, "0")] {
        let said = bundle(json!({"noNewPrivileges": value})).call(&["run"]);
        assert_eq!(said.field("NoNewPrivs"), shown);
    }
}

#[test]
fn rlimits_are_set_and_one_that_cannot_be_is_named() {
    let limit = |kind: &str, soft: u64, hard: u64| json!([{"type": kind, "soft": soft, "hard": hard}]);
    let mut good = bundle(json!({"rlimits": limit("RLIMIT_NOFILE", 100, 200)}));
    good.spec["process"]["args"] = json!(["cat", "/proc/self/limits"]);
    let out = good.run();
    let line = out
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(
        line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(),
        ["100", "200"]
    );
    drop(good);
    let twice = json!([limit("RLIMIT_CPU", 1, 1)[0], limit("RLIMIT_CPU", 2, 2)[0]]);
    for (rlimits, text) in [
        (limit("RLIMIT_NOFILE", 3, 2), "RLIMIT_NOFILE"),
        (twice, "given twice"),
        (limit("RLIMIT_FUN", 1, 1), "RLIMIT_FUN"),
    ] {
        let error = bundle(json!({"rlimits": rlimits})).fails(&["run"]);
        assert!(error.contains(text), "{error}");
    }
}

/// Only where the runtime may not raise limits itself.
#[test]
fn a_hard_limit_above_the_own_needs_a_capability() {
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let bits = own
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap()
        .trim();
    let may_raise = u64::from_str_radix(bits, 16).unwrap() & (1 << 24) != 0;
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 1_000_000, "hard": 1_000_000}]);
    let adjusted = bundle(json!({"oomScoreAdj": -900})).call(&["run"]);
    let said = bundle(json!({"rlimits": limits})).call(&["run"]);
    if may_raise {
        assert_eq!((said.code, adjusted.code), (0, 0), "{said:?} {adjusted:?}");
    } else {
        assert!(said.refused(1).contains("process.rlimits: RLIMIT_NOFILE"));
        assert_eq!(adjusted.code, 0, "{adjusted:?}");
        assert!(adjusted.err.contains("process.oomScoreAdj"), "{adjusted:?}");
    }
}

#[test]
fn the_out_of_memory_score_and_the_schedule_are_set() {
    let mut bundle = bundle(json!({"oomScoreAdj": 321}));
    bundle.spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    bundle.spec["process"]["args"] = json!(["cat", "/proc/self/oom_score_adj", "/proc/self/stat"]);
    let out = bundle.run();
    let (score, stat) = out.split_once('\n').unwrap();
    // proc_pid_stat(5), counted from behind the name: nice is the 19th field, policy the 41st.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(
        (score, fields[16], fields[38]),
        ("321", "5", "3"),
        "SCHED_BATCH is 3: {out}"
    );
}

#[test]
fn ids_that_mean_unchanged_are_refused() {
    for (user, field) in [
        (json!({"uid": 4_294_967_295_u32, "gid": 0}), "process.user.uid"),
        (json!({"uid": 0, "gid": 4_294_967_295_u32}), "process.user.gid"),
    ] {
        assert!(bundle(json!({"user": user})).fails(&["run"]).contains(field));
    }
}

#[test]
fn the_working_directory_is_inside_or_refused() {
    for cwd in [
        "/proc/self/fd/3",
        "/proc/self/fd/7",
        "/proc/1/fd/5/..",
        "relative",
        "",
    ] {
        let said = bundle(json!({"cwd": cwd})).call(&["run"]);
        assert!(said.refused(1).contains("process.cwd"), "{cwd}");
    }
}

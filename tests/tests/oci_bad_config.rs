//! Specifications that are wrong: an error that names the field, exit code 1, and nothing left.

use coracle_tests::bundle::Bundle;
use coracle_tests::program::Said;
use serde_json::{Value, json};
use std::process::Command;

/// A change of the specification at a JSON pointer, and what the error must name.
const TABLE: &[(&str, &str, &str)] = &[
    ("/ociVersion", r#""2.0.0""#, "ociVersion"),
    ("/ociVersion", r#""""#, "ociVersion"),
    ("/process", "null", "process"),
    ("/process/args", "[]", "process.args"),
    ("/process/args", r#"["a\u0000b"]"#, "process.args[0]"),
    ("/process/cwd", r#""""#, "process.cwd"),
    ("/process/cwd", r#""not/absolute""#, "process.cwd"),
    ("/process/env", r#"["NOEQUALS"]"#, "process.env[0]"),
    ("/process/env", r#"["=value"]"#, "process.env[0]"),
    ("/process/env", r#"["A=b\u0000c"]"#, "process.env[0]"),
    ("/process/terminal", "true", "console socket"),
    ("/process/oomScoreAdj", "2000", "process.oomScoreAdj"),
    ("/process/user/uid", "4294967295", "process.user.uid"),
    ("/root", "null", "root"),
    ("/root/path", r#""""#, "root.path"),
    ("/root/path", r#""/""#, "root.path"),
    ("/root/path", r#""nowhere""#, "nowhere"),
    (
        "/hostname",
        r#""a-name-that-is-much-longer-than-the-sixty-four-bytes-the-kernel-has-room-for""#,
        "hostname",
    ),
    ("/mounts/0/destination", r#""""#, "mounts[0].destination"),
    ("/mounts/0/destination", r#""/x/..""#, "mounts[0].destination"),
    ("/mounts/1/type", "null", "mounts[1].type"),
    ("/mounts/0/options", r#"["tmpcopyup"]"#, "mounts[0].options"),
    ("/mounts/1/options", r#"["idmap"]"#, "mounts[1].options"),
    (
        "/mounts/1/uidMappings",
        r#"[{"containerID":0,"hostID":1,"size":1}]"#,
        "mounts[1].uidMappings",
    ),
    ("/linux", "null", "linux"),
    ("/linux/namespaces", "[]", "linux.namespaces"),
    (
        "/linux/namespaces",
        r#"[{"type":"mount"},{"type":"pid"},{"type":"pid"}]"#,
        "linux.namespaces[2]",
    ),
    (
        "/linux/namespaces",
        r#"[{"type":"mount"},{"type":"uts"},{"type":"network","path":"relative"}]"#,
        "linux.namespaces[2].path",
    ),
    (
        "/linux/namespaces",
        r#"[{"type":"mount"},{"type":"uts"},{"type":"user"}]"#,
        "linux.uidMappings",
    ),
    (
        "/linux/uidMappings",
        r#"[{"containerID":0,"hostID":1,"size":1}]"#,
        "linux.uidMappings",
    ),
    (
        "/linux/timeOffsets",
        r#"{"boottime":{"secs":1}}"#,
        "linux.timeOffsets",
    ),
    (
        "/linux/devices",
        r#"[{"path":"relative","type":"c","major":1,"minor":3}]"#,
        "linux.devices[0].path",
    ),
    (
        "/linux/devices",
        r#"[{"path":"/dev/x","type":"a"}]"#,
        "linux.devices[0].type",
    ),
    (
        "/linux/devices",
        r#"[{"path":"/dev/x","type":"c","major":-1,"minor":3}]"#,
        "linux.devices[0].major",
    ),
    (
        "/linux/devices",
        r#"[{"path":"/dev/x","type":"c","major":1,"minor":99999999}]"#,
        "linux.devices[0].minor",
    ),
    (
        "/linux/devices",
        r#"[{"path":"/dev/x","type":"c","major":1,"minor":3,"uid":4294967295}]"#,
        "linux.devices[0].uid",
    ),
    ("/linux/maskedPaths", r#"["relative"]"#, "linux.maskedPaths[0]"),
    (
        "/linux/readonlyPaths",
        r#"["/ok","x\u0000"]"#,
        "linux.readonlyPaths[1]",
    ),
    (
        "/linux/rootfsPropagation",
        r#""sideways""#,
        "linux.rootfsPropagation",
    ),
    ("/linux/sysctl", r#"{"kernel.pid_max":"1"}"#, "kernel.pid_max"),
    ("/linux/intelRdt", r#"{"closID":"x"}"#, "linux.intelRdt"),
    (
        "/linux/personality",
        r#"{"domain":"LINUX32"}"#,
        "linux.personality",
    ),
    (
        "/linux/mountLabel",
        r#""system_u:object_r:x""#,
        "linux.mountLabel",
    ),
    (
        "/linux/cgroupsPath",
        r#""/coracle-oci-test/../../up""#,
        "linux.cgroupsPath",
    ),
    (
        "/hooks",
        r#"{"createRuntime":[{"path":"relative"}]}"#,
        "hooks.createRuntime[0].path",
    ),
    (
        "/hooks",
        r#"{"poststop":[{"path":"/bin/true","timeout":0}]}"#,
        "hooks.poststop[0].timeout",
    ),
    (
        "/hooks",
        r#"{"prestart":[{"path":"/bin/true","args":["a\u0000"]}]}"#,
        "hooks.prestart[0]",
    ),
];

#[test]
fn the_field_is_named() {
    for (pointer, value, named) in TABLE {
        let mut bundle = Bundle::new("true");
        set(&mut bundle.spec, pointer, serde_json::from_str(value).unwrap());
        for command in ["create", "run"] {
            let output = bundle.call(&[command]);
            // In the foreground a terminal is fine, and the caller's.
            if *pointer == "/process/terminal" && command == "run" {
                continue;
            }
            assert_eq!(output.code, 1, "{pointer} {value}: {}", output.all());
            assert!(
                output.all().contains(named),
                "{pointer} {value}: {}",
                output.all()
            );
            bundle.assert_nothing_left();
        }
    }
}

#[test]
fn a_file_that_is_no_specification_is_named() {
    let bundle = Bundle::new("true");
    for (text, words) in [
        ("", "EOF while parsing"),
        ("{", "line 1"),
        ("[7]", "config.json"),
        (r#"{"ociVersion":"1.0.2","process":{"cwd":7}}"#, "line 1"),
        ("\u{0}\u{1}", "config.json"),
    ] {
        let mut command = bundle.coracle(&["run", &bundle.id]);
        std::fs::write(bundle.path("config.json"), text).unwrap();
        let output = Said::by(&mut command);
        assert_eq!(output.code, 1, "{text:?}");
        assert!(
            output.all().contains("config.json") && output.all().contains(words),
            "{text:?}: {}",
            output.all()
        );
        bundle.assert_nothing_left();
    }
    let mut command = bundle.coracle(&["run", &bundle.id]);
    std::fs::remove_file(bundle.path("config.json")).unwrap();
    assert!(Said::by(&mut command).err.contains("config.json"));
    // Nothing would ever come out of it.
    let made = Command::new("mkfifo").arg(bundle.path("config.json")).status();
    assert!(made.unwrap().success());
    let text = Said::by(&mut command).refused(1);
    std::fs::remove_file(bundle.path("config.json")).unwrap();
    assert!(text.contains("config.json: it is not a regular file"), "{text}");
    let output = bundle.say(&["run", "--bundle", "/nowhere", &bundle.id]);
    assert!(output.all().contains("/nowhere"), "{}", output.all());
}

#[test]
fn an_unknown_capability_is_left_out_with_a_warning() {
    let mut bundle = Bundle::new("true");
    bundle.spec["process"]["capabilities"]["bounding"]
        .as_array_mut()
        .unwrap()
        .push(json!("CAP_TIME_TRAVEL"));
    let output = bundle.call(&["run"]);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.all().contains("CAP_TIME_TRAVEL"), "{}", output.all());
}

#[test]
fn unknown_flags_and_commands_are_refused() {
    let bundle = Bundle::new("true");
    for args in [
        &["fly"][..],
        &["run", "--fly", "x"],
        &["run"],
        &["state", "a", "b"],
        &["--log-format", "xml", "state", "a"],
    ] {
        let output = bundle.say(args);
        assert_eq!(output.code, 1, "{args:?}");
        assert!(!output.err.is_empty());
    }
}

fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
        parent => parent[name] = value,
    }
}

/// The kernel says EINVAL, whose cause lies a level higher.
#[test]
fn a_realtime_budget_that_the_parent_lacks_is_told_with_the_parent() {
    let mut bundle = Bundle::new("true");
    let parent = bundle.cgroup_dir("cpu").parent().unwrap().to_owned();
    if !parent.parent().unwrap().join("cpu.rt_runtime_us").exists() {
        eprintln!("skipped: this kernel schedules no realtime groups");
        return;
    }
    bundle.spec["linux"]["resources"] = json!({"cpu": {"realtimeRuntime": 1000}});
    let error = bundle.fails(&["run"]);
    for named in [
        "linux.resources.cpu.realtimeRuntime",
        "1000 us",
        "cpu.rt_runtime_us has 0 us",
    ] {
        assert!(error.contains(named), "{error}");
    }
    assert!(error.contains(parent.to_str().unwrap()), "{error}");
}

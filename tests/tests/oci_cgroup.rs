//! Cgroups of containers on a v1 or hybrid host, as the kernel shows them.

use coracle_tests::bundle::Bundle;
use coracle_tests::program::Said;
use coracle_tests::wait::wait_until;
use serde_json::json;

#[test]
fn every_process_is_in_the_containers_cgroup_of_every_hierarchy() {
    let mut bundle = Bundle::of_spec_command("cat /proc/self/cgroup");
    without_cgroup_namespace(&mut bundle);
    let out = bundle.run();
    assert!(out.lines().count() >= 8, "{out}");
    for line in out.lines() {
        let path = line.splitn(3, ':').nth(2).unwrap();
        assert_eq!(path, bundle.cgroup, "{line}");
    }
}

#[test]
fn an_exec_joins_the_same_cgroups() {
    let mut bundle = Bundle::of_spec_command("sleep 1000");
    without_cgroup_namespace(&mut bundle);
    bundle.start();
    let out = bundle.exec("cat /proc/self/cgroup").ok();
    assert!(
        out.lines()
            .all(|line| line.ends_with(&format!(":{}", bundle.cgroup))),
        "{out}"
    );
}

#[test]
fn limits_reach_the_control_files() {
    let mut bundle = Bundle::of_spec_command("sleep 1000");
    bundle.spec["linux"]["resources"] = json!({
        "memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 20},
    });
    bundle.start();
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "10"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "20"),
    ] {
        assert_eq!(bundle.control(controller, file), value, "{file}");
    }
}

#[test]
fn pids_limits_follow_the_specification() {
    for (limit, written) in [(0, "1"), (-1, "max"), (7, "7")] {
        let mut bundle = Bundle::of_spec_command("sleep 1000");
        bundle.spec["linux"]["resources"]["pids"] = json!({"limit": limit});
        bundle.start();
        assert_eq!(bundle.control("pids", "pids.max"), written);
    }
}

#[test]
fn too_many_processes_are_refused_to_the_container() {
    let mut bundle = Bundle::of_spec_command("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo made");
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 4});
    let said = bundle.call(&["run"]);
    assert!(said.err.contains("fork"), "{said:?}");
}

#[test]
fn devices_that_are_not_allowed_cannot_be_opened() {
    let script = "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg; echo code $?; echo x > /dev/null && head -c 1 /dev/zero | wc -c";
    let mut bundle = Bundle::of_spec_command(script);
    writable(&mut bundle);
    add_capability(&mut bundle, "CAP_MKNOD");
    let said = bundle.call(&["run"]);
    assert!(said.err.contains("Operation not permitted"), "{said:?}");
    assert!(
        said.out.contains("code 1") && said.out.ends_with("1\n"),
        "{said:?}"
    );
    let list = |bundle: &Bundle| bundle.control("devices", "devices.list");
    let mut open = Bundle::of_spec_command("sleep 1000");
    open.spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    open.start();
    assert_eq!(list(&open), "a *:* rwm");
}

#[test]
fn too_little_memory_to_begin_in_is_said() {
    let mut bundle = Bundle::of_spec_command("true");
    bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 4096});
    let text = bundle.fails(&["run"]);
    assert!(text.contains("linux.resources.memory.limit too low"), "{text}");
}

#[test]
fn a_relative_path_is_below_the_default_parent() {
    let mut bundle = Bundle::of_spec_command("cat /proc/self/cgroup");
    without_cgroup_namespace(&mut bundle);
    bundle.spec["linux"]["cgroupsPath"] = json!(format!("oci-test/{}", bundle.id));
    bundle.cgroup = format!("/coracle/oci-test/{}", bundle.id);
    let out = bundle.run();
    assert!(out.contains(&bundle.cgroup), "{out}");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_field_and_leaves_nothing() {
    let mut bundle = Bundle::of_spec_command("true");
    let cases = [
        (json!({"memory": {"limit": -2}}), "linux.resources.memory.limit"),
        (
            json!({"memory": {"limit": 1048576, "swap": 1024}}),
            "linux.resources.memory.swap",
        ),
        (json!({"cpu": {"cpus": "4000"}}), "cpuset.cpus"),
        (
            json!({"cpu": {"shares": 999999999}}),
            "linux.resources.cpu.shares",
        ),
        (json!({"cpu": {"quota": 10}}), "cpu.cfs_quota_us"),
        (
            json!({"unified": {"memory.high": "1"}}),
            "linux.resources.unified",
        ),
        (
            json!({"network": {"classID": 1}}),
            "linux.resources.network.classID: the net_cls controller is not mounted",
        ),
        (
            json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}),
            "linux.resources.rdma",
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "3XB", "limit": 1}]}),
            "linux.resources.hugepageLimits",
        ),
        (
            json!({"blockIO": {"weight": 5}}),
            "linux.resources.blockIO.weight",
        ),
        (
            json!({"devices": [{"allow": true, "access": "x"}]}),
            "linux.resources.devices",
        ),
    ];
    for (resources, field) in cases {
        bundle.spec["linux"]["resources"] = resources;
        let error = bundle.fails(&["run"]);
        assert!(error.contains(field), "{field}: {error}");
        assert_eq!(bundle.cgroups(), [] as [std::path::PathBuf; 0], "{field}");
    }
    bundle.spec["linux"]["resources"] = json!({});
    for path in ["/", "/../x", "/a/../../b"] {
        bundle.spec["linux"]["cgroupsPath"] = json!(path);
        assert!(bundle.fails(&["run"]).contains("linux.cgroupsPath"), "{path}");
    }
}

#[test]
fn a_cgroup_that_holds_processes_already_is_refused() {
    let first = Bundle::of_spec_command("sleep 1000");
    first.start();
    let mut second = Bundle::of_spec_command("true");
    second.spec["linux"]["cgroupsPath"] = json!(first.cgroup);
    assert!(second.fails(&["run"]).contains("not empty"));
    assert_eq!(first.exec("echo still there").ok(), "still there\n");
}

#[test]
fn delete_ends_every_process_also_those_that_hide() {
    let script = "for i in 1 2 3; do (trap '' TERM INT HUP; sleep 1000 & sleep 1000) & done; sleep 1000";
    let mut bundle = Bundle::of_spec_command(script);
    // Without a PID namespace nothing ends the others when the first process ends.
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bundle.start();
    wait_until("seven processes", || {
        bundle.control("freezer", "cgroup.procs").lines().count() >= 7
    });
    bundle.ok(&["delete", "--force"]);
    assert_eq!(bundle.cgroups(), [] as [std::path::PathBuf; 0]);
}

fn without_cgroup_namespace(bundle: &mut Bundle) {
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
}

fn writable(bundle: &mut Bundle) {
    bundle.spec["root"]["readonly"] = json!(false);
}

fn add_capability(bundle: &mut Bundle, name: &str) {
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap()
            .push(json!(name));
    }
}

#[test]
fn the_processors_are_the_cpusets_whatever_the_callers_are() {
    let bundle = Bundle::new("grep Cpus_allowed_list /proc/self/status; exec sleep 1000");
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let wanted = format!("Cpus_allowed_list:\t{all}");
    let confined = |args: &[&str]| {
        let command = bundle.coracle(args);
        let mut confined = std::process::Command::new("taskset");
        confined
            .args(["-c", "0"])
            .arg(command.get_program())
            .args(command.get_args());
        confined
            .current_dir(bundle.path(""))
            .stdin(std::process::Stdio::null());
        confined
    };
    let out = std::fs::File::create(bundle.path("out")).unwrap();
    let started = confined(&["run", "--detach", &bundle.id]).stdout(out).status();
    assert!(started.unwrap().success());
    wait_until("it says so", || bundle.output() == wanted);
    let exec = [
        "exec",
        &bundle.id,
        "grep",
        "Cpus_allowed_list",
        "/proc/self/status",
    ];
    assert_eq!(Said::by(&mut confined(&exec)).ok(), wanted);
}

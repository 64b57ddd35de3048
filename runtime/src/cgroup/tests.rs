//! Against the kernel's own hierarchies, below `/coracle-test-...`; skipped where cgroups cannot be made.

use super::*;
use std::error::Error as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use coracle_linux::cgroup::files::read;
use coracle_linux::cgroup::{Cgroup, FreezerState, Layout};
use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

/// For a machine that does other things at the same time.
const PATIENCE: Duration = Duration::from_secs(100);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A cgroup of this test's own; ends its processes and removes it when dropped.
struct Mine(Cgroup);

impl Drop for Mine {
    fn drop(&mut self) {
        self.0.kill_until_empty(PATIENCE).unwrap();
        self.0.remove().unwrap();
        assert!(self.0.paths().iter().all(|(_, dir)| !dir.exists()));
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/coracle-test-cgroup-{}-{name}", std::process::id()))
}

fn make(name: &str, json: &str) -> Option<Mine> {
    if !rustix::process::geteuid().is_root() || Layout::detect().unwrap().controller("memory").is_none() {
        eprintln!("skipped: needs root and a v1 memory controller");
        return None;
    }
    let plan = CgroupPlan::group(&path(name), Some(&resources(json))).unwrap();
    Some(Mine(create(&plan).unwrap().cgroup))
}

/// Two sleeping processes inside; the test's own process must not move, so a shell does it.
fn sleeper(cgroup: &Cgroup) -> Child {
    let join: String = cgroup
        .paths()
        .iter()
        .map(|(_, dir)| format!("echo 0 > {}/cgroup.procs; ", dir.display()))
        .collect();
    let child = Command::new("sh")
        .args(["-c", &format!("{join} sleep 1000 & exec sleep 1000")])
        .spawn()
        .unwrap();
    let sleeps = |pid: &Pid| {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
        name.is_ok_and(|name| name == "sleep\n")
    };
    wait_until("two sleeping processes", || {
        cgroup.procs().unwrap().iter().filter(|pid| sleeps(pid)).count() == 2
    });
    child
}

#[test]
fn limits_reach_the_kernel() {
    let json = r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"}, "pids": {"limit": 10}}"#;
    let Some(mine) = make("limits/c", json) else {
        return;
    };
    let got = |controller: &str, file: &str| read(&mine.0.v1_directory(controller).unwrap(), file).unwrap();
    assert_eq!(got("memory", "memory.limit_in_bytes").trim(), "67108864");
    assert_eq!(got("cpu", "cpu.shares").trim(), "512");
    assert_eq!(got("cpu", "cpu.cfs_quota_us").trim(), "50000");
    assert_eq!(got("cpuset", "cpuset.cpus").trim(), "0");
    assert!(!got("cpuset", "cpuset.mems").trim().is_empty());
    assert_eq!(got("pids", "pids.max").trim(), "10");
    let again = |json: &str| {
        let plan = CgroupPlan::group(&path("limits/c"), Some(&resources(json))).unwrap();
        ensure(&plan).unwrap();
        got("memory", "memory.limit_in_bytes").trim().to_owned()
    };
    let raised = again(r#"{"memory": {"limit": 268435456, "swap": 268435456}}"#);
    assert_eq!(raised, "268435456", "raised beyond the old swap limit");
    let lowered = again(r#"{"memory": {"limit": 33554432, "swap": 33554432}}"#);
    assert_eq!(lowered, "33554432", "lowered again");
}

#[test]
fn a_refused_limit_names_file_and_value_and_leaves_nothing() {
    let Some(_mine) = make("refused/other", "{}") else {
        return;
    };
    let bad = resources(r#"{"cpu": {"cpus": "4000"}}"#);
    let plan = CgroupPlan::group(&path("refused-2/c"), Some(&bad)).unwrap();
    let error = create(&plan).unwrap_err();
    let text = format!("{error}: {}", error.source().unwrap());
    assert!(
        text.contains("linux.resources.cpu.cpus") && text.contains("4000") && text.contains("cpuset.cpus"),
        "{text}"
    );
    let left = Cgroup::open(&path("refused-2")).unwrap();
    assert!(left.is_none(), "{left:?}");
    let big = resources(r#"{"cpu": {"shares": 99999999}}"#);
    let plan = CgroupPlan::group(&path("refused-3"), Some(&big)).unwrap();
    assert!(create(&plan).unwrap_err().to_string().contains("262144"));
}

#[test]
fn every_process_is_killed_also_in_a_frozen_cgroup() {
    let Some(mine) = make("kill", "{}") else { return };
    let mut child = sleeper(&mine.0);
    assert_eq!(mine.0.procs().unwrap().len(), 2);
    assert!(matches!(
        create(&CgroupPlan::group(&path("kill"), None).unwrap()),
        Err(SetupError::NotEmpty(_))
    ));
    assert!(mine.0.freeze(PATIENCE).unwrap());
    assert_eq!(mine.0.freezer_state().unwrap(), FreezerState::Frozen);
    assert!(mine.0.kill_until_empty(PATIENCE).unwrap());
    child.wait().unwrap();
    assert_eq!(mine.0.freezer_state().unwrap(), FreezerState::Thawed);
}

#[test]
fn usage_is_counted() {
    let Some(mine) = make("stats", "{}") else {
        return;
    };
    let mut child = sleeper(&mine.0);
    // The kernel counts both with some delay.
    wait_until("use of processor and memory", || {
        mine.0.cpu_ns().unwrap().unwrap() > 0 && mine.0.memory().unwrap().unwrap().usage > 0
    });
    assert!(mine.0.memory().unwrap().unwrap().limit.is_none());
    assert!(mine.0.kill_until_empty(PATIENCE).unwrap());
    child.wait().unwrap();
}

#[test]
fn sub_cgroups_go_with_their_parent() {
    let Some(mine) = make("deep", "{}") else { return };
    for (_, dir) in mine.0.paths() {
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::create_dir(dir.join("c")).unwrap();
    }
}

#[test]
fn a_frozen_parent_is_refused() {
    let Some(parent) = make("frozen", "{}") else {
        return;
    };
    parent.0.freeze(PATIENCE).unwrap();
    let refused = create(&CgroupPlan::group(&path("frozen/c"), None).unwrap());
    parent.0.thaw().unwrap();
    assert!(matches!(refused, Err(SetupError::Frozen(_))), "{refused:?}");
    assert!(Cgroup::open(&path("frozen/c")).unwrap().is_none());
}

#[test]
fn out_of_memory_kills_are_counted() {
    let Some(mine) = make("oom", r#"{"memory": {"limit": 8388608, "swap": 8388608}}"#) else {
        return;
    };
    assert_eq!(mine.0.oom_kills().unwrap(), Some(0));
    let tasks = mine.0.v1_directory("memory").unwrap().join("tasks");
    let eater = format!(
        "echo 0 > {}; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done",
        tasks.display()
    );
    let status = Command::new("sh").args(["-c", &eater]).status().unwrap();
    assert!(!status.success());
    assert_eq!(mine.0.oom_kills().unwrap(), Some(1));
}

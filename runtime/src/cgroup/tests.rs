//! Against the kernel's own hierarchies, below `/coracle-test-...`; skipped where cgroups cannot be made.

use super::*;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

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
    Some(Mine(Cgroup::create(&plan).unwrap()))
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
    let got = |controller: &str, file: &str| files::read(&mine.0.dir(controller).unwrap(), file).unwrap();
    assert_eq!(got("memory", "memory.limit_in_bytes").trim(), "67108864");
    assert_eq!(got("cpu", "cpu.shares").trim(), "512");
    assert_eq!(got("cpu", "cpu.cfs_quota_us").trim(), "50000");
    assert_eq!(got("cpuset", "cpuset.cpus").trim(), "0");
    assert!(!got("cpuset", "cpuset.mems").trim().is_empty());
    assert_eq!(got("pids", "pids.max").trim(), "10");
    mine.0
        .set(&resources(
            r#"{"memory": {"limit": 268435456, "swap": 268435456}}"#,
        ))
        .unwrap();
    assert_eq!(
        got("memory", "memory.limit_in_bytes").trim(),
        "268435456",
        "raised beyond the old swap limit"
    );
    mine.0
        .set(&resources(r#"{"memory": {"limit": 33554432, "swap": 33554432}}"#))
        .unwrap();
    assert_eq!(
        got("memory", "memory.limit_in_bytes").trim(),
        "33554432",
        "lowered again"
    );
}

#[test]
fn a_refused_limit_names_file_and_value_and_leaves_nothing() {
    let Some(_mine) = make("refused/other", "{}") else {
        return;
    };
    let bad = resources(r#"{"cpu": {"cpus": "4000"}}"#);
    let plan = CgroupPlan::group(&path("refused-2/c"), Some(&bad)).unwrap();
    let text = Cgroup::create(&plan).unwrap_err().to_string();
    assert!(
        text.contains("linux.resources.cpu.cpus") && text.contains("4000") && text.contains("cpuset.cpus"),
        "{text}"
    );
    let left = Cgroup::open(&path("refused-2")).unwrap();
    assert!(left.is_none(), "{left:?}");
    let big = resources(r#"{"cpu": {"shares": 99999999}}"#);
    let plan = CgroupPlan::group(&path("refused-3"), Some(&big)).unwrap();
    assert!(Cgroup::create(&plan).unwrap_err().to_string().contains("262144"));
}

#[test]
fn every_process_is_killed_also_in_a_frozen_cgroup() {
    let Some(mine) = make("kill", "{}") else { return };
    let mut child = sleeper(&mine.0);
    assert_eq!(mine.0.procs().unwrap().len(), 2);
    assert!(matches!(
        Cgroup::create(&CgroupPlan::group(&path("kill"), None).unwrap()),
        Err(CgroupError::NotEmpty(_))
    ));
    assert!(mine.0.freeze(PATIENCE).unwrap());
    assert_eq!(mine.0.freezer_state().unwrap(), FreezerState::Frozen);
    assert!(mine.0.kill_until_empty(PATIENCE).unwrap());
    child.wait().unwrap();
    assert_eq!(mine.0.freezer_state().unwrap(), FreezerState::Thawed);
}

#[test]
fn usage_is_counted() {
    let Some(mine) = make("stats", r#"{"pids": {"limit": 7}}"#) else {
        return;
    };
    let mut child = sleeper(&mine.0);
    // The kernel counts both with some delay.
    wait_until("use of processor and memory", || {
        let stats = mine.0.stats().unwrap();
        let memory = stats.memory.unwrap();
        stats.cpu_usage_ns.unwrap() > 0 && memory.usage > 0 && memory.working_set > 0
    });
    let stats = mine.0.stats().unwrap();
    assert!(stats.memory.unwrap().limit.is_none());
    assert_eq!(
        stats.pids,
        Some(Pids {
            current: 2,
            limit: Some(7)
        })
    );
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
    let refused = Cgroup::create(&CgroupPlan::group(&path("frozen/c"), None).unwrap());
    parent.0.thaw().unwrap();
    assert!(matches!(refused, Err(CgroupError::Frozen(_))), "{refused:?}");
    assert!(Cgroup::open(&path("frozen/c")).unwrap().is_none());
}

#[test]
fn out_of_memory_kills_are_counted_and_signalled() {
    let Some(mine) = make("oom", r#"{"memory": {"limit": 8388608, "swap": 8388608}}"#) else {
        return;
    };
    let watch = mine.0.watch_oom().unwrap().unwrap();
    assert_eq!(watch.count().unwrap(), Some(0));
    let tasks = mine.0.dir("memory").unwrap().join("tasks");
    let eater = format!(
        "echo 0 > {}; x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done",
        tasks.display()
    );
    let status = Command::new("sh").args(["-c", &eater]).status().unwrap();
    assert!(!status.success());
    let mut poll = [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec::try_from(PATIENCE).unwrap();
    assert_eq!(rustix::event::poll(&mut poll, Some(&patience)).unwrap(), 1);
    watch.clear();
    assert_eq!(watch.count().unwrap(), Some(1));
}

#[test]
fn the_stored_form_is_the_whole_cgroup() {
    let cgroup = Cgroup {
        path: "/a/b".into(),
        layout: Layout::default(),
        kept: 1,
        warnings: vec![],
        joined_below: vec![],
    };
    let stored = serde_json::to_string(&cgroup).unwrap();
    assert_eq!(serde_json::from_str::<Cgroup>(&stored).unwrap(), cgroup);
}

#[test]
fn a_process_may_join_below_the_cgroup_but_nowhere_else() {
    let hierarchy = |names: &[&str]| Hierarchy {
        controllers: names.iter().map(|name| (*name).to_owned()).collect(),
        mount_point: PathBuf::from("/m").join(names[0]),
    };
    let layout = Layout {
        v1: vec![hierarchy(&["cpu", "cpuacct"]), hierarchy(&["memory"])],
        unified: None,
    };
    let cgroup = Cgroup {
        path: "/a".into(),
        layout,
        kept: 1,
        warnings: vec![],
        joined_below: vec![],
    };
    let entrances = |cgroup: &Cgroup| -> Vec<PathBuf> {
        cgroup
            .paths()
            .iter()
            .map(|(name, dir)| cgroup.entrance(name, dir))
            .collect()
    };
    let all = cgroup.clone().joined_below(None, Path::new("x/y")).unwrap();
    assert_eq!(
        entrances(&all),
        [Path::new("/m/cpu/a/x/y"), Path::new("/m/memory/a/x/y")]
    );
    let one = cgroup
        .clone()
        .joined_below(Some("cpuacct"), Path::new("/x"))
        .unwrap();
    assert_eq!(
        entrances(&one),
        [Path::new("/m/cpu/a/x"), Path::new("/m/memory/a")]
    );
    assert!(cgroup.clone().joined_below(None, Path::new("../y")).is_err());
    assert!(cgroup.joined_below(Some("nothing"), Path::new("y")).is_err());
}

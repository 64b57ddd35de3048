use super::*;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn the_stored_form_is_the_whole_cgroup() {
    let cgroup = Cgroup {
        path: "/a/b".into(),
        layout: Layout::default(),
        kept: 1,
        shared_parent: None,
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
        shared_parent: None,
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

#[test]
fn paths_that_leave_their_place_are_refused() {
    for bad in ["", "a", "/", "//", "/a/../b", "/a\nb"] {
        assert!(absolute(Path::new(bad)).is_err(), "{bad:?}");
    }
    assert!(absolute(Path::new(&format!("/{}", "x".repeat(256)))).is_err());
    assert_eq!(absolute(Path::new("/a//b/./c")).unwrap(), Path::new("/a/b/c"));
}

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cgroup of this test's own; skipped where cgroups cannot be made.
fn mine(name: &str) -> Option<Made> {
    if !rustix::process::geteuid().is_root() || *Layout::detect().unwrap() == Layout::default() {
        eprintln!("skipped: needs root and cgroups");
        return None;
    }
    let path = PathBuf::from(format!("/coracle-linux-test-{}-{name}", std::process::id()));
    Some(Cgroup::make(Layout::detect().unwrap(), &path).unwrap())
}

/// A process that ignores what can be ignored, moved into `directory` alone.
fn stubborn(directory: &Path) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", "trap '' TERM; read never"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let moved = std::fs::write(directory.join("cgroup.procs"), child.id().to_string());
    if moved.is_err() {
        child.kill().unwrap();
    }
    moved.unwrap();
    child
}

#[test]
fn a_cgroup_that_is_not_kept_goes_and_one_that_was_there_stays() {
    let Some(outer) = mine("made") else { return };
    let path = outer.cgroup().path().to_owned();
    drop(Cgroup::make(Layout::detect().unwrap(), &path.join("a/b")).unwrap());
    assert!(Cgroup::open(&path.join("a")).unwrap().is_none());
    let again = Cgroup::make(Layout::detect().unwrap(), &path).unwrap();
    assert_eq!(again.existed().len(), outer.cgroup().paths().len());
    drop(again);
    assert!(outer.cgroup().exists());
    drop(outer);
    assert!(Cgroup::open(&path).unwrap().is_none());
}

#[test]
fn a_process_in_any_hierarchy_is_killed_also_below() {
    let Some(made) = mine("kill") else { return };
    let below = Cgroup::make(Layout::detect().unwrap(), &made.cgroup().path().join("below"))
        .unwrap()
        .keep();
    let cgroup = made.keep();
    // The cpuset hierarchy has no processors to give yet.
    for (_, directory) in below.paths().into_iter().filter(|(name, _)| name != "cpuset") {
        let mut child = stubborn(&directory);
        // wait() would close it, and so end the child.
        let _stdin = child.stdin.take();
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        assert_eq!(cgroup.procs_anywhere().unwrap().len(), 1);
        assert!(cgroup.kill_until_empty(PATIENCE).unwrap());
        assert!(!reaper.join().unwrap().success());
    }
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    cgroup.remove().unwrap();
}

#[test]
fn a_number_that_is_another_process_by_now_is_not_killed() {
    let Some(made) = mine("reused") else { return };
    let cgroup = made.cgroup();
    let mut inside = stubborn(&cgroup.paths()[0].1);
    let mut outside = Command::new("sh")
        .args(["-c", "read never"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = |child: &Child| crate::pidfd::Pid::from_child(child);
    let killed = cgroup.kill_listed(&[pid(&outside), pid(&inside)], Cgroup::procs_anywhere);
    let ended = inside.wait().unwrap();
    let lives = outside.try_wait().unwrap().is_none();
    outside.kill().unwrap();
    outside.wait().unwrap();
    killed.unwrap();
    assert!(!ended.success() && lives);
    cgroup.remove().unwrap();
}

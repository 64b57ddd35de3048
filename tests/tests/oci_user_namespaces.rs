//! What a container with a user namespace of its own needs of somebody outside: file systems of the namespaces it joins, files
//! its user cannot reach, limits, and ids.

use coracle_tests::bundle::Bundle;
use coracle_tests::process::Helper;
use coracle_tests::program::Said;
use coracle_tests::wait::wait_until;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

/// Its root has no rights over a namespace of the host's user namespace, and may mount nothing that shows one.
#[test]
fn file_systems_of_joined_namespaces_are_lent() {
    let other = Helper::unshared(&["--net", "--ipc"]);
    for (kind, own, script, expected) in [
        ("network", "net", "ls /sys/class/net", "lo\n"),
        ("ipc", "ipc", "cat /proc/self/mountinfo | grep -c mqueue", "1\n"),
    ] {
        let mut bundle = Bundle::new(script);
        bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
        bundle.user_namespace();
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        bundle.namespace(kind, Some(&other.namespace(own)));
        let said = bundle.call(&["run"]);
        assert_eq!((said.code, said.out.as_str()), (0, expected), "{kind}: {said:?}");
    }
}

#[test]
fn proc_of_a_joined_pid_namespace_is_lent_and_stays_read_only_where_it_must() {
    let other = Helper::unshared(&["--pid", "--fork"]);
    let init = wait_until_some(|| {
        let children = format!("/proc/{0}/task/{0}/children", other.0.id());
        fs::read_to_string(children)
            .ok()
            .and_then(|text| text.split_whitespace().next().map(str::to_owned))
    });
    let mut bundle = Bundle::new("cat /proc/1/comm; echo x > /proc/sys/kernel/domainname");
    bundle.user_namespace();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    bundle.namespace("pid", Some(format!("/proc/{init}/ns/pid").as_ref()));
    let said = bundle.call(&["run"]);
    assert_eq!(said.out, "sleep\n", "{said:?}");
    // Root of the container is not the root that this procfs belongs to.
    assert!(said.err.contains("Permission denied"), "{said:?}");
}

/// As `ctr run --userns` has them: bundle and state where only root gets to.
#[test]
fn what_is_the_runtimes_own_need_not_be_reached_by_the_containers_user() {
    let mut bundle = Bundle::new("echo here");
    bundle.user_namespace();
    let state = bundle.path("state");
    fs::create_dir(&state).unwrap();
    for directory in [&bundle.path(""), &state] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    assert_eq!(bundle.run(), "here\n");
    bundle.create();
    bundle.ok(&["start"]);
    wait_until("its word", || bundle.output() == "here\n");
}

/// The kernel asks for capabilities outside: so it is the maker that sets them (here it shows by the process they are set
/// for, since the machine of the tests may raise no limit).
#[test]
fn limits_and_the_oom_score_are_set_from_outside() {
    let mut bundle = Bundle::new("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; ulimit -c");
    bundle.user_namespace();
    bundle.spec["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
    bundle.spec["process"]["oomScoreAdj"] = json!(300);
    assert_eq!(bundle.run(), "100\n200\n300\n0\n");
    let run = bundle.coracle(&["run", &bundle.id]);
    let trace = bundle.path("trace");
    // Without -f: of the maker alone.
    let mut strace = Command::new("strace");
    strace
        .args(["-qq", "-e", "trace=prlimit64,open,openat", "-o"])
        .arg(&trace);
    strace
        .arg(run.get_program())
        .args(run.get_args())
        .current_dir(run.get_current_dir().unwrap());
    let _ = Said::by(strace.stdin(Stdio::null())).ok();
    let trace = fs::read_to_string(&trace).unwrap();
    let of_another = |line: &&str| line.starts_with("prlimit64(") && !line.starts_with("prlimit64(0,");
    assert_eq!(trace.lines().filter(of_another).count(), 2, "{trace}");
    assert!(trace.contains("/oom_score_adj\""), "{trace}");

    // An exec is another process; the container lives on.
    bundle.spec["process"]["args"] = json!(["sleep", "1000"]);
    bundle.start();
    assert_eq!(
        bundle.exec("ulimit -n; cat /proc/self/oom_score_adj").ok(),
        "100\n300\n"
    );
}

/// Several ranges: only newuidmap may write them for a user without privileges, and where it is not there the error says so.
#[test]
fn ids_of_a_user_without_privileges_are_mapped_by_newuidmap() {
    let mut bundle = Bundle::new("cat /proc/self/uid_map; id -u");
    bundle.namespaces(&["user", "mount", "pid", "uts"]);
    bundle.spec["linux"]["uidMappings"] = json!([
        {"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 500_000, "size": 1000}]);
    bundle.spec["linux"]["gidMappings"] = bundle.spec["linux"]["uidMappings"].clone();
    bundle.spec["linux"]["resources"] = json!(null);
    // Without a network namespace of its own it may mount no sysfs.
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !["/sys", "/dev/pts"].contains(&mount["destination"].as_str().unwrap()));
    let home = bundle.path("");
    let chowned = Command::new("chown")
        .args(["-R", "-h", &USER.to_string()])
        .arg(&home)
        .status();
    assert!(chowned.unwrap().success());
    let said = as_user(&bundle, true);
    let words: Vec<&str> = said.out.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", &USER.to_string(), "1", "1", "500000", "1000", "0"],
        "{said:?}"
    );
    let said = as_user(&bundle, false);
    assert!(said.code != 0 && said.err.contains("newuidmap"), "{said:?}");
    let _ = fs::remove_dir_all(bundle.path("state"));
}

/// In a mount namespace of its own where /etc/subuid lends the user ids, with newuidmap in PATH or without.
fn as_user(bundle: &Bundle, with_mapper: bool) -> Said {
    let run = bundle.coracle(&["run", &bundle.id]);
    chown(bundle.path("config.json"), Some(USER), None).unwrap();
    let lent = bundle.path("lent");
    fs::write(&lent, format!("{USER}:500000:1000\n")).unwrap();
    let programs = bundle.path("programs");
    fs::create_dir_all(&programs).unwrap();
    fs::copy(run.get_program(), programs.join("coracle")).unwrap();
    let path = if with_mapper { "/usr/bin:/bin" } else { "/nowhere" };
    let args: Vec<_> = run
        .get_args()
        .map(|arg| arg.to_str().unwrap().to_owned())
        .collect();
    let script = format!(
        "for file in /etc/subuid /etc/subgid; do [ -e $file ] || : > $file; mount --bind {lent} $file; done; cd {home} && \
         exec setpriv --reuid {USER} --regid {USER} --clear-groups env -i PATH={path} {program} {args}",
        lent = lent.display(),
        home = bundle.path("").display(),
        program = programs.join("coracle").display(),
        args = args.join(" "),
    );
    Said::by(
        Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null()),
    )
}

/// The ids of a user namespace that is joined are known only once there is a process in it.
#[test]
fn streams_open_by_their_names_in_a_joined_user_namespace() {
    let mut owner = Bundle::new("sleep 1000");
    owner.user_namespace();
    let pid = owner.create();
    let mut bundle = Bundle::new("echo out > /dev/stdout; echo error > /dev/stderr");
    bundle.user_namespace();
    bundle.spec["linux"]
        .as_object_mut()
        .unwrap()
        .remove("uidMappings");
    bundle.spec["linux"]
        .as_object_mut()
        .unwrap()
        .remove("gidMappings");
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "user");
    bundle.namespace("user", Some(format!("/proc/{pid}/ns/user").as_ref()));
    bundle.spec["process"]["user"] = json!({"uid": 7, "gid": 7});
    bundle.start();
    wait_until("it says so", || bundle.output().ends_with("error\n"));
}

fn wait_until_some<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until("a value", || {
        found = poll();
        found.is_some()
    });
    found.unwrap()
}

/// nobody of Debian: newuidmap wants a name.
const USER: u32 = 65_534;

//! Namespaces: new, joined, with ids, offsets and parameters of their own.

use coracle_tests::bundle::Bundle;
use coracle_tests::process::Helper;
use coracle_tests::wait::wait_until;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use std::path::{Path, PathBuf};

fn own(kind: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap()
}

/// The namespaces a container sees itself in, one line per kind.
fn inside(bundle: &Bundle) -> Vec<(String, PathBuf)> {
    let output = bundle.run();
    let line = |line: &str| {
        line.split_once(' ')
            .map(|(kind, link)| (kind.to_owned(), PathBuf::from(link)))
    };
    output.lines().filter_map(line).collect()
}

const SHOW: &str =
    "for kind in mnt pid net ipc uts user cgroup time; do echo $kind $(readlink /proc/self/ns/$kind); done";

#[test]
fn listed_kinds_are_new_and_others_are_shared() {
    let mut bundle = Bundle::new(SHOW);
    for kind in ["cgroup", "time", "user"] {
        bundle.namespace(kind, None);
    }
    bundle.user_namespace();
    for (kind, link) in inside(&bundle) {
        assert_ne!(link, own(&kind), "{kind}");
    }
    let mut bundle = Bundle::new(SHOW);
    bundle.spec["hostname"] = json!(null);
    bundle.namespaces(&["mount"]);
    bundle.spec["mounts"].as_array_mut().unwrap().truncate(2);
    for (kind, link) in inside(&bundle) {
        assert_eq!(link == own(&kind), kind != "mnt", "{kind}");
    }
}

#[test]
fn joined_namespaces_are_those_of_the_path() {
    let other = Helper::unshared(&["--net", "--ipc", "--uts", "--cgroup", "--time", "--fork", "--pid"]);
    // The process itself is outside of its new PID namespace; its child is inside.
    let child = format!("/proc/{pid}/task/{pid}/children", pid = other.0.id());
    let child = std::fs::read_to_string(child).unwrap();
    let file = |kind: &str| PathBuf::from(format!("/proc/{}/ns/{kind}", child.trim()));
    let mut bundle = Bundle::new(SHOW);
    bundle.spec["hostname"] = json!(null);
    for (kind, name) in [
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
        ("pid", "pid"),
        ("time", "time"),
    ] {
        bundle.namespace(kind, Some(&file(name)));
    }
    for (kind, link) in inside(&bundle) {
        let joined = std::fs::read_link(file(&kind)).unwrap();
        assert_eq!(
            link == joined,
            kind != "mnt",
            "{kind}: {} {}",
            link.display(),
            joined.display()
        );
    }
}

#[test]
fn a_file_that_is_no_such_namespace_is_refused() {
    let mut bundle = Bundle::new("true");
    bundle.namespace("network", Some(Path::new("/proc/self/ns/uts")));
    assert!(bundle.fails(&["run"]).contains("is not a net namespace"));
    bundle.namespace("network", Some(Path::new("/etc/passwd")));
    assert!(
        bundle
            .fails(&["run"])
            .contains("/etc/passwd is not a net namespace")
    );
    bundle.namespace("network", Some(Path::new("/nowhere/net")));
    assert!(
        bundle
            .fails(&["run"])
            .contains("opening the net namespace /nowhere/net")
    );
    bundle.assert_nothing_left();
}

#[test]
fn the_host_name_and_the_domain_name_are_set() {
    let mut bundle = Bundle::new("hostname; cat /proc/sys/kernel/domainname");
    bundle.spec["domainname"] = json!("example.test");
    assert_eq!(bundle.run(), "bundle\nexample.test\n");
}

#[test]
fn the_loopback_interface_of_a_new_network_is_up() {
    let bundle = Bundle::new("cat /sys/class/net/lo/flags");
    assert_eq!(bundle.run(), "0x9\n");
}

#[test]
fn ids_are_mapped_in_a_user_namespace() {
    let mut bundle = Bundle::new(
        "cat /proc/self/uid_map /proc/self/gid_map; id -u; touch /made; stat -c %u:%g /bin/busybox",
    );
    bundle.user_namespace();
    let output = bundle.run();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "100000", "65536", "0", "100000", "65536", "0", "0:0"]
    );
    let made = std::fs::metadata(bundle.root("made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
}

#[test]
fn a_user_namespace_has_devices_volumes_and_a_cgroup_view() {
    let mut bundle = Bundle::new(
        "echo x >/dev/null && head -c 4 /dev/zero | wc -c; cat /vol/file; stat -c %t:%T /dev/null; ls /sys/fs/cgroup | wc -l",
    );
    bundle.user_namespace();
    bundle.namespace("cgroup", None);
    bundle.mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "ro"],
    );
    let volume = bundle.volume("private", "/vol", &["rbind", "ro"]);
    std::fs::write(volume.join("file"), "reached\n").unwrap();
    // Its user could not even look into the directory above.
    std::fs::set_permissions(
        bundle.path(""),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let output = bundle.run();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["4", "reached", "1:3"], "{output}");
    assert!(lines[3].parse::<u32>().unwrap() > 3, "{output}");
}

#[test]
fn a_user_namespace_can_be_joined_with_the_network_it_owns() {
    let other = Helper::unshared(&["--user", "--map-root-user", "--net"]);
    let mut bundle = Bundle::new(SHOW);
    // Root inside is root outside here, so the root file system needs no other owner.
    bundle.namespace("user", Some(&other.namespace("user")));
    bundle.namespace("network", Some(&other.namespace("net")));
    bundle.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/dev/pts");
    for (kind, link) in inside(&bundle) {
        if ["user", "net"].contains(&kind.as_str()) {
            assert_eq!(
                link,
                std::fs::read_link(other.namespace(&kind)).unwrap(),
                "{kind}"
            );
        } else if ["pid", "mnt", "uts", "ipc"].contains(&kind.as_str()) {
            assert_ne!(link, own(&kind), "{kind}");
        }
    }
}

#[test]
fn a_new_user_namespace_goes_with_a_network_of_the_host() {
    let other = Helper::unshared(&["--net"]);
    let mut bundle = Bundle::new(SHOW);
    bundle.user_namespace();
    bundle.namespace("network", Some(&other.namespace("net")));
    // A sysfs shows a network namespace, which this user namespace does not own.
    bundle.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/sys");
    for (kind, link) in inside(&bundle) {
        if kind == "net" {
            assert_eq!(link, std::fs::read_link(other.namespace("net")).unwrap());
        } else if kind == "user" {
            assert_ne!(link, own(&kind));
        }
    }
}

#[test]
fn the_first_process_is_a_child_of_who_made_it_whatever_it_joins() {
    let other = Helper::unshared(&["--user", "--map-root-user"]);
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.namespace("user", Some(&other.namespace("user")));
    bundle.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/dev/pts");
    let mut run = bundle
        .coracle(&[
            "run",
            "--pid-file",
            bundle.path("pid").to_str().unwrap(),
            &bundle.id,
        ])
        .spawn()
        .unwrap();
    wait_until("the pid file", || bundle.path("pid").exists());
    let pid = std::fs::read_to_string(bundle.path("pid")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("PPid:\t{}\n", run.id())), "{status}");
    bundle.ok(&["delete", "-f"]);
    assert_eq!(run.wait().unwrap().code(), Some(137));
}

/// A process in between makes the first process here. On one processor either may be the first to run.
#[test]
fn the_first_process_may_be_quicker_than_the_one_that_makes_it() {
    let other = Helper::unshared(&["--user", "--map-root-user"]);
    let mut bundle = Bundle::new("echo done");
    bundle.namespace("user", Some(&other.namespace("user")));
    bundle.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["destination"] != "/dev/pts");
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).unwrap();
    let mut one = CpuSet::new();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap());
    one.set(first.unwrap()).unwrap();
    sched_setaffinity(this_thread, &one).unwrap();
    let runs: Vec<_> = (0..30).map(|_| bundle.call(&["run"])).collect();
    sched_setaffinity(this_thread, &allowed).unwrap();
    for said in runs {
        assert_eq!(said.ok(), "done\n");
    }
}

#[test]
fn time_has_the_offsets_asked_for() {
    let mut bundle = Bundle::new("cat /proc/uptime");
    bundle.namespace("time", None);
    bundle.spec["linux"]["timeOffsets"] =
        json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 77}});
    let seconds: f64 = bundle.run().split(' ').next().unwrap().parse().unwrap();
    assert!(seconds > 1_000_000.0, "{seconds}");
}

#[test]
fn parameters_are_set_in_the_containers_namespaces_only() {
    let mut bundle = Bundle::new(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_unprivileged_port_start",
    );
    let before = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmni": "123", "net/ipv4/ip_unprivileged_port_start": "0"});
    assert_eq!(bundle.run(), "1\n123\n0\n");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(),
        before
    );
}

#[test]
fn parameters_of_the_host_are_refused() {
    for (key, namespaces) in [
        ("kernel.pid_max", &["mount", "pid", "uts", "ipc", "network"][..]),
        ("net.ipv4.ip_forward", &["mount", "pid", "uts", "ipc"]),
        ("kernel.shmmax", &["mount", "pid", "uts", "network"]),
        ("kernel.hostname", &["mount", "pid", "uts"]),
        (
            "net.ipv4/../../kernel/pid_max",
            &["mount", "pid", "uts", "network"],
        ),
    ] {
        let mut bundle = Bundle::new("true");
        bundle.namespaces(namespaces);
        bundle.spec["linux"]["sysctl"] = json!({ key: "1" });
        let error = bundle.fails(&["run"]);
        assert!(
            error.contains("linux.sysctl") && error.contains(&key.replace('\\', "")),
            "{key}: {error}"
        );
        bundle.assert_nothing_left();
    }
    let mut bundle = Bundle::new("true");
    bundle.namespace("network", Some(Path::new("/proc/self/ns/net")));
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    assert!(
        bundle
            .fails(&["run"])
            .contains("the network namespace to join is the host's")
    );
}

#[test]
fn the_cgroup_namespace_begins_at_the_containers_cgroup() {
    let mut bundle = Bundle::new("cat /proc/self/cgroup");
    bundle.namespace("cgroup", None);
    let output = bundle.call(&["run"]);
    assert!(output.code == 0);
    for line in output.all().lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
}

#[test]
fn in_a_user_namespace_streams_of_the_host_open_by_their_names() {
    let mut bundle = Bundle::new("echo out > /dev/stdout; echo error > /dev/stderr; exec sleep 1000");
    bundle.user_namespace();
    bundle.spec["process"]["user"] = json!({"uid": 7, "gid": 7});
    bundle.start();
    wait_until("it says so", || bundle.output().ends_with("error\n"));
    let said = bundle.exec("echo out > /proc/self/fd/1; echo error > /proc/self/fd/2");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("out\n", "error\n"));
}

#[test]
fn devices_of_the_host_stay_the_hosts() {
    use std::os::unix::fs::MetadataExt;
    for user_namespace in [false, true] {
        let mut bundle = Bundle::new("true");
        if user_namespace {
            bundle.user_namespace();
        }
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        // Nodes of our own: should they be given away, nobody else is hurt.
        let make = |name: &str, minor: &str| {
            let node = bundle.path(name);
            let made = std::process::Command::new("mknod")
                .arg(&node)
                .args(["c", "1", minor])
                .status();
            assert!(made.unwrap().success());
            node
        };
        let (zero, full) = (make("zero", "5"), make("full", "7"));
        let mut command = bundle.coracle(&["run", &bundle.id]);
        command.stdin(std::fs::File::open(&zero).unwrap());
        command.stdout(std::fs::OpenOptions::new().write(true).open(&full).unwrap());
        assert!(command.status().unwrap().success());
        for node in [zero, full] {
            assert_eq!(std::fs::metadata(&node).unwrap().uid(), 0, "{}", node.display());
        }
    }
}

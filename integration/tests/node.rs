//! The fixtures hold what they promise: a node keeps to itself, and its leak check finds what is left.

use std::fs;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

use coracle_integration::daemon::Daemon;
use coracle_integration::leak::{Kind, Snapshot};
use coracle_integration::{cgroups, node, pods, wait};

/// One thing that a program could leave, and the kind under which it must be found.
const LEAKS: &[(&str, Kind, &str)] = &[
    ("mount", Kind::Mount, "mkdir /run/m && mount -t tmpfs left /run/m"),
    (
        "second mount on one point",
        Kind::Mount,
        "mount -t tmpfs tmpfs /run",
    ),
    (
        "named network namespace",
        Kind::NetworkNamespace,
        "ip netns add left",
    ),
    ("process", Kind::Process, "sleep 100 & disown"),
    (
        "process with a network namespace",
        Kind::NetworkNamespace,
        "setsid unshare --net sleep 100 &",
    ),
    ("veth", Kind::Link, "ip link add left type veth peer name right"),
    ("bridge", Kind::Link, "ip link add other type bridge"),
    ("address", Kind::Address, "ip addr add 192.0.2.1/24 dev lo"),
    (
        "IPv6 address",
        Kind::Address,
        "ip -6 addr add 2001:db8::1/64 dev lo",
    ),
    ("route", Kind::Route, "ip route add 198.51.100.0/24 dev lo"),
    (
        "route of another table",
        Kind::Route,
        "ip route add 198.51.100.0/24 dev lo table 77",
    ),
    ("table", Kind::Nftables, "nft add table inet left"),
    (
        "sysctl",
        Kind::Sysctl,
        "at=/proc/sys/net/ipv4/ip_forward; echo $((1 - $(cat $at))) > $at",
    ),
    (
        "lease",
        Kind::File,
        "mkdir -p /var/lib/cni/networks/pods && touch /var/lib/cni/networks/pods/10.0.0.2",
    ),
];

#[test]
fn nothing_left_is_nothing_found() {
    node::run("nothing-left", |node| {
        let before = Snapshot::take(node);
        node.does(&["ip", "link", "add", "va", "type", "veth", "peer", "name", "vb"]);
        node.does(&["ip", "link", "del", "va"]);
        before.assert_nothing_left(node);
    });
}

#[test]
fn everything_left_is_found() {
    node::run("everything-left", |node| {
        for (name, kind, leak) in LEAKS {
            let before = Snapshot::take(node);
            node.does(&["bash", "-c", &format!("{{ {leak}\n }} >/dev/null 2>&1")]);
            // `setsid unshare &` needs its moment.
            let found = coracle_integration::wait::until(coracle_integration::wait::SOON, || {
                let difference = before.difference(node).to_string();
                if difference.contains(&format!("left behind: {kind:?} ")) {
                    Ok(())
                } else {
                    Err(difference)
                }
            });
            assert!(found.is_ok(), "a {name} was not found; the check said: {found:?}");
        }
    });
}

#[test]
fn an_element_of_a_set_is_found() {
    node::run("element-left", |node| {
        node.does(&["nft", "add table inet t; add set inet t s { type ipv4_addr; }"]);
        let before = Snapshot::take(node);
        node.does(&["nft", "add element inet t s { 192.0.2.7 }"]);
        let difference = before.difference(node).to_string();
        assert!(
            difference.contains("element of inet t s: \"192.0.2.7\""),
            "{difference}"
        );
        assert_eq!(difference.lines().count(), 1, "{difference}");
    });
}

#[test]
fn what_a_daemon_keeps_of_a_pod_is_found() {
    node::run("pod-left", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let config = pods::host_network_sandbox("left", &node.folder("logs"));
        let pod = cri.run(&config);
        let container = cri.launch(&pod, &config, &pods::container("c", &["sleep", "1000"]));
        fs::write(node.folder("logs/left").join("c.log.tmp"), "").unwrap();
        let difference = before.difference(node).to_string();
        let state = daemon.state().join("pods").join(&pod).display().to_string();
        let layer = daemon
            .root()
            .join("containers")
            .join(&container)
            .display()
            .to_string();
        for wanted in [
            format!("Record pod {pod}"),
            format!("Record container {container}"),
            format!("File {state}"),
            format!("File {layer}"),
            format!("File {}", node.folder("logs/left").join("c.log.tmp").display()),
        ] {
            assert!(
                difference.contains(&wanted),
                "{wanted} is not among\n{difference}"
            );
        }
        assert!(
            !difference.contains("c.log\n"),
            "a container's log is the client's: {difference}"
        );
        cri.discard(&pod);
        fs::remove_file(node.folder("logs/left").join("c.log.tmp")).unwrap();
        before.assert_nothing_left(node);
    });
}

#[test]
fn what_is_taken_away_is_found() {
    node::run("taken-away", |node| {
        node.does(&["ip", "link", "add", "va", "type", "bridge"]);
        let before = Snapshot::take(node);
        node.does(&["ip", "link", "del", "va"]);
        let difference = before.difference(node).to_string();
        assert!(
            difference.contains("taken away:  Link va (bridge)"),
            "{difference}"
        );
    });
}

#[test]
fn a_mount_that_is_taken_away_is_found() {
    node::run("mount-taken", |node| {
        node.does(&[
            "mount",
            "-t",
            "tmpfs",
            "own",
            node.folder("own").to_str().unwrap(),
        ]);
        let before = Snapshot::take(node);
        node.does(&["umount", node.folder("own").to_str().unwrap()]);
        let difference = before.difference(node).to_string();
        assert!(difference.contains("taken away:  Mount "), "{difference}");
        assert_eq!(difference.lines().count(), 1, "{difference}");
    });
}

/// Removing a directory takes the mounts on it away in every other mount namespace (rename(2) and rmdir(2) do, since Linux
/// 3.18): that is how mounts of the machine go while a test runs.
#[test]
fn a_mount_of_the_machine_that_goes_is_no_ones_fault() {
    // This thread plays the machine, and its namespace is the one that the node's is made from.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mounted = folder.path().join("of-the-machine");
    fs::create_dir(&mounted).unwrap();
    mount(Some("tmpfs"), &mounted, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
    let (ready, node_is_ready) = mpsc::channel::<()>();
    let (gone, mount_is_gone) = mpsc::channel::<()>();
    let path = mounted.clone();
    let machine = thread::spawn(move || {
        node_is_ready.recv().unwrap();
        umount(&path).unwrap();
        fs::remove_dir(&path).unwrap();
        gone.send(()).unwrap();
    });
    node::run("machine-mount", move |node| {
        let is_there = || {
            let table = fs::read_to_string("/proc/1/mountinfo").unwrap();
            table.contains(mounted.to_str().unwrap())
        };
        assert!(is_there());
        let before = Snapshot::take(node);
        ready.send(()).unwrap();
        mount_is_gone.recv().unwrap();
        assert!(!is_there());
        let difference = before.difference(node);
        assert!(difference.is_empty(), "{difference}");
    });
    machine.join().unwrap();
}

#[test]
fn a_failed_test_leaves_nothing_on_the_machine() {
    let (tell, hear) = mpsc::channel();
    let failed = std::panic::catch_unwind(|| {
        node::run("fails", move |node| {
            cgroups::create(node.cgroup()).unwrap();
            tell.send((node.cgroup().to_owned(), node.scratch().to_path_buf()))
                .unwrap();
            node.does(&[
                "mount",
                "-t",
                "tmpfs",
                "left",
                node.folder("mounted").to_str().unwrap(),
            ]);
            // A frozen process can neither be ended nor waited for, until something thaws it. (It may be frozen before its
            // execve: it must not hold the pipes of our command then.)
            let freezer = format!("/sys/fs/cgroup/freezer{}", node.cgroup());
            if fs::exists(&freezer).unwrap() {
                node.does(&["sh", "-c", &format!(
                    "exec >/dev/null 2>&1; setsid sleep 1000 & echo $! > {freezer}/cgroup.procs; echo FROZEN > {freezer}/freezer.state"
                )]);
            }
            // Its death must not keep the node.
            #[allow(
                clippy::zombie_processes,
                reason = "that nobody waits for it is what is tested"
            )]
            drop(Command::new("sleep").arg("1000").spawn().unwrap());
            panic!("on purpose");
        });
    });
    assert!(failed.is_err());
    let (cgroup, scratch) = hear.recv().unwrap();
    assert_eq!(cgroups::directories(&cgroup), Vec::<std::path::PathBuf>::new());
    assert!(!scratch.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(scratch.to_str().unwrap()), "{mounts}");
}

#[test]
fn nodes_do_not_see_each_other() {
    node::run("alone", |node| {
        let own = Command::new("hostname").arg("alone").status().unwrap();
        assert!(own.success());
        // The process that keeps the node may still be on its way to its own name.
        wait::until_true(wait::SOON, "nothing else in the node", || {
            node.processes().is_empty()
        });
        let run: Vec<_> = fs::read_dir("/run")
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            run.iter().all(|name| name == "mount"),
            "only what mount(8) makes for itself: {run:?}"
        );
        // Tunnel drivers give every namespace a device when the machine has loaded them; a veth or bridge is another's.
        let links = || -> Vec<String> {
            let entries = fs::read_dir("/sys/class/net").unwrap();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let own = node.output(&[
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            "mount -t sysfs s /sys && ls /sys/class/net",
        ]);
        let mut seen = links();
        seen.sort();
        assert_eq!(
            seen,
            own.split_whitespace().collect::<Vec<_>>(),
            "what any new namespace has"
        );
        let thread = node.spawn_thread(move || links().len());
        assert_eq!(thread.join().unwrap(), seen.len());
        assert_eq!(
            node.output(&["sh", "-c", "echo $PPID"]).trim(),
            "0",
            "the parent is outside"
        );
    });
    assert_ne!(
        fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(),
        "alone"
    );
}

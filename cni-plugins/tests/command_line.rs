//! The program under its own name.

mod node;

use node::{PROGRAM, attachment, caller, list, on_node};
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).env_clear().output().unwrap()
}

#[test]
fn wrong_command_lines_say_how_it_is_called() {
    for args in [
        &[][..],
        &["frob"],
        &["install"],
        &["uninstall-network"],
        &["uninstall-network", "--frob"],
        &["uninstall-network", "a", "b"],
        &["--version", "x"],
        &["install", "a", "b"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Usage"),
            "{args:?}"
        );
    }
    assert_eq!(
        run(&["--version"]).stdout,
        format!("coracle-cni {}\n", env!("CARGO_PKG_VERSION")).as_bytes()
    );
    let output = run(&["uninstall-network", "../x"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn install_replaces_links_and_never_files() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("bin");
    let args = ["install", target.to_str().unwrap()];
    for _ in 0..2 {
        assert!(run(&args).status.success());
    }
    let mut names: Vec<_> = target
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "bridge",
            "firewall",
            "host-local",
            "loopback",
            "portmap",
            "tuning"
        ]
    );
    std::fs::remove_file(target.join("tuning")).unwrap();
    std::fs::write(target.join("tuning"), "mine").unwrap();
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tuning"));
    // Without a command a plugin says what it is.
    let output = Command::new(target.join("bridge")).env_clear().output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")
    );
}

#[test]
fn a_network_in_use_is_only_removed_by_force() {
    on_node(|node| {
        let netns = node.netns("a");
        caller().add(&list("1.0.0"), &attachment("a", &netns)).unwrap();
        let output = run(&["uninstall-network", "net"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("net/a/eth0"));
        assert!(run(&["uninstall-network", "net", "--force"]).status.success());
        // Twice is fine, and so is a network that never was.
        assert!(run(&["uninstall-network", "net"]).status.success());
        assert!(run(&["uninstall-network", "other"]).status.success());
    });
}

#[test]
fn networks_that_share_a_bridge_and_settings_leave_them_to_the_last_one() {
    on_node(|node| {
        let netns = node.netns("a");
        let mut conf = node::bridge_conf();
        conf["name"] = "second".into();
        conf["cniVersion"] = "1.0.0".into();
        caller().add(&list("1.0.0"), &attachment("a", &netns)).unwrap();
        caller()
            .del(&list("1.0.0"), &attachment("a", &netns), None, false)
            .unwrap();
        let other = node.netns("b");
        let env = |command| {
            [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "b"),
                ("CNI_NETNS", other.to_str().unwrap()),
            ]
        };
        node.ok("bridge", &env("ADD"), &conf);
        node.until("the end of the first veth", || node.links().len() == 2);
        node.uninstall("net");
        assert_eq!(node.links().len(), 2);
        assert_eq!(node::setting("ipv4/ip_forward"), "1");
        assert!(node.rules().contains("second/b/eth0"));
        node.ok("bridge", &env("DEL"), &conf);
        node.until("the end of the veth", || node.links() == ["cni0"]);
        node.uninstall("second");
    });
}

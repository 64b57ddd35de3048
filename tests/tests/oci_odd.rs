//! Bundles that are odd and run everywhere else: each with the value that is right (decision 0018).

use coracle_tests::bundle::Bundle;
use serde_json::json;
use std::fs;

/// fsconfig(2) takes 255 bytes of a value, mount(2) a page of options.
#[test]
fn mount_options_are_as_long_as_the_kernel_takes_them() {
    let mut bundle = Bundle::new(
        "cat /overlay/file; cat /overlay/last; touch /overlay/x; grep ' /overlay ' /proc/self/mountinfo",
    );
    let layers = bundle.path("layers");
    let mut lower = Vec::new();
    for number in 0..20 {
        let layer = layers.join(format!("layer-with-a-long-name-{number:03}"));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join("file"), format!("of layer {number}\n")).unwrap();
        lower.push(layer.display().to_string());
    }
    fs::write(layers.join("layer-with-a-long-name-019/last"), "the last\n").unwrap();
    let option = format!("lowerdir={}", lower.join(":"));
    assert!(option.len() > 1000);
    bundle.mount("/overlay", "overlay", "overlay", &[&option, "ro", "nosuid"]);
    let said = bundle.call(&["run"]);
    assert!(said.out.starts_with("of layer 0\nthe last\n"), "{said:?}");
    assert!(said.err.contains("Read-only"), "{said:?}");
    let mount = said.out.lines().last().unwrap();
    assert!(mount.contains("ro,nosuid"), "{mount}");

    // More than a page is nothing that could be mounted: the error says what and how much.
    let mut bundle = Bundle::new("true");
    let option = format!("lowerdir={}", vec!["/a-directory"; 400].join(":"));
    bundle.mount("/overlay", "overlay", "overlay", &[&option]);
    let error = bundle.fails(&["run"]);
    assert!(error.contains("/overlay") && error.contains("4095"), "{error}");
}

#[test]
fn options_of_a_mount_can_be_joined_by_commas_and_those_of_others_are_left_out() {
    let mut bundle = Bundle::new("grep -E ' /(joined|bound) ' /proc/self/mountinfo");
    bundle.mount(
        "/joined",
        "tmpfs",
        "tmpfs",
        &["nosuid,noexec,mode=700", "size=64k,ro"],
    );
    // Podman's own, for volumes.
    bundle.volume("bound", "/bound", &["copy", "ro", "z"]);
    let said = bundle.call(&["run"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!((said.code, lines.len()), (0, 2), "{said:?}");
    let of = |place: &str| *lines.iter().find(|line| line.contains(place)).unwrap();
    for option in ["ro,nosuid,noexec", "size=64k", "mode=700"] {
        assert!(of(" /joined ").contains(option), "{lines:?}");
    }
    assert!(of(" /bound ").contains(" ro,"), "{lines:?}");
    for option in ["copy", r#"\"z\""#] {
        assert!(
            said.err.contains("warning") && said.err.contains(option),
            "{said:?}"
        );
    }
}

#[test]
fn a_process_without_a_user_is_roots() {
    let mut bundle = Bundle::new("id -u; id -g");
    bundle.spec["process"].as_object_mut().unwrap().remove("user");
    assert_eq!(bundle.run(), "0\n0\n");
}

/// Each line of the image's passwd counts for itself.
#[test]
fn home_is_found_between_odd_lines() {
    let mut bundle = Bundle::new("echo $HOME");
    bundle.spec["process"]["user"] = json!({"uid": 7, "gid": 7});
    let mut passwd = b"\xff\xfe\n+::::::\nbad:x:-1:0::/a:\nhuge:x:99999999999:0::/b:\n\0\n".to_vec();
    passwd.extend(vec![b'x'; 1 << 20]);
    passwd.extend(b"\nr\xe9al:x:7:7:\xe9:/home/there:/bin/sh\r\nlast:x:8:8::/la");
    fs::create_dir_all(bundle.root("etc")).unwrap();
    fs::write(bundle.root("etc/passwd"), passwd).unwrap();
    assert_eq!(bundle.run(), "/home/there\n");
    for other in ["directory", "fifo"] {
        fs::remove_file(bundle.root("etc/passwd")).unwrap_or_default();
        match other {
            "directory" => fs::create_dir(bundle.root("etc/passwd")).unwrap(),
            _ => {
                fs::remove_dir(bundle.root("etc/passwd")).unwrap();
                nix::unistd::mkfifo(&bundle.root("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            }
        }
        assert_eq!(bundle.run(), "/\n", "{other}");
    }
}

/// Podman exits with 126 where it finds these words.
#[test]
fn a_directory_is_no_program_and_permission_is_denied() {
    let mut bundle = Bundle::new("sleep 1000");
    bundle.start();
    let said = bundle.exec_with(&[], &["/bin"]);
    assert!(
        said.code != 0 && said.err.contains("permission denied"),
        "{said:?}"
    );
    bundle.ok(&["delete", "--force"]);
    bundle.spec["process"]["args"] = json!(["/bin"]);
    let error = bundle.fails(&["run"]);
    assert!(error.contains("permission denied"), "{error}");
}

//! The root file system: mounts, devices, masks, and an image that wants out of it.

use coracle_tests::bundle::Bundle;
use coracle_tests::process::Helper;
use coracle_tests::program::{self, Said};
use coracle_tests::wait::wait_until;
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The options of the mount at `path` in the container, before and after the dash of mountinfo.
fn options(bundle: &Bundle, path: &str) -> (String, String) {
    let mut bundle_output = String::new();
    for line in bundle.run().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if fields.get(4) == Some(&path) {
            let dash = fields.iter().position(|field| *field == "-").unwrap();
            return (format!(",{},", fields[5]), format!(",{},", fields[dash + 3]));
        }
        bundle_output.push_str(line);
        bundle_output.push('\n');
    }
    panic!("no mount at {path}: {bundle_output}")
}

const MOUNTINFO: &str = "cat /proc/self/mountinfo";

#[test]
fn options_reach_the_mount() {
    for (given, expected) in [
        (&["bind", "ro"][..], &["ro"][..]),
        (
            &["rbind", "nosuid", "nodev", "noexec"],
            &["rw", "nosuid", "nodev", "noexec"],
        ),
        (&["bind", "noatime"], &["noatime"]),
        (&["bind", "nodiratime", "relatime"], &["nodiratime", "relatime"]),
        (&["bind", "rw", "ro", "rw"], &["rw"]),
        (&["bind", "nosymfollow"], &["nosymfollow"]),
        (&["rbind", "rro", "rnosuid"], &["ro", "nosuid"]),
    ] {
        let mut bundle = Bundle::new(MOUNTINFO);
        bundle.volume("volume", "/mnt/volume", given);
        let (options, _) = options(&bundle, "/mnt/volume");
        for option in expected {
            assert!(options.contains(&format!(",{option},")), "{given:?}: {options}");
        }
    }
}

#[test]
fn file_systems_get_their_own_options() {
    let mut bundle = Bundle::new("cat /proc/self/mountinfo; stat -c %a /data /tmp");
    std::fs::set_permissions(
        bundle.root("tmp"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
    .unwrap();
    bundle.mount(
        "/data",
        "tmpfs",
        "tmpfs",
        &["size=1024k", "mode=700", "nr_inodes=20", "nosuid", "sync"],
    );
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    let output = bundle.run();
    let line = output.lines().find(|line| line.contains(" /data ")).unwrap();
    for part in ["nosuid", "size=1024k", "mode=700", "nr_inodes=20", "sync"] {
        assert!(line.contains(part), "{line}");
    }
    // A tmpfs without a mode keeps that of the directory it covers.
    assert!(output.ends_with("700\n1777\n"), "{output}");
}

#[test]
fn a_tmpfs_begins_with_a_copy_of_what_it_covers() {
    use std::os::unix::fs::PermissionsExt;
    let mut bundle = Bundle::new(
        "cd /data; cat a/file; readlink link; readlink a/out; stat -c '%n %a %u:%g %Y %F' . a a/file link a/tool pipe; \
         test -e a/node -o -e a/hidden/volume || echo left out; stat -f -c %T . ; echo new > a/file; rm link; \
         grep ' /data ' /proc/self/mountinfo",
    );
    let data = bundle.root("data");
    std::fs::create_dir_all(data.join("a/hidden")).unwrap();
    std::fs::write(data.join("a/file"), "of the image\n").unwrap();
    std::fs::write(data.join("a/tool"), "").unwrap();
    symlink("a/file", data.join("link")).unwrap();
    symlink("/etc/passwd", data.join("a/out")).unwrap();
    let prepare = "cd $0; mkfifo pipe; mknod a/node c 1 3; chown -R 7:8 .; chmod 2750 a; chmod 1757 .; chmod 4711 a/tool; \
                   chmod 600 a/file pipe; touch -h -d @1000 a/out a/file a/tool link pipe; touch -d @2000 a .";
    let prepared = Command::new("sh").args(["-ec", prepare]).arg(&data).status();
    assert!(prepared.unwrap().success());
    let volume = bundle.volume("volume", "/data/a/hidden", &["bind"]);
    std::fs::write(volume.join("volume"), "").unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid", "size=1m"]);
    let output = bundle.run();
    let expected = "of the image\na/file\n/etc/passwd\n. 1757 7:8 2000 directory\na 2750 7:8 2000 directory\n\
        a/file 600 7:8 1000 regular file\nlink 777 7:8 1000 symbolic link\na/tool 4711 7:8 1000 regular empty file\n\
        pipe 600 7:8 1000 fifo\nleft out\ntmpfs\n";
    assert!(output.starts_with(expected), "{output}");
    assert!(
        output.contains("nosuid") && output.contains("size=1024k"),
        "{output}"
    );
    // The image has what it had.
    let kept = std::fs::read_to_string(data.join("a/file")).unwrap();
    assert_eq!(kept, "of the image\n");
    assert!(data.join("link").is_symlink());
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1757);
}

#[test]
fn a_read_only_tmpfs_in_a_read_only_root_has_its_copy() {
    let mut bundle = Bundle::new(
        "cat /fixed/file /loose/file; touch /fixed/x || echo refused; touch /loose/x && echo written; stat -c '%a %u' /fixed",
    );
    bundle.spec["root"]["readonly"] = json!(true);
    for name in ["fixed", "loose"] {
        std::fs::create_dir(bundle.root(name)).unwrap();
        std::fs::write(bundle.root(name).join("file"), format!("{name}\n")).unwrap();
    }
    bundle.mount(
        "/fixed",
        "tmpfs",
        "tmpfs",
        &["ro", "tmpcopyup", "mode=711", "uid=9"],
    );
    bundle.mount("/loose", "tmpfs", "tmpfs", &["tmpcopyup"]);
    // Where nothing is there is nothing to be copied.
    bundle.mount("/made/here", "tmpfs", "tmpfs", &["tmpcopyup"]);
    for own_user_namespace in [false, true] {
        if own_user_namespace {
            bundle.user_namespace();
        }
        let output = bundle.call(&["run"]).all();
        for part in ["fixed\nloose\nrefused\nwritten\n711 9\n", "Read-only file system"] {
            assert!(output.contains(part), "{output}");
        }
    }
    assert!(!bundle.root("loose/x").exists());
}

#[test]
fn a_copy_into_a_tmpfs_follows_no_link_and_says_what_failed() {
    let mut bundle = Bundle::new("ls -A /data /data/link/ 2>&1; echo done");
    let canary = bundle.path("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("secret"), "of the host").unwrap();
    std::fs::create_dir(bundle.root("data")).unwrap();
    symlink(&canary, bundle.root("data/link")).unwrap();
    symlink(canary.join("secret"), bundle.root("data/file")).unwrap();
    // The destination itself is a link out of the root: it means a path in the root.
    symlink(&canary, bundle.root("out")).unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    bundle.mount("/out", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let output = bundle.run();
    assert!(
        output.contains("/data:\nfile\nlink\n") && !output.contains("secret"),
        "{output}"
    );
    // Too much for the tmpfs, and too deep.
    std::fs::create_dir_all(bundle.root("data/sub")).unwrap();
    std::fs::write(bundle.root("data/sub/large"), vec![1; 1 << 20]).unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "size=64k"]);
    bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| {
        mount["destination"] != "/data" || mount["options"] == json!(["tmpcopyup", "size=64k"])
    });
    let error = bundle.fails(&["run"]);
    assert!(
        error.contains("mounting /data (tmpfs): copying /data/sub/large"),
        "{error}"
    );
    assert!(error.contains("No space left"), "{error}");
    std::fs::remove_file(bundle.root("data/sub/large")).unwrap();
    std::fs::create_dir_all(bundle.root(&format!("data{}", "/d".repeat(300)))).unwrap();
    let error = bundle.fails(&["run"]);
    assert!(
        error.contains("copying /data/d/d") && error.contains("too long"),
        "{error}"
    );
}

#[test]
fn an_option_that_the_file_system_does_not_know_is_named() {
    let mut bundle = Bundle::new("true");
    bundle.mount("/data", "tmpfs", "tmpfs", &["nonsense=1"]);
    let error = bundle.fails(&["run"]);
    assert!(
        error.contains("/data (tmpfs)") && error.contains("nonsense"),
        "{error}"
    );
    let mut bundle = Bundle::new("true");
    bundle.mount("/data", "nosuchfs", "x", &[]);
    let error = bundle.fails(&["run"]);
    assert!(error.contains("/data (nosuchfs)"), "{error}");
}

#[test]
fn files_and_directories_are_bound_where_nothing_is_yet() {
    let mut bundle = Bundle::new("cat /a/b/file; ls /c/d; cat relative/file");
    std::fs::write(bundle.path("file"), "content\n").unwrap();
    bundle.mount("/a/b/file", "bind", bundle.path("file"), &["bind"]);
    // Sources may be relative to the bundle, destinations to the root.
    bundle.mount("relative/file", "none", "file", &["rbind", "ro"]);
    let dir = bundle.volume("dir", "/c/d", &["rbind"]);
    std::fs::write(dir.join("inside"), "").unwrap();
    assert_eq!(bundle.run(), "content\ninside\ncontent\n");
}

#[test]
fn a_missing_source_is_named() {
    let mut bundle = Bundle::new("true");
    bundle.mount("/mnt", "bind", "/nowhere/at/all", &["bind"]);
    let error = bundle.fails(&["run"]);
    assert!(
        error.contains("mounting /mnt: opening its source /nowhere/at/all"),
        "{error}"
    );
    bundle.assert_nothing_left();
}

#[test]
fn a_read_only_root_is_read_only_and_its_volumes_are_not() {
    let mut bundle = Bundle::new("touch /x || echo refused; touch /vol/y && echo written");
    bundle.spec["root"]["readonly"] = json!(true);
    let volume = bundle.volume("volume", "/vol", &["bind"]);
    let output = bundle.call(&["run"]).all();
    assert!(
        output.contains("refused\n") && output.contains("written\n"),
        "{output}"
    );
    assert!(volume.join("y").exists() && !bundle.root("x").exists());
}

#[test]
fn masked_and_read_only_paths() {
    let mut bundle = Bundle::new(
        "cat /secret; ls /hidden /proc/scsi; touch /hidden/x; echo 1 > /proc/sys/kernel/domainname; touch /fixed/x; cat /proc/keys; true",
    );
    std::fs::create_dir(bundle.root("hidden")).unwrap();
    std::fs::create_dir(bundle.root("fixed")).unwrap();
    std::fs::write(bundle.root("hidden/file"), "visible").unwrap();
    std::fs::write(bundle.root("secret"), "visible").unwrap();
    bundle.spec["linux"]["maskedPaths"] =
        json!(["/secret", "/hidden", "/proc/keys", "/proc/scsi", "/not/there"]);
    bundle.spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/fixed", "/not/there/either"]);
    let output = bundle.call(&["run"]).all();
    assert!(!output.contains("visible"), "{output}");
    assert_eq!(output.matches("Read-only file system").count(), 3, "{output}");
}

#[test]
fn devices_and_links_are_there() {
    let mut bundle = Bundle::new(
        "for d in null zero full random urandom tty; do stat -c '%n %a %t:%T %F' /dev/$d; done; \
         for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; stat -c '%a %u:%g %t:%T' /dev/own /dev/sub/pipe",
    );
    bundle.spec["linux"]["devices"] = json!([
        {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/dev/sub/pipe", "type": "p", "fileMode": 0o600}
    ]);
    let output = bundle.run();
    let expected = "/dev/null 666 1:3 character special file\n/dev/zero 666 1:5 character special file\n\
        /dev/full 666 1:7 character special file\n/dev/random 666 1:8 character special file\n\
        /dev/urandom 666 1:9 character special file\n/dev/tty 666 5:0 character special file\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n640 7:8 1:5\n600 0:0 0:0\n";
    assert_eq!(output, expected);
}

#[test]
fn a_bound_dev_is_left_alone() {
    let mut bundle = Bundle::new("ls /dev");
    let dev = bundle.path("dev");
    std::fs::create_dir(&dev).unwrap();
    bundle.spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}
    ]);
    assert_eq!(bundle.run(), "");
    assert_eq!(std::fs::read_dir(dev).unwrap().count(), 0);
}

#[test]
fn the_cgroup_view_is_the_containers_own() {
    let mut bundle = Bundle::new(
        "cat /sys/fs/cgroup/pids/cgroup.procs; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x 2>/dev/null || echo ro",
    );
    bundle.mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "relatime", "ro"],
    );
    for own_namespace in [false, true] {
        if own_namespace {
            bundle.namespace("cgroup", None);
        }
        let output = bundle.run();
        let words: Vec<&str> = output.split_whitespace().collect();
        // The shell is process 1, cat 2; of the host nobody is to be seen.
        assert!(
            words.starts_with(&["1", "2", "blkio"]) || words.starts_with(&["1", "blkio"]),
            "{output}"
        );
        for name in ["cpu", "memory", "devices", "pids"] {
            assert!(words.contains(&name), "{output}");
        }
        assert!(words.ends_with(&["ro"]), "{output}");
    }
}

#[test]
fn nothing_of_the_hosts_tree_is_left_in_sight() {
    let bundle = Bundle::new("cat /proc/self/mountinfo; ls -a / ; ls -a /../..");
    let output = bundle.run();
    let mounts = output.lines().filter(|line| line.contains(" - "));
    assert_eq!(mounts.count(), 5, "{output}");
}

/// A node of its own whose mounts are shared, as on a systemd host.
fn shared_node(script: &str) -> Command {
    // Private first: a machine that shares its mounts, as systemd sets it up, would see them.
    let script = format!("mount --make-rshared /\n{script}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
    command
}

#[test]
fn propagation_follows_the_volume() {
    for (option, host_sees, container_sees) in [
        ("rprivate", false, false),
        ("rslave", false, true),
        ("rshared", true, true),
    ] {
        let mut bundle = Bundle::new(
            "mount -t tmpfs tmpfs /vol/container; touch /ready; while ! test -e /go; do sleep 0.01; done; \
             test -e /vol/host/mark && echo container-sees; true",
        );
        // Mounting is not for Docker's defaults.
        for set in ["bounding", "effective", "permitted"] {
            bundle.spec["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap()
                .push(json!("CAP_SYS_ADMIN"));
        }
        if option == "rshared" {
            bundle.spec["linux"]["rootfsPropagation"] = json!("rshared");
        }
        let volume = bundle.volume("volume", "/vol", &["rbind", option]);
        std::fs::create_dir(volume.join("container")).unwrap();
        std::fs::create_dir(volume.join("host")).unwrap();
        let root = bundle.path("");
        let script = format!(
            "cd {root}; mount -t tmpfs tmpfs volume; mkdir volume/container volume/host
             {coracle} --root state run {id} > out 2>&1 &
             while ! test -e rootfs/ready; do kill -0 $!; sleep 0.01; done
             mount -t tmpfs tmpfs volume/host; touch volume/host/mark
             grep -q volume/container /proc/self/mountinfo && echo host-sees >> seen || touch seen
             touch rootfs/go; wait; cat out seen
             grep -c {root}/rootfs /proc/self/mountinfo || true",
            root = root.display(),
            coracle = program::path("coracle").display(),
            id = bundle.id,
        );
        // Writes config.json.
        drop(bundle.coracle(&["state"]));
        let said = Said::by(&mut shared_node(&script)).all();
        assert_eq!(said.contains("host-sees"), host_sees, "{option}: {said}");
        assert_eq!(
            said.contains("container-sees"),
            container_sees,
            "{option}: {said}"
        );
        assert!(
            said.ends_with("0\n"),
            "the root was seen on the host: {option}: {said}"
        );
    }
}

#[test]
fn beside_a_shared_volume_another_stays_off_the_host() {
    let mut bundle =
        Bundle::new("mount -t tmpfs tmpfs /vol/container && mount -t tmpfs tmpfs /other/container");
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set]
            .as_array_mut()
            .unwrap()
            .push(json!("CAP_SYS_ADMIN"));
    }
    for (name, destination, options) in [
        ("volume", "/vol", &["rbind", "rshared"][..]),
        ("other", "/other", &["rbind"]),
    ] {
        bundle.volume(name, destination, options);
    }
    // Writes config.json.
    drop(bundle.coracle(&["state"]));
    let script = format!(
        "cd {root}; mount -t tmpfs tmpfs volume; mount -t tmpfs tmpfs other; mkdir volume/container other/container
         {coracle} --root state run {id} 2>&1
         grep -o -e volume/container -e other/container /proc/self/mountinfo | sort -u",
        root = bundle.path("").display(),
        coracle = program::path("coracle").display(),
        id = bundle.id,
    );
    let said = Said::by(&mut shared_node(&script)).all();
    assert_eq!(said, "volume/container\n");
}

#[test]
fn links_of_the_image_lead_nowhere_on_the_host() {
    let mut bundle = Bundle::new("cat /inside/canary/file; readlink /abs /rel");
    let canary = bundle.path("canary");
    std::fs::create_dir(&canary).unwrap();
    symlink(&canary, bundle.root("abs")).unwrap();
    symlink("../../../../../../../../../../../../../etc", bundle.root("rel")).unwrap();
    symlink("/abs/through", bundle.root("chain")).unwrap();
    std::fs::write(bundle.path("file"), "bound\n").unwrap();
    for destination in [
        "/abs/file",
        "/rel/made/file",
        "/chain/file",
        "/../../../abs/up/file",
    ] {
        bundle.mount(destination, "bind", bundle.path("file"), &["bind"]);
    }
    bundle.mount("/abs/tmpfs", "tmpfs", "tmpfs", &[]);
    bundle.spec["linux"]["devices"] = json!([{"path": "/abs/null", "type": "c", "major": 1, "minor": 3}]);
    bundle.spec["linux"]["maskedPaths"] = json!(["/abs/file"]);
    bundle.spec["process"]["args"] = json!([
        "/bin/sh",
        "-c",
        format!("cat /etc/made/file; ls {}", canary.display())
    ]);
    assert_eq!(bundle.run(), "bound\nfile\nnull\nthrough\ntmpfs\nup\n");
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0, "made on the host");
    assert!(!Path::new("/etc/made").exists());
}

#[test]
fn a_link_at_proc_or_sys_is_refused() {
    for name in ["proc", "sys"] {
        let bundle = Bundle::new("true");
        std::fs::remove_dir(bundle.root(name)).unwrap();
        symlink("/tmp", bundle.root(name)).unwrap();
        let error = bundle.fails(&["run"]);
        assert!(error.contains("must be an ordinary directory"), "{error}");
        bundle.assert_nothing_left();
    }
}

#[test]
fn only_a_few_files_of_proc_may_be_mounted_over() {
    for (destination, allowed) in [
        ("/proc/cpuinfo", true),
        ("/proc/uptime", true),
        ("/proc/sys/kernel/core_pattern", false),
        ("/proc/self/attr/exec", false),
        ("/proc/self/fd", false),
        ("/link/version", false),
    ] {
        let mut bundle = Bundle::new("true");
        symlink("/proc", bundle.root("link")).unwrap();
        let kind = if destination.ends_with("fd") {
            "dir"
        } else {
            "file"
        };
        let source = bundle.path(kind);
        if kind == "dir" {
            std::fs::create_dir(&source).unwrap();
        } else {
            std::fs::write(&source, "").unwrap();
        }
        bundle.mount(destination, "bind", &source, &["bind"]);
        let output = bundle.call(&["run"]);
        assert_eq!(output.code == 0, allowed, "{destination}: {}", output.all());
        if !allowed {
            assert!(
                output.all().contains("in the container's /proc"),
                "{}",
                output.all()
            );
        }
    }
}

#[test]
fn a_fake_null_device_masks_nothing() {
    let mut bundle = Bundle::new("true");
    let dev = bundle.path("dev");
    std::fs::create_dir(&dev).unwrap();
    symlink("/proc/sysrq-trigger", dev.join("null")).unwrap();
    std::fs::write(bundle.root("secret"), "").unwrap();
    bundle.spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]}
    ]);
    bundle.spec["linux"]["maskedPaths"] = json!(["/secret"]);
    let error = bundle.fails(&["run"]);
    assert!(error.contains("/dev/null is not the null device"), "{error}");
}

#[test]
fn a_device_name_that_is_taken_by_something_else_is_an_error() {
    let mut bundle = Bundle::new("true");
    symlink("/etc/passwd", bundle.root("trap")).unwrap();
    bundle.spec["linux"]["devices"] = json!([{"path": "/trap", "type": "c", "major": 1, "minor": 3}]);
    let error = bundle.fails(&["run"]);
    assert!(error.contains("making /trap"), "{error}");
}

#[test]
fn a_destination_that_another_keeps_exchanging_never_reaches_the_host() {
    let mut bundle = Bundle::new("true");
    let shared = bundle.volume("shared", "/shared", &["bind"]);
    let canary = bundle.path("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::create_dir(shared.join("dir")).unwrap();
    // From inside a container a link can only name paths of its own; an absolute one means the host's when it is
    // followed by somebody outside (CVE-2021-30465).
    symlink(&canary, shared.join("link")).unwrap();
    bundle.volume("payload", "/shared/dir/below", &["bind"]);
    let script = format!(
        "import os, ctypes\nc = ctypes.CDLL(None)\na, b = b'{0}/dir', b'{0}/link'\nwhile True: c.renameat2(-100, a, -100, b, 2)",
        shared.display()
    );
    let racer = Helper(Command::new("python3").args(["-c", &script]).spawn().unwrap());
    for round in 0..100 {
        // Detached and attached, and in one call.
        bundle.spec["mounts"].as_array_mut().unwrap().last_mut().unwrap()["options"] = if round % 2 == 0 {
            json!(["bind"])
        } else {
            json!(["rbind", "rslave"])
        };
        // It may fail, cleanly, or land in a directory of the container that has the canary's name.
        let output = bundle.call(&["run"]);
        assert!(matches!(output.code, 0 | 1), "{}", output.all());
        bundle.assert_nothing_left();
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0, "made on the host");
    }
    drop(racer);
}

#[test]
fn a_missing_working_directory_is_made() {
    // As with runc and crun; images name directories that they do not have.
    let mut bundle = Bundle::new("pwd; stat -c '%a %u' /made");
    symlink("/made", bundle.root("link")).unwrap();
    bundle.spec["process"]["cwd"] = json!("/link/for/it");
    assert_eq!(bundle.run(), "/made/for/it\n755 0\n");
    assert!(bundle.root("made/for/it").is_dir());
    // Where nothing can be made, the field is named.
    bundle.mount("/fixed", "tmpfs", "tmpfs", &["ro"]);
    bundle.spec["process"]["cwd"] = json!("/fixed/dir");
    let text = bundle.fails(&["run"]);
    assert!(text.contains("process.cwd: making /fixed/dir"), "{text}");
}

#[test]
fn failures_at_every_stage_leave_nothing() {
    let breakages: &[fn(&mut Bundle)] = &[
        |bundle| bundle.spec["root"]["path"] = json!("nowhere"),
        |bundle| bundle.mount("/x", "tmpfs", "tmpfs", &["size=nonsense"]),
        |bundle| {
            bundle.spec["linux"]["devices"] = json!([{"path": "/bin", "type": "c", "major": 1, "minor": 3}]);
        },
        |bundle| bundle.spec["process"]["cwd"] = json!("/bin/sh"),
        |bundle| bundle.spec["process"]["args"] = json!(["/not/there"]),
        |bundle| bundle.spec["linux"]["sysctl"] = json!({"net.no.such": "1"}),
        |bundle| bundle.spec["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]}),
        |bundle| bundle.spec["hooks"] = json!({"createContainer": [{"path": "/bin/false"}]}),
        |bundle| bundle.spec["hooks"] = json!({"startContainer": [{"path": "/bin/nowhere"}]}),
        |bundle| bundle.spec["linux"]["cgroupsPath"] = json!("/coracle-oci-test/../../escape"),
    ];
    for (index, breakage) in breakages.iter().enumerate() {
        let mut bundle = Bundle::new("true");
        breakage(&mut bundle);
        let output = bundle.call(&["run"]);
        assert_eq!(output.code, 1, "{index}: {}", output.all());
        assert!(!output.all().is_empty());
        bundle.assert_nothing_left();
        bundle.namespaces(&["mount", "pid", "network", "ipc", "uts"]);
    }
}

#[test]
fn a_killed_creation_leaves_nothing_running() {
    let mut bundle = Bundle::new("true");
    bundle.spec["hooks"] = json!({"createContainer": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
    let mut create = bundle.coracle(&["create", &bundle.id]).spawn().unwrap();
    let processes = || {
        let dirs = bundle.cgroups();
        let lists = dirs
            .iter()
            .map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")));
        lists.flatten().map(|list| list.lines().count()).max()
    };
    wait_until("the hook", || processes() == Some(2));
    create.kill().unwrap();
    create.wait().unwrap();
    // The first process goes with its maker, and with it the hook: it is the init of their PID namespace.
    wait_until("the end of all", || processes().unwrap_or(0) == 0);
    // What is left on disk and in the cgroup tree goes with a forced delete, as the bundle does it.
}

#[test]
fn a_tmpfs_where_the_image_has_nothing_is_for_everybody() {
    let mut bundle = Bundle::new("stat -c %a /new/data; touch /new/data/x && echo wrote");
    bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.mount("/new/data", "tmpfs", "tmpfs", &["nosuid", "nodev"]);
    assert_eq!(bundle.run(), "1777\nwrote\n");
}

//! Real clients of an OCI runtime on `coracle`: bundles by umoci and runc, containers by podman (through conmon).

use coracle_tests::bundle::Bundle;
use coracle_tests::{cgroup, program};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

#[test]
fn a_bundle_of_runc_runs() {
    let mut bundle = Bundle::of_spec_command("true");
    std::fs::remove_file(bundle.path("config.json")).unwrap();
    let made = Command::new("runc")
        .arg("spec")
        .current_dir(bundle.path(""))
        .output()
        .expect("runc is installed");
    assert!(made.status.success(), "{made:?}");
    let text = std::fs::read(bundle.path("config.json")).unwrap();
    bundle.spec = serde_json::from_slice(&text).unwrap();
    bundle.spec["process"]["terminal"] = json!(false);
    bundle.spec["process"]["args"] = json!(["sh", "-c", "echo $(id -u) && exit 4"]);
    bundle.spec["linux"]["cgroupsPath"] = json!(bundle.cgroup);
    let said = bundle.call(&["run"]);
    assert_eq!((said.code, said.out.as_str()), (4, "0\n"), "{said:?}");
}

/// A bundle of `runc spec --rootless`, by root and by somebody else, from the specification to the deletion.
#[test]
fn a_rootless_bundle_of_runc_runs_for_any_user() {
    for user in [0_u32, 1234] {
        let bundle = Bundle::new("true");
        // Where the other user can reach everything.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bundle.path(""), everybody).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", ROOTLESS])
            .current_dir(bundle.path(""))
            .env("CORACLE", program::path("coracle"))
            .env("ID", &bundle.id)
            .env("OWNER", user.to_string());
        let said = program::Said::by(&mut command);
        let expected =
            format!("0 mapped {user}\nrun code 3\nexec as 0\nlisted running\nstate missing\nleft 0\n");
        assert_eq!(said.out, expected, "{user}: {said:?}");
    }
}

const ROOTLESS: &str = r#"
mkdir run; install -m 755 "$CORACLE" coracle; chown -R "$OWNER:$OWNER" run rootfs .
as() { setpriv --reuid "$OWNER" --regid "$OWNER" --clear-groups "$@"; }
[ "$OWNER" = 0 ] && as() { "$@"; }
coracle() { as ./coracle --root "$PWD/run/state" "$@"; }
as runc spec --rootless || exit 1
sed -i 's/"terminal": true/"terminal": false/; s/^\([[:space:]]*\)"sh"$/\1"sh", "-c", "read a b c < \/proc\/self\/uid_map; echo $(id -u) mapped $b; exit 3"/' config.json
coracle run "$ID"; echo "run code $?"
sed -i 's/"sh", "-c",.*/"sleep", "1000"/' config.json
coracle run --detach "$ID-2" >/dev/null </dev/null 2>errors || cat errors
echo "exec as $(coracle exec "$ID-2" id -u)"
echo "listed $(coracle list | awk -v id="$ID-2" '$1 == id { print $3 }')"
coracle kill "$ID-2" KILL
coracle delete --force "$ID-2"
coracle state "$ID-2" >/dev/null 2>&1 || echo "state missing"
echo "left $(ls run/state | wc -l)"
"#;

#[test]
fn a_bundle_of_umoci_runs_as_its_image_says() {
    let mut bundle = Bundle::of_spec_command("true");
    let folder = bundle.path("");
    let umoci = |words: &[&str]| {
        let done = Command::new("umoci")
            .args(words)
            .current_dir(&folder)
            .output()
            .expect("umoci is installed");
        assert!(done.status.success(), "umoci {words:?}: {done:?}");
    };
    umoci(&["init", "--layout", "image"]);
    umoci(&["new", "--image", "image:one"]);
    umoci(&["unpack", "--image", "image:one", "first"]);
    copy_root(&bundle.root(""), &folder.join("first/rootfs"));
    umoci(&["repack", "--image", "image:two", "first"]);
    let command = [
        "--config.cmd",
        "sh",
        "--config.cmd",
        "-c",
        "--config.cmd",
        "id; pwd; echo $COLOUR",
    ];
    let others = [
        "--config.user",
        "7:8",
        "--config.workingdir",
        "/tmp",
        "--config.env",
        "COLOUR=green",
    ];
    umoci(&[&["config", "--image", "image:two"], &command[..], &others[..]].concat());
    umoci(&["unpack", "--image", "image:two", "second"]);
    let config = folder.join("second/config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    spec["process"]["terminal"] = json!(false);
    spec["linux"]["cgroupsPath"] = json!(bundle.cgroup);
    spec["root"]["path"] = json!(folder.join("second/rootfs"));
    bundle.spec = spec;
    assert_eq!(bundle.run(), "uid=7 gid=8\n/tmp\ngreen\n");
}

/// Podman 4.3 in a mount namespace of its own, so that what it keeps in /run and /dev/shm is gone afterwards.
#[test]
fn podman_runs_stops_and_enters_containers() {
    let bundle = Bundle::of_spec_command("true");
    std::fs::create_dir(bundle.root("opt")).unwrap();
    std::fs::write(bundle.root("opt/mark"), "of the image").unwrap();
    let parent = format!("/coracle-podman-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", PODMAN])
        .env("CORACLE", program::path("coracle"))
        .env("FOLDER", bundle.path(""))
        .env("PARENT", &parent)
        .output()
        .unwrap();
    cgroup::remove(&parent);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        "run uid=0 code 3",
        "limits 67108864 50",
        "exec from inside, code 9",
        "exec as uid=1000 gid=1001 in /tmp",
        "exec terminal /dev/pts/0",
        "exec of nothing code 127",
        "volume is read-only",
        "stop code 5",
        "host network yes",
        "privileged may mount",
        "user namespace 0 100000 65536",
        "read-only refused tmpfs of the image run written",
        "run of nothing code 127",
        "run of a file that is no program code 126",
        "containers left: 0",
    ] {
        assert!(said.contains(expected), "{expected:?} is not in: {all}");
    }
}

const PODMAN: &str = r#"
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /dev/shm || exit 1
podman() {
    command podman --root "$FOLDER/store" --runroot /run/podman --tmpdir /run/libpod --runtime "$CORACLE" \
        --cgroup-manager cgroupfs --storage-driver overlay --log-level error "$@" </dev/null
}
# The machine's own limits may be lower than podman's defaults.
run() { podman run --ulimit nofile=1000:1000 --ulimit nproc=1000:1000 --cgroup-parent "$PARENT" "$@"; }
tar -C "$FOLDER/rootfs" -c . | command podman --root "$FOLDER/store" --runroot /run/podman --tmpdir /run/libpod \
    --storage-driver overlay import - localhost/busybox >/dev/null 2>&1

out=$(run --rm --network none localhost/busybox sh -c 'echo uid=$(id -u); exit 3')
echo "run $out code $?"
run --detach --name server --network none --memory 64m --pids-limit 50 --volume "$FOLDER:/volume:ro" localhost/busybox \
    sh -c 'trap "exit 5" TERM; while :; do sleep 0.1; done' >/dev/null
echo "limits $(cat /sys/fs/cgroup/memory"$PARENT"/libpod-*/memory.limit_in_bytes | sort -n | head -n 1) $(cat /sys/fs/cgroup/pids"$PARENT"/libpod-*/pids.max | sort -n | head -n 1)"
out=$(podman exec server sh -c 'echo from inside,; exit 9')
echo "exec $out code $?"
podman exec --user 1000:1001 --workdir /tmp server sh -c 'echo exec as $(id) in $(pwd)'
echo "exec terminal $(podman exec --tty server tty)"
podman exec server no-such-program 2>/dev/null
echo "exec of nothing code $?"
podman exec server touch /volume/x 2>/dev/null || echo "volume is read-only"
podman stop server >/dev/null
echo "stop code $(podman inspect --format '{{.State.ExitCode}}' server)"
podman start server >/dev/null
podman rm --force server >/dev/null
run --rm --network host localhost/busybox sh -c 'grep -q lo: /proc/net/dev && echo host network yes'
run --rm --network none --privileged localhost/busybox sh -c 'mount -t tmpfs x /tmp && echo privileged may mount'
run --rm --network none --uidmap 0:100000:65536 localhost/busybox sh -c 'echo user namespace $(cat /proc/self/uid_map)'
run --rm --network none --read-only --tmpfs /opt localhost/busybox sh -c \
    'touch /x 2>/dev/null || echo read-only refused $(grep -q " /opt .* tmpfs " /proc/self/mountinfo && echo tmpfs) $(cat /opt/mark) run $(touch /run/x /tmp/x /opt/x && echo written)'
run --rm --network none localhost/busybox no-such-program 2>/dev/null
echo "run of nothing code $?"
run --rm --network none localhost/busybox /proc/version 2>/dev/null
echo "run of a file that is no program code $?"
echo "containers left: $(podman ps --all --quiet | wc -l)"
podman rmi --all --force >/dev/null
umount "$FOLDER"/store/overlay 2>/dev/null
exit 0
"#;

fn copy_root(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()
        .unwrap();
    assert!(done.success());
}

/// systemd shares every mount of a machine with all that is copied from it. runc's rootless bundle binds all of /sys,
/// and mounts the cgroups there.
#[test]
fn nothing_mounted_on_a_volume_reaches_a_host_that_shares_its_mounts() {
    let bundle = Bundle::new("true");
    let script = r#"
mount --make-rshared /
runc spec --rootless || exit 1
sed -i 's/"terminal": true/"terminal": false/; s/^\([[:space:]]*\)"sh"$/\1"sh", "-c", "exit 3"/' config.json
cat /proc/self/mountinfo >before
"$CORACLE" --root "$PWD/state" run "$ID"; echo "run code $?"
diff before /proc/self/mountinfo && echo "the same mounts"
"#;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(bundle.path(""))
        .env("CORACLE", program::path("coracle"))
        .env("ID", &bundle.id);
    let said = program::Said::by(&mut command);
    assert_eq!(said.out, "run code 3\nthe same mounts\n", "{said:?}");
}

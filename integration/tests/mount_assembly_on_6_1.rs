//! The mount assembly on the oldest kernel it is made for: Debian's 6.1, in a virtual machine without acceleration.
//!
//! ```text
//! test                                            machine
//!   writes an initramfs: busybox, coracle,
//!   bundles, two scripts; starts qemu  ---------> /init: copy all to a tmpfs, switch_root to it
//!                                                 (pivot_root cannot leave the initramfs)
//!                                                 /second: mount cgroup v1, run the bundles with coracle,
//!                                                 start coracled, play a pod of an image of 60 layers
//!   reads the serial line  <--------------------- == name, output, code N
//! ```
//! One boot, some fifteen seconds. What differs on this kernel: nothing can be attached to a detached mount, a detached
//! mount cannot be cloned, and overlay layers cannot be given by descriptor.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_integration::image::{Image, Layer};
use coracle_integration::programs;
use serde_json::{Value, json};

/// Booting and running everything takes a fiftieth of this on an idle machine; the clock inside runs on when there is no
/// time for it outside.
const PATIENCE: Duration = Duration::from_secs(1200);

#[test]
fn containers_run_on_debians_6_1_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("initramfs");
    let kernel = kernel();
    fs::write(&archive, initramfs(folder.path(), &overlay_module(&kernel))).unwrap();
    let console = boot(&kernel, &archive, &folder.path().join("console"));
    let said = |name: &str| said(&console, name);
    assert!(console.contains("kernel 6.1."), "{console}");

    let plain = said("plain");
    for expected in [
        "uid 0",
        "host in-a-machine",
        "root is read-only",
        "kcore 0",
        "proc/sys is read-only",
        "code 3",
    ] {
        assert!(plain.contains(expected), "{expected}: {plain}");
    }
    // Nothing of the machine's is mounted in there; the root is the bundle's folder, the rest is what was asked for.
    let mounted: Vec<&str> = plain
        .lines()
        .filter_map(|line| line.strip_prefix("mount "))
        .collect();
    assert_eq!(mounted.first(), Some(&"/"), "{plain}");
    assert!(mounted.iter().all(|point| !point.contains("bundle")), "{plain}");

    let mounts = said("mounts");
    for expected in [
        "outside one",
        "bind is read-only",
        "below is read-only",
        "tmpfs holds 1024 kB",
        "overlay lower upper",
        "new/deep/place is made",
        "cpu and memory are shown",
        "code 0",
    ] {
        assert!(mounts.contains(expected), "{expected}: {mounts}");
    }

    let exec = said("exec");
    for expected in [
        "joined as 5",
        "in the same mount namespace",
        "code 7",
        "deleted 0",
        "0 cgroups left",
        "0 mounts left",
    ] {
        assert!(exec.contains(expected), "{expected}: {exec}");
    }

    let pod = said("pod");
    for expected in [
        "[first] the other one left this",
        "[main] 60 layers",
        "[main] the other one left this",
        "[main] shm 65536",
        "code 0",
    ] {
        assert!(pod.contains(expected), "{expected}: {pod}");
    }

    let user = said("user");
    assert!(
        user.contains("uid 0") && user.contains("map 0 100000 65536") && user.contains("code 0"),
        "{user}"
    );
}

const FIRST: &str = "#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o mode=755 tmpfs /new
/bin/busybox cp -a /bin /bundles /second /new/
/bin/busybox insmod /overlay.ko
exec /bin/busybox switch_root /new /second
";

const SECOND: &str = r#"#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /run /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /sys/fs/cgroup
for one in cpu cpuacct cpuset memory devices freezer blkio pids; do
    mkdir /sys/fs/cgroup/$one && mount -t cgroup -o $one $one /sys/fs/cgroup/$one
done
echo "kernel $(uname -r)"
run() {
    echo "== $1"
    coracle run --bundle /bundles/$1 $1 </dev/null 2>&1
    echo "code $?"
}
run plain
echo "one" > /bundles/mounts/outside/file
mount -t tmpfs tmpfs /bundles/mounts/outside/below
run mounts
run user
echo "== exec"
before=$(wc -l < /proc/self/mountinfo)
coracle run --detach --bundle /bundles/exec exec </dev/null >/dev/null 2>&1
coracle exec --user 5 exec sh -c 'echo joined as $(id -u)' 2>&1
coracle exec exec sh -c '[ $(readlink /proc/self/ns/mnt) = $(readlink /proc/1/ns/mnt) ] && echo in the same mount namespace
exit 7' 2>&1
echo "code $?"
coracle delete --force exec
echo "deleted $?"
echo "$(find /sys/fs/cgroup -name 'coracle*' -type d | wc -l) cgroups left"
echo "$(( $(wc -l < /proc/self/mountinfo) - before )) mounts left"
echo "== pod"
mkdir -p /etc /var/lib
hostname machine
ifconfig lo up
root=/var/lib/$(printf '%0180d' 0)
coracled --root $root --state /run/state --listen unix:///run/coracled.sock >/run/log 2>&1 &
export CORACLE_ADDRESS=unix:///run/coracled.sock
until [ -S /run/coracled.sock ]; do sleep 0.1; done
coraclectl image import /bundles/image.tar
timeout 600 coraclectl play --follow /bundles/pod.yaml 2>&1
echo "code $?"
cat /run/log
echo "== end"
poweroff -f
"#;

const PLAIN: &str = "echo uid $(id -u); echo host $(hostname)
touch /x 2>/dev/null || echo root is read-only
echo kcore $(wc -c < /proc/kcore)
echo 1 2>/dev/null > /proc/sys/kernel/printk || echo proc/sys is read-only
while read a b c d point rest; do echo mount $point; done < /proc/self/mountinfo
echo x > /dev/null && head -c 4 /dev/urandom > /dev/shm/random && exit 3";

const MOUNTS: &str = "echo outside $(cat /bind/file)
touch /bind/x 2>/dev/null || echo bind is read-only
touch /bind/below/x 2>/dev/null || echo below is read-only
set -- $(df -k /scratch | tail -n 1); echo tmpfs holds $2 kB
echo overlay $(cat /overlay/lower /overlay/upper)
touch /new/deep/place/file && echo new/deep/place is made
[ -e /sys/fs/cgroup/cpu/tasks ] && [ -e /sys/fs/cgroup/memory/tasks ] && echo cpu and memory are shown";

const USER: &str = "echo uid $(id -u); echo map $(cat /proc/self/uid_map); touch /tmp/mine";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: pod
spec:
  hostNetwork: true
  restartPolicy: Never
  initContainers:
    - name: first
      image: localhost/layers:1
      command: [sh, -c, "echo left this > /shared/file; echo the other one $(cat /shared/file)"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: main
      image: localhost/layers:1
      command: [sh, -c, "echo $(cat /layer/* | wc -l) layers; echo the other one $(cat /shared/file); set -- $(df -k /dev/shm | tail -n 1); echo shm $2; touch /written"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes:
    - name: shared
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
"#;

/// Sixty layers; their names and the daemon's long root together are more than one mount option can hold.
fn image() -> Vec<u8> {
    let mut base = Layer::default().directory("bin", 0o755).directory("layer", 0o755);
    base = base.file("bin/busybox", 0o755, fs::read("/bin/busybox").unwrap());
    for applet in APPLETS {
        base = base.symlink(&format!("bin/{applet}"), "busybox");
    }
    let more = (1..=60).map(|number| Layer::default().file(&format!("layer/{number}"), 0o644, "one\n"));
    let image = Image {
        name: "localhost/layers:1".to_owned(),
        layers: std::iter::once(base).chain(more).collect(),
        env: vec!["PATH=/bin".to_owned()],
        ..Image::default()
    };
    let mut archive = Vec::new();
    image.write(&mut archive).unwrap();
    archive
}

const APPLETS: [&str; 11] = [
    "sh", "cat", "df", "head", "hostname", "id", "readlink", "sleep", "tail", "touch", "wc",
];

/// The machine's whole file system as a newc archive.
fn initramfs(folder: &Path, overlay_module: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder("bin");
    archive.file(
        "bin/busybox",
        0o755,
        &fs::read("/bin/busybox").expect("busybox-static is installed"),
    );
    for program in ["coracle", "coracled", "coracle-shim", "coraclectl"] {
        archive.file(
            &format!("bin/{program}"),
            0o755,
            &fs::read(programs::ours(program)).unwrap(),
        );
    }
    archive.file("overlay.ko", 0o644, overlay_module);
    archive.file("init", 0o755, FIRST.as_bytes());
    archive.file("second", 0o755, SECOND.as_bytes());
    archive.folder("bundles");
    archive.file("bundles/image.tar", 0o644, &image());
    archive.file("bundles/pod.yaml", 0o644, POD.as_bytes());
    let default = default_config(folder);
    archive.bundle(
        "plain",
        &with(&default, PLAIN, |config| {
            config["hostname"] = json!("in-a-machine");
        }),
    );
    archive.bundle("exec", &with(&default, "sleep 1000", |_| {}));
    archive.bundle("mounts", &with(&default, MOUNTS, more_mounts));
    archive.bundle("user", &with(&default, USER, user_namespace));
    for folder in ["outside", "outside/below", "lower", "upper", "work"] {
        archive.folder(&format!("bundles/mounts/{folder}"));
    }
    archive.file("bundles/mounts/lower/lower", 0o644, b"lower\n");
    archive.file("bundles/mounts/upper/upper", 0o644, b"upper\n");
    archive.finish()
}

fn default_config(folder: &Path) -> Value {
    programs::stdout_of(
        Command::new(programs::ours("coracle"))
            .args(["spec", "--bundle"])
            .arg(folder),
    );
    serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

fn with(default: &Value, script: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut config = default.clone();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", script]);
    change(&mut config);
    config
}

fn more_mounts(config: &mut Value) {
    config["root"]["readonly"] = json!(false);
    let overlay =
        "lowerdir=/bundles/mounts/lower,upperdir=/bundles/mounts/upper,workdir=/bundles/mounts/work";
    config["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/bind", "type": "bind", "source": "/bundles/mounts/outside", "options": ["rbind", "rro"]}),
        json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1024k"]}),
        json!({"destination": "/overlay", "type": "overlay", "source": "overlay",
            "options": overlay.split(',').collect::<Vec<_>>()}),
        json!({"destination": "/new/deep/place", "type": "tmpfs", "source": "tmpfs"}),
    ]);
}

fn user_namespace(config: &mut Value) {
    config["root"]["readonly"] = json!(false);
    let linux = &mut config["linux"];
    linux["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}));
}

/// An archive in the "newc" format of cpio, which the kernel unpacks (Documentation/driver-api/early-userspace).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn bundle(&mut self, name: &str, config: &Value) {
        let base = format!("bundles/{name}");
        for folder in [
            "",
            "/rootfs",
            "/rootfs/bin",
            "/rootfs/dev",
            "/rootfs/proc",
            "/rootfs/sys",
            "/rootfs/tmp",
        ] {
            self.folder(&format!("{base}{folder}"));
        }
        self.file(
            &format!("{base}/config.json"),
            0o644,
            config.to_string().as_bytes(),
        );
        let busybox = fs::read("/bin/busybox").unwrap();
        self.file(&format!("{base}/rootfs/bin/busybox"), 0o755, &busybox);
        for applet in APPLETS {
            self.entry(&format!("{base}/rootfs/bin/{applet}"), 0o120_777, b"busybox");
        }
    }

    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, b"");
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.inodes += 1;
        let (name_size, size) = (name.len() + 1, content.len());
        // inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor), name size, checksum.
        write!(
            self.bytes,
            "070701{:08x}{mode:08x}{:016x}{:08x}{:08x}{size:08x}",
            self.inodes, 0, 1, 0
        )
        .unwrap();
        write!(self.bytes, "{:032x}{name_size:08x}{:08x}", 0, 0).unwrap();
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The newest of Debian's cloud kernels of this series.
fn kernel() -> PathBuf {
    let files = fs::read_dir("/boot").unwrap().map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("vmlinuz-6.1.") && name.contains("cloud")
    };
    files
        .filter(is_ours)
        .max()
        .expect("Debian's linux-image-cloud-amd64 is installed")
}

/// overlayfs, which is not built into Debian's kernel.
fn overlay_module(kernel: &Path) -> Vec<u8> {
    let name = kernel.file_name().unwrap().to_str().unwrap();
    let release = name.strip_prefix("vmlinuz-").unwrap();
    fs::read(format!("/lib/modules/{release}/kernel/fs/overlayfs/overlay.ko")).unwrap()
}

/// Runs the machine to its end and gives what it wrote to its serial line.
fn boot(kernel: &Path, initramfs: &Path, console: &Path) -> String {
    let output = fs::File::create(console).unwrap();
    let mut machine = Command::new("qemu-system-x86_64");
    machine.args([
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-m",
        "512",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    machine.args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"]);
    machine.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    machine
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output);
    let machine = machine.spawn().expect("qemu-system-x86_64 is installed");
    wait_for_end(machine, console);
    String::from_utf8_lossy(&fs::read(console).unwrap()).replace('\r', "")
}

fn wait_for_end(mut machine: Child, console: &Path) {
    let end = Instant::now() + PATIENCE;
    while machine.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            machine.kill().unwrap();
            machine.wait().unwrap();
            panic!(
                "the machine does not end: {}",
                String::from_utf8_lossy(&fs::read(console).unwrap())
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What came between `== name` and the next such mark.
fn said(console: &str, name: &str) -> String {
    let (_, rest) = console
        .split_once(&format!("== {name}\n"))
        .unwrap_or_else(|| panic!("no == {name}: {console}"));
    rest.split("\n== ").next().unwrap_or_default().to_owned()
}

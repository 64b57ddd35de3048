//! podman (Debian's 4.3, CNI backend) with our plugins in place of upstream's: its own network definition, a published
//! port, `network reload` (DEL and ADD at once) and removal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs in new mount and network namespaces. `$D` is a directory of the test, `$CNI` our program.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs none /run
mkdir -p /var/lib/cni && mount -t tmpfs none /var/lib/cni
ip link set lo up
# A new namespace begins with the values of the first one.
before=$(cat /proc/sys/net/ipv4/ip_forward)
"$CNI" install "$D/bin"
mkdir -p "$D/net" "$D/tmp" "$D/root-fs/bin" "$D/root-fs/www"
for dir in proc sys dev etc run tmp; do mkdir "$D/root-fs/$dir"; done
cp "$(command -v busybox)" "$D/root-fs/bin/busybox"
echo hello-from-the-pod >"$D/root-fs/www/index.html"
cat >"$D/containers.conf" <<END
[network]
network_backend="cni"
cni_plugin_dirs=["$D/bin"]
network_config_dir="$D/net"
[engine]
cgroup_manager="cgroupfs"
runtime="$(command -v runc)"
events_logger="file"
END
export CONTAINERS_CONF="$D/containers.conf"
pod() { timeout -k 1 60 podman --root "$D/root" --runroot "$D/runroot" --tmpdir "$D/tmp" "$@"; }
trap 'pod rm -f -t 0 web >/dev/null 2>&1 || true' EXIT

pod network create --ipv6 --subnet 10.99.0.0/24 --subnet fd99::/64 demo
pod run -d --name web --network demo -p 8080:80 --cgroup-parent "$CGROUP" --ulimit nofile=1000:1000 \
    --ulimit nproc=1000:1000 --rootfs "$D/root-fs" /bin/busybox httpd -f -p 80 -h /www
get() { printf 'GET / HTTP/1.0\r\n\r\n' | timeout -k 1 5 busybox nc "$1" 8080; }
get 127.0.0.1 | grep hello-from-the-pod
get 10.99.0.1 | grep hello-from-the-pod
pod exec web /bin/busybox ip addr | grep fd99::
pod network reload web
get 127.0.0.1 | grep hello-from-the-pod
pod rm -f -t 0 web
for attempt in $(seq 100); do
    [ "$(ip -o link | wc -l)" = 2 ] && break
    sleep 0.05
done
"$CNI" uninstall-network demo
echo "links: $(ip -o link | wc -l), rules: $(nft list ruleset | wc -l), forwarding: $(($(cat /proc/sys/net/ipv4/ip_forward) - before))"
find /run/coracle-cni /var/lib/cni/networks 2>/dev/null || true
"#;

#[test]
fn podman_runs_a_container_with_a_published_port_on_our_plugins() {
    let program = program("coracle-cni");
    for needed in ["podman", "runc", "busybox", "nft", "ip"] {
        if which(needed).is_none() {
            eprintln!("skipped: {needed} is not installed");
            return;
        }
    }
    if !program.exists() {
        eprintln!("skipped: {} is not built", program.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cgroup = format!("/coracle-net-podman-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["-mn", "--propagation", "private", "sh", "-c", SCRIPT])
        .env("D", dir.path())
        .env("CNI", &program)
        .env("CGROUP", &cgroup)
        .output()
        .unwrap();
    remove_cgroup(&cgroup);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let last = String::from_utf8_lossy(&output.stdout)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(last, "links: 1, rules: 0, forwarding: 0", "{said}");
}

fn program(name: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin");
    std::env::var_os("CORACLE_BIN")
        .map_or(workspace, PathBuf::from)
        .join(name)
}

fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.exists())
}

/// podman leaves the parent that it was told to use, and conmon's below it.
fn remove_cgroup(path: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let dir = hierarchy.path().join(path.trim_start_matches('/'));
        while dir.exists() {
            remove_tree(&dir);
            assert!(Instant::now() < end, "{} is still in use", dir.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Control files cannot be removed, directories can.
fn remove_tree(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

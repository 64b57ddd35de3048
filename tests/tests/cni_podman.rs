//! podman (Debian's 4.3, CNI backend) with our plugins in place of upstream's: its own network definition, a published
//! port, `network reload` (DEL and ADD at once) and removal.

use std::process::Command;

use coracle_tests::{cgroup, program};

/// Runs in new mount and network namespaces. `$D` is a directory of the test, `$CNI` our program.
const SCRIPT: &str = r#"
set -eu
mount -t tmpfs none /run
# podman's locks are a file in here, whatever it is told of other directories.
mount -t tmpfs none /dev/shm
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
# The server needs a moment until it listens.
get() {
    for attempt in $(seq 600); do
        printf 'GET / HTTP/1.0\r\n\r\n' | timeout -k 1 5 busybox nc "$1" 8080 && return
        sleep 0.1
    done
}
get 127.0.0.1 | grep hello-from-the-pod
get 10.99.0.1 | grep hello-from-the-pod
pod exec web /bin/busybox ip addr | grep fd99::
pod network reload web
get 127.0.0.1 | grep hello-from-the-pod
pod rm -f -t 0 web
for attempt in $(seq 1200); do
    [ "$(ip -o link | wc -l)" = 2 ] && break
    sleep 0.05
done
"$CNI" uninstall-network demo
echo "links: $(ip -o link | wc -l), rules: $(nft list ruleset | wc -l), forwarding: $(($(cat /proc/sys/net/ipv4/ip_forward) - before))"
find /run/coracle-cni /var/lib/cni/networks 2>/dev/null || true
"#;

#[test]
fn podman_runs_a_container_with_a_published_port_on_our_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let parent = format!("/coracle-net-podman-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["-mn", "--propagation", "private", "sh", "-c", SCRIPT])
        .env("D", dir.path())
        .env("CNI", program::path("coracle-cni"))
        .env("CGROUP", &parent)
        .output()
        .unwrap();
    cgroup::remove(&parent);
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

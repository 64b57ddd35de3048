#!/bin/bash
# The demo: one pod with a sidecar, from an image made here to the last trace removed. `make demo` builds and runs it.
#
# It uses this machine itself, not a sandbox of its own: the pod gets a real bridge, a real host port and real cgroups.
# Everything it makes carries the name below, is removed at the end, and is looked for afterwards.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "${CORACLE_BIN:-$here/../bin}" 2>/dev/null && pwd) || {
    echo "demo: there is no directory ${CORACLE_BIN:-bin}: run make build" >&2
    exit 1
}
name=coracle-demo
bridge=coracle-demo0
subnet=10.239.7.0/24
host_port=18080
deadline=20 # seconds that any one thing may take

main() {
    need_root
    need_programs
    export PATH=$bin:$PATH
    work=$(mktemp -d "/tmp/$name.XXXXXX")
    export CORACLE_ADDRESS=unix://$work/run/coracled.sock CORACLECTL_DATA=$work/pods
    exec 3>&2
    trap 'failed $?' EXIT
    trap 'exit 130' INT TERM HUP PIPE
    snapshot >"$work/before"

    say "Coracle runs pods on one machine. This demo builds an image, starts the daemon, runs the pod of"
    say "examples/sidecar.yaml, looks at it from all sides, removes it, and checks that nothing is left."
    say "Everything it makes is below $work (DIR in what follows) or is called $name."

    step "Make an image from our own 0.5 MB program: no registry, no network"
    run coracle-image --payload "$bin/coracle-payload" --name localhost/coracle/payload:1 --output "$work/image.tar"

    step "Set up a network for pods: CNI plugins, a bridge with addresses from $subnet, host ports"
    write_network
    run coracle-cni install "$work/plugins"

    step "Start the daemon on directories of its own"
    start_daemon

    step "Give it the image"
    run coraclectl image import "$work/image.tar"
    run coraclectl image ls

    step "Play the pod: a server, and a sidecar that fetches from it every second"
    play_pod

    step "The pod, its address and its two containers"
    run coraclectl ps

    step "Both containers' logs: the sidecar reaches the server on localhost:8080, inside the pod"
    await "the sidecar's first answer" grep -q '^\[sidecar\] http://localhost:8080/: 200 hello' "$work/play.log"
    show_logs

    step "The same server from the host, through host port $host_port"
    run coracle-payload fetch "http://127.0.0.1:$host_port/"

    step "A command inside the running server container: its hostname and its root directory"
    run coraclectl exec web server -- /payload hostname -- ls /

    step "End the pod as Ctrl-C would, then the daemon and the network"
    stop_pod
    stop_daemon
    run coracle-cni uninstall-network "$name"

    step "Is anything left? Mounts, namespaces, links, cgroups, firewall rules, processes, sysctls, files"
    check_clean
    say ""
    say "Done: the pod ran, answered and is gone without a trace."
}

need_root() {
    [ "$(id -u)" = 0 ] && return
    echo "demo: this needs root: it makes namespaces, mounts and cgroups. Run it as root, for example with sudo." >&2
    exit 1
}

need_programs() {
    local program
    for program in coracled coraclectl coracle-shim coracle-cni coracle-image coracle-payload; do
        [ -x "$bin/$program" ] && continue
        echo "demo: $bin/$program is missing: run make build" >&2
        exit 1
    done
    if [ -e "/sys/class/net/$bridge" ]; then
        echo "demo: the bridge $bridge is there already: another demo runs, or one was killed (coracle-cni uninstall-network $name --force)" >&2
        exit 1
    fi
}

write_network() {
    mkdir "$work/net.d" "$work/plugins"
    cat >"$work/net.d/10-$name.conflist" <<CONFLIST
{
  "cniVersion": "1.0.0",
  "name": "$name",
  "plugins": [
    {
      "type": "bridge", "bridge": "$bridge", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "$work/leases",
        "ranges": [[{ "subnet": "$subnet" }]], "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
CONFLIST
    comment "network configuration: $work/net.d/10-$name.conflist"
}

start_daemon() {
    printf 'cgroup_root = "/%s"\n' "$name" >"$work/config.toml"
    comment "\$ coracled --config $work/config.toml --root $work/lib --state $work/run \\"
    comment "      --listen $CORACLE_ADDRESS --cni-conf-dir $work/net.d --cni-bin-dir $work/plugins &"
    # In a session of its own: Ctrl-C must not end the daemon before its pods are removed.
    setsid coracled --config "$work/config.toml" --root "$work/lib" --state "$work/run" \
        --listen "$CORACLE_ADDRESS" --cni-conf-dir "$work/net.d" --cni-bin-dir "$work/plugins" \
        >"$work/coracled.log" 2>&1 &
    daemon=$!
    await "the daemon's socket" test -S "$work/run/coracled.sock"
    await "the daemon's answer" coraclectl ps
}

play_pod() {
    comment "\$ coraclectl play examples/sidecar.yaml --follow &"
    setsid coraclectl play "$here/sidecar.yaml" --follow >"$work/play.log" 2>&1 &
    player=$!
    await "the server" server_or_end
    if ended "$player"; then
        echo "demo: coraclectl play has ended" >&2
        return 1
    fi
    grep '^pod ' "$work/play.log" | indent
}

server_or_end() {
    grep -q '^\[server\] serving on port 8080' "$work/play.log" || ended "$player"
}

show_logs() {
    comment "(from coraclectl play --follow)"
    grep '^\[' "$work/play.log" | sed -n '1,6p' | indent
    run coraclectl logs web sidecar
}

stop_pod() {
    local pid=$player
    comment "\$ kill -INT $pid   # coraclectl play"
    kill -INT "$pid"
    await "the end of coraclectl play" ended "$pid"
    player=
    wait "$pid" || { echo "demo: coraclectl play ended with code $?" >&2; return 1; }
    grep '^pod ' "$work/play.log" | tail -n 2 | indent
    run coraclectl ps
}

stop_daemon() {
    local pid=$daemon
    comment "\$ kill $pid   # coracled"
    kill "$pid"
    await "the end of the daemon" ended "$pid"
    daemon=
    wait "$pid" || { echo "demo: coracled ended with code $?" >&2; return 1; }
}

# What this demo could leave behind, one line each. Lists of the whole machine are compared with those from before.
snapshot() {
    awk '{ print "mount " $5 }' /proc/self/mountinfo
    find /run/netns -mindepth 1 -maxdepth 1 -printf 'namespace %f\n' 2>/dev/null || true
    find /sys/class/net -mindepth 1 -printf 'link %f\n'
    find /sys/fs/cgroup -maxdepth 3 -type d -path "*/$name*" -printf 'cgroup %p\n' 2>/dev/null || true
    if command -v nft >/dev/null; then
        nft list tables 2>/dev/null | sed 's/^/nft /'
    fi
    # The pattern comes from a file, so that grep does not find itself.
    grep -lszF -f <(printf '%s/' "$work") /proc/[0-9]*/cmdline | sed 's/^/process /' || true
    local key
    for key in net/ipv4/ip_forward net/ipv4/conf/{all,lo}/route_localnet net/ipv6/conf/all/forwarding; do
        if [ -e "/proc/sys/$key" ]; then
            printf 'sysctl %s %s\n' "$key" "$(cat "/proc/sys/$key")"
        fi
    done
    # The plugins' lock file is empty and stays, so that two of them never hold different ones.
    find /run/coracle-cni /var/lib/cni /run/coracle /var/lib/coracle /var/lib/coraclectl -type f ! -name lock \
        -printf 'file %p\n' 2>/dev/null || true
}

check_clean() {
    local left
    # The kernel takes network devices away a little later than it says.
    if await_quietly nothing_left; then
        comment "compared with the machine before the demo: no difference"
    else
        left=$(difference)
        echo "demo: this is left behind:" >&2
        printf '%s\n' "$left" | indent >&2
        return 1
    fi
    rm -r "$work"
    printf '   removed %s\n' "$work"
    trap - EXIT
}

nothing_left() {
    [ -z "$(difference)" ]
}

difference() {
    diff <(sort "$work/before") <(snapshot | sort) | grep '^[<>]' | sed 's/^</missing:/; s/^>/new:/' || true
}

# Runs at every end but a good one: takes away what there is, and says what to read.
failed() {
    local code=$1
    trap - EXIT
    # Bounded by the deadlines below, so that an impatient second Ctrl-C need not be heard.
    trap '' INT TERM HUP PIPE
    set +e
    # A signal may have come within a command whose output goes elsewhere.
    exec 2>&3
    echo "demo: it stopped before its end (code $code); the last lines of what was going on:" >&2
    tail -n 15 "$work/play.log" 2>/dev/null | sed 's/^/     play: /' >&2
    tail -n 15 "$work/coracled.log" 2>/dev/null | sed 's/^/     coracled: /' >&2
    if [ -n "${player:-}" ]; then
        kill -TERM "$player" 2>/dev/null
        await_quietly ended "$player" || kill -KILL "$player" 2>/dev/null
    fi
    coraclectl down web >/dev/null 2>&1
    if [ -n "${daemon:-}" ]; then
        kill -TERM "$daemon" 2>/dev/null
        await_quietly ended "$daemon" || kill -KILL "$daemon" 2>/dev/null
    fi
    coracle-cni uninstall-network "$name" --force >/dev/null 2>&1
    local left
    left=$(difference)
    if [ -z "$left" ]; then
        rm -rf "$work"
        echo "demo: everything it made has been removed" >&2
    else
        echo "demo: this is left behind, and $work with the logs:" >&2
        printf '%s\n' "$left" | indent >&2
    fi
    exit "$((code == 0 ? 1 : code))"
}

number=0
step() {
    number=$((number + 1))
    printf '\n%s%d. %s%s\n' "$bold" "$number" "$1" "$plain"
}

say() {
    printf '%s\n' "$1"
}

comment() {
    printf '   %s\n' "$1" | sed "s|$work|DIR|g"
}

# Shows a command and what it prints.
run() {
    local shown="$*"
    comment "\$ ${shown//"$bin/"/}"
    "$@" 2>&1 | indent
}

indent() {
    sed 's/^/     /'
}

# Waits until a command succeeds, for a bounded time.
await() {
    local what=$1
    shift
    await_quietly "$@" && return
    echo "demo: waited $deadline s in vain for $what" >&2
    return 1
}

await_quietly() {
    local tries=$((deadline * 10))
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

ended() {
    # A zombie is waiting for this shell only.
    ! grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status"
}

bold= plain=
if [ -t 1 ]; then
    bold=$'\e[1m' plain=$'\e[0m'
fi
main

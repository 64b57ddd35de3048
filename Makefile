# The commands of Coracle's developers. With Rust and Go there, `make demo` and `make test` are all that a fresh Debian 12
# machine needs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.NOTPARALLEL:
.PHONY: help demo test build check bench clean host

CACHE := $(or $(CORACLE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/coracle)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# The first line of each recipe that calls cargo.
PINNED_RUST = toolchain=$$(.ci/toolchain); [ -z "$$toolchain" ] || export RUSTUP_TOOLCHAIN="$$toolchain"
# What runs on a node, and what only tests and the demo use.
PROGRAMS := coracle coracle-shim coracle-cni coracled coraclectl
FIXTURES := coracle-payload coracle-image

help:
	@echo "make demo    a pod with a sidecar, from build to teardown (needs root; installs what is missing)"
	echo "make test    every check and test (needs root; installs what is missing)"
	echo "make build   static release programs in bin/"
	echo "make check   formatting, lints, licences"
	echo "make bench   compares with containerd, runc and crun (needs root)"
	echo "make clean   removes what was built here"

demo: host build setup-demo
	@examples/demo.sh

test: host setup-test check build
	@$(PINNED_RUST)
	integration/tools/build test
	.ci/test

setup-%:
	@.ci/setup $*

build: setup-build
	@$(PINNED_RUST)
	triple=$$(.ci/target)
	case $$triple in *-gnu) export RUSTFLAGS="$${RUSTFLAGS:-} -Ctarget-feature=+crt-static" ;; esac
	cargo build --release --locked --target $$triple $(addprefix --bin ,$(PROGRAMS) $(FIXTURES))
	mkdir -p bin
	for program in $(PROGRAMS) $(FIXTURES); do
		# A new file each time: an old one may be running.
		install -m 755 "$(TARGET_DIR)/$$triple/release/$$program" "bin/$$program"
	done
	ls -l bin | awk 'NR > 1 && $$9 ~ /^coracle/ { printf "  bin/%-18s %6.2f MB\n", $$9, $$5 / 1e6 }'

check: setup-check
	@$(PINNED_RUST)
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	# Advisories are not checked: they come from a repository of their own, which is not reachable from every machine.
	$(CACHE)/cargo-deny --all-features check bans licenses sources

bench: host setup-bench build
	@$(PINNED_RUST)
	integration/tools/build bench
	cargo run --release --locked -p coracle-integration --bin coracle-bench

clean:
	@rm -rf bin integration/tools/bin
	cargo clean

# What no package can mend is said before anything is installed or built.
host:
	@if [ "$$(id -u)" != 0 ]; then
		echo "this needs root: it makes namespaces, mounts and cgroups. Run it as root, for example with sudo." >&2
		exit 1
	fi
	if [ "$$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
		echo "this machine has cgroup v2 alone, on which containers cannot be run yet." >&2
		echo "Boot it with systemd.unified_cgroup_hierarchy=0 on the kernel's command line." >&2
		exit 1
	fi

//! The plan, field by field.

use coracle_cri_api::runtime_v1::{
    Capability, Device, Int64Value, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, MountPropagation, SecurityProfile,
};
use serde_json::to_value;

use super::*;

const ALL_CAPABILITIES: u64 = (1 << 41) - 1;

fn host() -> Host {
    Host {
        capabilities: ALL_CAPABILITIES & !(1 << 24),
        least_oom_score_adj: -5,
        ..Host::default()
    }
}

fn with(
    config: ContainerConfig,
    sandbox: PodSandboxConfig,
    image: ImageDefaults<'_>,
) -> Result<Plan, PlanError> {
    plan(&Request {
        id: "c",
        sandbox_id: "s",
        config: &config,
        sandbox: &sandbox,
        image,
        identity: Identity {
            uid: 7,
            gid: 8,
            groups: vec![8, 9],
            home: "/home/seven".to_owned(),
        },
        host: &host(),
        cgroup: "/coracle/s/c",
        hostname: "web",
        pod_files: Path::new("/run/coracle/pods/s"),
        directory: Path::new("/var/lib/coracle/containers/c"),
        unset_seccomp_profile: UnsetSeccompProfile::Unconfined,
    })
}

fn planned(config: ContainerConfig) -> Value {
    to_value(
        with(config, PodSandboxConfig::default(), ImageDefaults::default())
            .unwrap()
            .spec,
    )
    .unwrap()
}

fn refused(config: ContainerConfig) -> String {
    with(config, PodSandboxConfig::default(), ImageDefaults::default())
        .unwrap_err()
        .to_string()
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn simple() -> ContainerConfig {
    ContainerConfig {
        command: strings(&["/bin/true"]),
        ..ContainerConfig::default()
    }
}

fn secure(security: LinuxContainerSecurityContext) -> ContainerConfig {
    let linux = LinuxContainerConfig {
        security_context: Some(security),
        ..LinuxContainerConfig::default()
    };
    ContainerConfig {
        linux: Some(linux),
        ..simple()
    }
}

fn capable(add: &[&str], drop: &[&str], ambient: &[&str]) -> ContainerConfig {
    secure(LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            add_ambient_capabilities: strings(ambient),
        }),
        ..LinuxContainerSecurityContext::default()
    })
}

fn mounted(mounts: Vec<Mount>) -> ContainerConfig {
    ContainerConfig { mounts, ..simple() }
}

fn volume(host: &str, container: &str) -> Mount {
    Mount {
        host_path: host.to_owned(),
        container_path: container.to_owned(),
        ..Mount::default()
    }
}

#[test]
fn command_replaces_entrypoint_and_args_replace_cmd() {
    let (entrypoint, cmd) = (strings(&["/e"]), strings(&["c"]));
    let image = ImageDefaults {
        entrypoint: &entrypoint,
        cmd: &cmd,
        ..ImageDefaults::default()
    };
    let cases: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["/e", "c"]),
        (&[], &["a"], &["/e", "a"]),
        (&["/x"], &[], &["/x"]),
        (&["/x"], &["a"], &["/x", "a"]),
    ];
    for (command, args, expected) in cases {
        let config = ContainerConfig {
            command: strings(command),
            args: strings(args),
            ..ContainerConfig::default()
        };
        let spec = to_value(with(config, PodSandboxConfig::default(), image).unwrap().spec).unwrap();
        assert_eq!(spec["process"]["args"], json!(expected));
    }
    assert!(refused(ContainerConfig::default()).contains("neither ENTRYPOINT nor CMD"));
}

#[test]
fn the_containers_environment_wins_over_the_images_and_defaults_fill_the_rest() {
    let env = strings(&["PATH=/opt", "A=image", "B=image"]);
    let image = ImageDefaults {
        env: &env,
        working_dir: "srv",
        ..ImageDefaults::default()
    };
    let entry = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
    };
    let config = ContainerConfig {
        envs: vec![entry("A", "own"), entry("C", "x=y")],
        ..simple()
    };
    let spec = to_value(with(config, PodSandboxConfig::default(), image).unwrap().spec).unwrap();
    let expected = json!([
        "PATH=/opt",
        "HOSTNAME=web",
        "A=own",
        "B=image",
        "C=x=y",
        "HOME=/home/seven"
    ]);
    assert_eq!(spec["process"]["env"], expected);
    assert_eq!(spec["process"]["cwd"], "/srv");
    assert_eq!(
        spec["process"]["user"],
        json!({ "uid": 7, "gid": 8, "additionalGids": [8, 9] })
    );
}

#[test]
fn capabilities_are_added_dropped_and_cut_to_what_the_daemon_holds() {
    let bounding = |config| {
        planned(config)["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(bounding(simple()), 14);
    assert_eq!(bounding(capable(&["sys_admin", "CAP_CHOWN"], &["KILL"], &[])), 14);
    assert_eq!(bounding(capable(&["ALL"], &[], &[])), 40);
    assert_eq!(bounding(capable(&["ALL"], &["CHOWN"], &[])), 39);
    assert_eq!(bounding(capable(&[], &["all"], &[])), 0);
    assert_eq!(bounding(capable(&["NET_ADMIN"], &["ALL"], &[])), 1);
    let ambient = planned(capable(&[], &["ALL"], &["NET_BIND_SERVICE"]))["process"]["capabilities"].clone();
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        assert_eq!(ambient[set], json!(["CAP_NET_BIND_SERVICE"]), "{set}");
    }
    assert_eq!(
        planned(simple())["process"]["capabilities"]["inheritable"],
        json!([])
    );
}

#[test]
fn the_pods_files_are_mounted_unless_a_volume_takes_their_place() {
    let destinations = |spec: &Value| -> Vec<String> {
        let mounts = spec["mounts"].as_array().unwrap().iter();
        mounts
            .map(|mount| mount["destination"].as_str().unwrap().to_owned())
            .collect()
    };
    let spec = planned(simple());
    assert!(
        ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]
            .iter()
            .all(|f| destinations(&spec).contains(&(*f).to_owned()))
    );
    let spec = planned(mounted(vec![
        volume("/h/deep", "/data/deep"),
        volume("/h/hosts", "/etc/hosts"),
        volume("/h", "/data/"),
    ]));
    let all = destinations(&spec);
    assert_eq!(all.iter().filter(|path| *path == "/etc/hosts").count(), 1);
    let data = all.iter().position(|path| path == "/data").unwrap();
    assert!(data < all.iter().position(|path| path == "/data/deep").unwrap());
}

/// containerd sorts all mounts of a container by depth (faults of the field, B11).
#[test]
fn a_volume_above_a_mount_of_the_runtimes_comes_before_it() {
    let spec = planned(mounted(vec![
        volume("/h/shm", "/dev/shm/inner"),
        volume("/h/etc", "//etc/"),
        volume("/h/dev", "/dev"),
        volume("/h/sys", "/sys/"),
    ]));
    let mounts = spec["mounts"].as_array().unwrap();
    let place = |destination: &str| {
        let mut found = mounts
            .iter()
            .enumerate()
            .filter(|(_, mount)| mount["destination"] == destination);
        let (place, _) = found
            .next()
            .unwrap_or_else(|| panic!("{destination} is not there"));
        assert!(found.next().is_none(), "{destination} is there twice");
        place
    };
    for (above, below) in [
        ("/etc", "/etc/resolv.conf"),
        ("/etc", "/etc/hosts"),
        ("/dev", "/dev/shm"),
        ("/dev", "/dev/pts"),
        ("/dev/shm", "/dev/shm/inner"),
        ("/sys", "/sys/fs/cgroup"),
    ] {
        assert!(place(above) < place(below), "{above} hides {below}");
    }
    assert_eq!(mounts[place("/sys")]["source"], "/h/sys");
}

#[test]
fn an_entrypoint_of_one_empty_string_is_none() {
    let (entrypoint, cmd) = (strings(&[""]), strings(&["/bin/sh", "-c", "x"]));
    let image = ImageDefaults {
        entrypoint: &entrypoint,
        cmd: &cmd,
        ..ImageDefaults::default()
    };
    let args = |config| {
        let planned = with(config, PodSandboxConfig::default(), image).unwrap();
        to_value(planned.spec).unwrap()["process"]["args"].clone()
    };
    assert_eq!(args(ContainerConfig::default()), json!(cmd));
    let own = ContainerConfig {
        args: strings(&["/a", "b"]),
        ..ContainerConfig::default()
    };
    assert_eq!(args(own), json!(["/a", "b"]));
}

/// As in containerd: what has no "=" takes the variable of that name away.
#[test]
fn an_images_environment_without_a_value_is_left_out() {
    let env = strings(&["A=1", "FOO", "", "=x", "A", "B=2", "PATH"]);
    let image = ImageDefaults {
        env: &env,
        ..ImageDefaults::default()
    };
    let planned = with(simple(), PodSandboxConfig::default(), image).unwrap();
    let spec = to_value(planned.spec).unwrap();
    assert_eq!(
        spec["process"]["env"],
        json!(["HOSTNAME=web", "B=2", "HOME=/home/seven"])
    );
}

#[test]
fn the_pods_shm_is_shared_unless_a_volume_or_the_host_takes_its_place() {
    let share = |config, sandbox| with(config, sandbox, ImageDefaults::default()).unwrap().share_shm;
    assert!(share(simple(), PodSandboxConfig::default()));
    assert!(!share(
        mounted(vec![volume("/s", "/dev/shm")]),
        PodSandboxConfig::default()
    ));
    assert!(!share(simple(), host_ipc()));
}

fn host_ipc() -> PodSandboxConfig {
    let options = NamespaceOption {
        ipc: NamespaceMode::Node.into(),
        ..NamespaceOption::default()
    };
    sandbox(LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..LinuxSandboxSecurityContext::default()
    })
}

fn sandbox(security: LinuxSandboxSecurityContext) -> PodSandboxConfig {
    let linux = LinuxPodSandboxConfig {
        security_context: Some(security),
        ..LinuxPodSandboxConfig::default()
    };
    PodSandboxConfig {
        linux: Some(linux),
        ..PodSandboxConfig::default()
    }
}

#[test]
fn privileged_lifts_the_masks_and_needs_a_privileged_sandbox() {
    let security = LinuxContainerSecurityContext {
        privileged: true,
        masked_paths: strings(&["/proc/kcore"]),
        seccomp: Some(SecurityProfile::default()),
        ..LinuxContainerSecurityContext::default()
    };
    assert!(refused(secure(security.clone())).contains("the sandbox is not privileged"));
    let pod = sandbox(LinuxSandboxSecurityContext {
        privileged: true,
        ..LinuxSandboxSecurityContext::default()
    });
    let spec = to_value(
        with(secure(security), pod, ImageDefaults::default())
            .unwrap()
            .spec,
    )
    .unwrap();
    assert_eq!(spec["linux"]["maskedPaths"], json!([]));
    assert_eq!(spec["linux"].get("seccomp"), None);
    assert_eq!(
        spec["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len(),
        40
    );
    assert!(
        spec["linux"]["devices"]
            .as_array()
            .unwrap()
            .iter()
            .any(|device| device["path"] == "/dev/null")
    );
}

#[test]
fn zero_resources_are_no_limits_and_the_oom_score_is_clamped() {
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 1 << 20,
        cpu_quota: -1,
        oom_score_adj: -998,
        ..LinuxContainerResources::default()
    };
    let linux = LinuxContainerConfig {
        resources: Some(resources),
        ..LinuxContainerConfig::default()
    };
    let spec = planned(ContainerConfig {
        linux: Some(linux),
        ..simple()
    });
    assert_eq!(spec["linux"]["resources"]["memory"], json!({ "limit": 1 << 20 }));
    assert_eq!(spec["linux"]["resources"]["cpu"], json!({ "quota": -1 }));
    assert_eq!(spec["process"]["oomScoreAdj"], -5);
}

#[test]
fn runtime_default_is_a_profile_and_localhost_is_read() {
    let profile = |kind, path: &str| {
        let profile = SecurityProfile {
            profile_type: kind,
            localhost_ref: path.to_owned(),
        };
        secure(LinuxContainerSecurityContext {
            seccomp: Some(profile),
            ..LinuxContainerSecurityContext::default()
        })
    };
    assert_eq!(
        planned(profile(0, ""))["linux"]["seccomp"]["defaultAction"],
        "SCMP_ACT_ERRNO"
    );
    assert_eq!(planned(profile(1, ""))["linux"].get("seccomp"), None);
    assert_eq!(planned(simple())["linux"].get("seccomp"), None);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, r#"{"defaultAction": "SCMP_ACT_LOG"}"#).unwrap();
    assert_eq!(
        planned(profile(2, path))["linux"]["seccomp"]["defaultAction"],
        "SCMP_ACT_LOG"
    );
    std::fs::write(path, r#"{"defaultAction": "SCMP_ACT_WHAT"}"#).unwrap();
    assert!(refused(profile(2, path)).contains("security_context.seccomp"));
    assert!(refused(profile(2, "/nowhere")).contains("security_context.seccomp: read /nowhere"));
    assert!(refused(profile(2, "/dev/zero")).contains("not a file"));
    assert!(refused(profile(9, "")).contains("security_context.seccomp.profile_type"));
    assert!(refused(profile(2, "relative")).contains("security_context.seccomp"));
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let env = |key: &str, value: &[u8]| ContainerConfig {
        envs: vec![KeyValue {
            key: key.to_owned(),
            value: value.to_vec(),
        }],
        ..simple()
    };
    let device = |host: &str, container: &str, permissions: &str| ContainerConfig {
        devices: vec![Device {
            host_path: host.to_owned(),
            container_path: container.to_owned(),
            permissions: permissions.to_owned(),
        }],
        ..simple()
    };
    let rro = |readonly, propagation: MountPropagation| Mount {
        readonly,
        recursive_read_only: true,
        propagation: propagation.into(),
        ..volume("/a", "/b")
    };
    let pid = |mode: i32| {
        let options = NamespaceOption {
            pid: mode,
            ..NamespaceOption::default()
        };
        secure(LinuxContainerSecurityContext {
            namespace_options: Some(options),
            ..LinuxContainerSecurityContext::default()
        })
    };
    let cases = [
        (env("", b""), "config.envs[0]"),
        (env("A=B", b""), "config.envs[0]"),
        (env("A", b"\xff"), "config.envs[0]"),
        (env("A", b"a\0b"), "config.envs[0]"),
        (
            ContainerConfig {
                working_dir: "here".to_owned(),
                ..simple()
            },
            "config.working_dir",
        ),
        (
            ContainerConfig {
                command: strings(&["a\0b"]),
                ..ContainerConfig::default()
            },
            "config.command",
        ),
        (
            ContainerConfig {
                stop_signal: 99,
                ..simple()
            },
            "config.stop_signal",
        ),
        (device("/nowhere", "/dev/x", "rw"), "config.devices[0].host_path"),
        (device("/dev/null", "x", "rw"), "config.devices[0].container_path"),
        (
            device("/dev/null", "/dev/x", "rwx"),
            "config.devices[0].permissions",
        ),
        (mounted(vec![volume("a", "/b")]), "config.mounts[0].host_path"),
        (mounted(vec![volume("", "/b")]), "config.mounts[0].host_path"),
        (
            mounted(vec![volume("/a", "/b/../..")]),
            "config.mounts[0].container_path",
        ),
        (
            mounted(vec![volume("/a", "/")]),
            "config.mounts[0].container_path",
        ),
        (mounted(vec![volume("/a", "")]), "config.mounts[0].container_path"),
        (
            mounted(vec![rro(false, MountPropagation::PropagationPrivate)]),
            "config.mounts[0].recursive_read_only",
        ),
        (
            mounted(vec![rro(true, MountPropagation::PropagationHostToContainer)]),
            "recursive_read_only",
        ),
        (capable(&["SYS_NOTHING"], &[], &[]), "SYS_NOTHING"),
        (capable(&["SYS_RESOURCE"], &[], &[]), "CAP_SYS_RESOURCE"),
        (pid(NamespaceMode::Target.into()), "namespace_options.pid: TARGET"),
        (pid(NamespaceMode::Node.into()), "namespace_options.pid"),
        (pid(77), "namespace_options.pid"),
        (
            secure(LinuxContainerSecurityContext {
                apparmor_profile: "localhost/x".to_owned(),
                ..LinuxContainerSecurityContext::default()
            }),
            "security_context.apparmor",
        ),
    ];
    for (config, names) in cases {
        let error = refused(config.clone());
        assert!(error.contains(names), "{config:?}: {error}");
    }
}

#[test]
fn a_run_as_user_is_not_looked_at_here_but_its_identity_is_used() {
    let security = LinuxContainerSecurityContext {
        run_as_user: Some(Int64Value { value: 1 }),
        no_new_privs: true,
        readonly_rootfs: true,
        ..LinuxContainerSecurityContext::default()
    };
    let spec = planned(secure(security));
    assert_eq!(spec["process"]["user"]["uid"], 7);
    assert_eq!(spec["process"]["noNewPrivileges"], true);
    assert_eq!(spec["root"]["readonly"], true);
}

/// As in containerd: a mount of the request or of the runtime at the same place comes first.
#[test]
fn an_images_volume_is_a_directory_of_the_containers_own() {
    let volumes = strings(&["/data", "srv/db/", "/etc/hosts", "/proc", "/taken", "/"]);
    let image = ImageDefaults {
        volumes: &volumes,
        ..ImageDefaults::default()
    };
    let config = ContainerConfig {
        mounts: vec![volume("/h", "/taken/")],
        ..secure(LinuxContainerSecurityContext {
            readonly_rootfs: true,
            ..LinuxContainerSecurityContext::default()
        })
    };
    let plan = with(config, PodSandboxConfig::default(), image).unwrap();
    let made: Vec<_> = plan
        .image_volumes
        .iter()
        .map(|volume| volume.destination.display().to_string())
        .collect();
    assert_eq!(made, ["/data", "/srv/db"]);
    let spec = to_value(&plan.spec).unwrap();
    let mounts = spec["mounts"].as_array().unwrap();
    let data = mounts
        .iter()
        .find(|mount| mount["destination"] == "/data")
        .unwrap();
    assert_eq!(data["source"], "/var/lib/coracle/containers/c/volumes/0");
    assert_eq!(data["options"], json!(["rbind", "rprivate", "rw"]));
}

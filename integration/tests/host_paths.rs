//! Host paths that a request names: made when they are missing, taken back when the request fails, and left alone when
//! their file system hangs.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_integration::cri::v1::{
    ContainerConfig, CreateContainerRequest, Mount, MountPropagation, PodSandboxConfig, RunPodSandboxRequest,
    StopPodSandboxRequest,
};
use coracle_integration::daemon::{Daemon, Settings};
use coracle_integration::leak::Snapshot;
use coracle_integration::node;
use coracle_integration::{pods, wait};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::Code;

/// A FUSE file system whose server never answers hangs whoever looks at it, as a dead NFS server does.
struct Hung {
    path: std::path::PathBuf,
    /// Closed, everybody who hangs gets an error.
    server: Option<File>,
}

impl Hung {
    /// None where the kernel has no FUSE.
    fn mount(path: &Path) -> Option<Hung> {
        let server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(
            Some("dead-server"),
            path,
            Some("fuse"),
            MsFlags::empty(),
            Some(data.as_str()),
        )
        .ok()?;
        Some(Hung {
            path: path.to_owned(),
            server: Some(server),
        })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_host_path_that_hangs_does_not_keep_its_pod() {
    node::run("host-path-hangs", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let Some(hung) = Hung::mount(&node.folder("dead")) else {
            eprintln!("skipped: no FUSE here");
            return;
        };
        let cri = daemon.cri();
        let config = pods::sandbox("waiting", &node.folder("logs"));
        let pod = cri.run(&config);
        let mut container = pods::container("reader", &["true"]);
        container.mounts = vec![bind(&hung.path.join("data"))];
        let socket = daemon.socket();
        let request = create(&pod, &config, container);
        let creating = node
            .spawn_thread(move || coracle_integration::cri::Cri::connect(&socket).create_container(request));
        // It hangs in the file system by then, as the name of its thread tells.
        let daemon_pid = node.pid_of(&["coracled"]);
        wait::until_true(wait::SOON, "the daemon looks at the path", || {
            threads_of(daemon_pid).iter().any(|name| name == "host path")
        });
        let begun = Instant::now();
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: pod.clone(),
        };
        cri.stop_pod_sandbox(stop).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let refused = creating.join().unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        cri.discard(&pod);
        drop(hung);
        wait::until_true(wait::SOON, "the thread is gone", || {
            !threads_of(daemon_pid).iter().any(|name| name == "host path")
        });
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn what_a_refused_request_made_is_taken_back_and_what_another_uses_is_not() {
    node::run("host-paths-undone", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let data = node.folder("data");
        let before = Snapshot::take_with_files(node, &daemon, &[&data]);
        let cri = daemon.cri();

        let mut refused = pods::sandbox("refused", &data.join("logs"));
        // The shim refuses it, after the directories were made.
        refused.linux.as_mut().unwrap().sysctls = [("kernel/../x".to_owned(), "1".to_owned())].into();
        let request = RunPodSandboxRequest {
            config: Some(refused),
            ..Default::default()
        };
        cri.run_pod_sandbox(request).unwrap_err();
        assert!(!data.join("logs").exists());

        let config = pods::sandbox("good", &node.folder("logs"));
        let pod = cri.run(&config);
        let mut wrong = pods::container("wrong", &["true"]);
        let mut shared = bind(&data.join("new/shared"));
        // A tmpfs or disk that nobody shared: known only when the path is there.
        shared.propagation = MountPropagation::PropagationBidirectional.into();
        wrong.mounts = vec![bind(&data.join("new/kept/deep")), shared];
        let refused = cri.create_container(create(&pod, &config, wrong)).unwrap_err();
        assert!(refused.message().contains("propagation"), "{refused:?}");
        assert!(!data.join("new").exists());

        let mut right = pods::container("right", &["true"]);
        right.mounts = vec![bind(&data.join("new/kept/deep"))];
        let _ = cri.create(&pod, &config, &right);
        cri.discard(&pod);
        assert!(
            data.join("new/kept/deep").is_dir(),
            "what a container was made with stays"
        );
        fs::remove_dir_all(data.join("new")).unwrap();
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

#[test]
fn what_a_killed_daemon_made_is_taken_back_by_the_next() {
    node::run("host-paths-killed", |node| {
        let mut settings = Settings::new(node);
        settings.flags = vec![
            "--fail-point".to_owned(),
            "create_container.shim:before".to_owned(),
        ];
        let daemon = settings.start(node);
        daemon.import_payload();
        let cri = daemon.cri();
        let config = pods::sandbox("killed", &node.folder("logs"));
        let pod = cri.run(&config);
        let data = node.folder("data");
        let mut container = pods::container("only", &["true"]);
        container.mounts = vec![bind(&data.join("new/deep"))];
        cri.create_container(create(&pod, &config, container))
            .unwrap_err();
        daemon.wait_for_end(wait::SOON);
        assert!(data.join("new/deep").is_dir());
        daemon.restart();
        wait::until_true(wait::SOON, "what was made is taken back", || {
            !data.join("new").exists()
        });
        daemon.cri().discard(&pod);
    });
}

fn create(pod: &str, sandbox: &PodSandboxConfig, container: ContainerConfig) -> CreateContainerRequest {
    CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(container),
        sandbox_config: Some(sandbox.clone()),
    }
}

fn bind(host: &Path) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: format!("/{}", host.file_name().unwrap().to_str().unwrap()),
        ..Default::default()
    }
}

/// Their names, as proc_pid_comm(5) tells.
fn threads_of(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}

//! A `coracled` of the test's own: its folders, its network, its socket, and its deaths.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cri::{self, Cri};
use crate::image::Image;
use crate::node::Node;
use crate::{programs, wait};

/// Opening the records syncs them, and the disk may be busy with what was built a moment ago.
const START: Duration = Duration::from_secs(30);

/// The name of the payload image once it is imported.
pub const PAYLOAD: &str = "localhost/coracle/payload:1";

/// What a daemon is started with. [`Settings::start`] starts it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--root`.
    pub root: PathBuf,
    /// `--state`.
    pub state: PathBuf,
    /// The configuration list in `--cni-conf-dir`.
    pub network: Value,
    /// The plugins, `--cni-bin-dir`; unset: ours.
    pub plugins: Option<PathBuf>,
    /// The cgroup below which its shims and pods go; it makes it.
    pub cgroup_root: String,
    /// A cgroup that the daemon itself is put into, for accounts of its time.
    pub own_cgroup: Option<String>,
    /// Further lines of the configuration file.
    pub configuration: String,
    /// Further words of the command line.
    pub flags: Vec<String>,
}

/// A daemon that a test started; dropped, it is killed (its pods live on as long as the node).
#[derive(Debug)]
pub struct Daemon<'node> {
    node: &'node Node,
    settings: Settings,
    folder: PathBuf,
    child: RefCell<Option<Child>>,
}

impl Settings {
    /// What a test usually wants: folders of its own, and [`bridge_and_portmap`].
    #[must_use]
    pub fn new(node: &Node) -> Settings {
        Settings {
            root: node.folder("root"),
            state: node.folder("state"),
            network: bridge_and_portmap("pods", "cbr0", 88),
            plugins: None,
            cgroup_root: node.cgroup().to_owned(),
            own_cgroup: None,
            configuration: String::new(),
            flags: Vec::new(),
        }
    }

    /// Writes the daemon's files and starts it.
    ///
    /// # Panics
    /// When it does not listen within 30 s.
    #[must_use]
    pub fn start<'node>(self, node: &'node Node) -> Daemon<'node> {
        let folder = node.folder("daemon");
        let daemon = Daemon {
            node,
            settings: self,
            folder,
            child: RefCell::new(None),
        };
        daemon.write_files();
        daemon.restart();
        daemon
    }
}

impl<'node> Daemon<'node> {
    /// A daemon with the usual [`Settings`].
    ///
    /// # Panics
    /// When it does not listen within 30 s.
    #[must_use]
    pub fn start(node: &'node Node) -> Daemon<'node> {
        Settings::new(node).start(node)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("coracled.sock")
    }

    /// The socket as a client's flag wants it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// `--root`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.settings.root
    }

    /// `--state`.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.settings.state
    }

    /// The folder whose `HOST/hosts.toml` say where images come from.
    #[must_use]
    pub fn registry_configuration(&self) -> PathBuf {
        self.folder.join("certs.d")
    }

    /// A connection to it.
    ///
    /// # Panics
    /// When it does not answer within 5 s.
    #[must_use]
    pub fn cri(&self) -> Cri {
        Cri::connect(&self.socket())
    }

    /// Its pid, as the machine counts.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn machine_pid(&self) -> u32 {
        self.child.borrow().as_ref().expect("the daemon runs").id()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("coracled.log")).unwrap_or_default()
    }

    /// Imports the payload image under the name [`PAYLOAD`].
    ///
    /// # Panics
    /// When that fails.
    pub fn import_payload(&self) {
        let imported = self
            .cri()
            .import(&payload_archive(self.node))
            .expect("import the payload image");
        assert_eq!(imported.len(), 1, "{imported:?}");
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill9(&self) {
        let mut child = self.child.borrow_mut().take().expect("the daemon runs");
        child.kill().expect("kill the daemon");
        child.wait().expect("wait for the daemon");
    }

    /// Waits for an end of its own making, as a fail point is.
    ///
    /// # Panics
    /// When it still runs after `bound`.
    pub fn wait_for_end(&self, bound: Duration) {
        let ended = wait::until(bound, || {
            let mut child = self.child.borrow_mut();
            match child.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => Err(()),
                _ => {
                    *child = None;
                    Ok(())
                }
            }
        });
        assert!(
            ended.is_ok(),
            "the daemon still runs after {bound:?}\n{}",
            self.log_tail()
        );
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child
            .borrow_mut()
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Starts it again on the same folders.
    ///
    /// # Panics
    /// When it runs already, or does not listen within 30 s.
    pub fn restart(&self) {
        self.restart_with(&[]);
    }

    /// Starts it again, with further words on its command line.
    ///
    /// # Panics
    /// When it runs already, or does not listen within 30 s.
    pub fn restart_with(&self, flags: &[&str]) {
        assert!(self.child.borrow().is_none(), "the daemon runs already");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("coracled.log"))
            .expect("the log");
        let program = programs::ours("coracled");
        let mut command = match &self.settings.own_cgroup {
            Some(cgroup) => self.node.command_in(cgroup, &program),
            None => self.node.command(program),
        };
        command
            .env("RUST_BACKTRACE", "1")
            .arg("--config")
            .arg(self.folder.join("config.toml"))
            .args(["--listen", &self.address()])
            .args(&self.settings.flags)
            .args(flags)
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .stdin(Stdio::null());
        for (flag, folder) in self.folders() {
            command.arg(flag).arg(folder);
        }
        *self.child.borrow_mut() = Some(command.spawn().expect("start coracled"));
        let up = wait::until(START, || {
            if cri::listens(&self.socket()) || !self.runs() {
                Ok(())
            } else {
                Err(())
            }
        });
        assert!(
            up.is_ok() && self.runs(),
            "coracled did not start\n{}",
            self.log_tail()
        );
    }

    /// Ends it as an operator does.
    ///
    /// # Panics
    /// When it does not run or does not end within 5 s.
    pub fn stop(&self) {
        let pid = i32::try_from(self.machine_pid()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
            .expect("SIGTERM");
        self.wait_for_end(wait::SOON);
    }

    /// Takes away what stays while a daemon runs: the network's bridge, table and sysctls.
    ///
    /// # Panics
    /// When the program that does it fails.
    pub fn uninstall_network(&self) {
        let name = self.settings.network["name"]
            .as_str()
            .expect("the network's name");
        // A pod's detachment may end in the background, when the kernel has let go of its rules.
        let removed = wait::until(wait::SOON, || {
            let mut command = self.node.command(programs::ours("coracle-cni"));
            let output = programs::output_of(command.args(["uninstall-network", name]));
            if output.status.success() {
                Ok(())
            } else {
                Err(programs::said(&command, &output))
            }
        });
        removed.unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    fn folders(&self) -> [(&'static str, PathBuf); 5] {
        let plugins = self
            .settings
            .plugins
            .clone()
            .unwrap_or_else(|| self.folder.join("plugins"));
        [
            ("--root", self.settings.root.clone()),
            ("--state", self.settings.state.clone()),
            ("--cni-conf-dir", self.folder.join("net.d")),
            ("--cni-bin-dir", plugins),
            ("--registry-config-dir", self.registry_configuration()),
        ]
    }

    fn write_files(&self) {
        for (_, folder) in self.folders() {
            fs::create_dir_all(folder).expect("make the daemon's folders");
        }
        let configuration = format!(
            "cgroup_root = \"{}\"\n{}\n",
            self.node.cgroup(),
            self.settings.configuration
        );
        fs::write(self.folder.join("config.toml"), configuration).expect("write config.toml");
        let network = serde_json::to_string_pretty(&self.settings.network).expect("JSON");
        fs::write(self.folder.join("net.d/10-pods.conflist"), network)
            .expect("write the network's configuration");
        if self.settings.plugins.is_none() {
            let mut install = self.node.command(programs::ours("coracle-cni"));
            let _ = programs::stdout_of(install.arg("install").arg(self.folder.join("plugins")));
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "the daemon's last lines:\n{}",
            lines[lines.len().saturating_sub(40)..].join("\n")
        )
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Some(mut child) = self.child.borrow_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The usual chain: a bridge with masquerade for both families, and host ports. The subnets are 10.`number`.0.0/16 and
/// fd00:`number`::/64.
#[must_use]
pub fn bridge_and_portmap(name: &str, bridge: &str, number: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": true,
                "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [
                        [{ "subnet": format!("10.{number}.0.0/16") }],
                        [{ "subnet": format!("fd00:{number}::/64") }]
                    ],
                    "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]
                }
            },
            { "type": "portmap", "capabilities": { "portMappings": true } }
        ]
    })
}

/// The payload image as an archive, made once a node.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn payload_archive(node: &Node) -> PathBuf {
    let path = node.scratch().join("payload.tar");
    if !path.exists() {
        let payload = fs::read(programs::ours("coracle-payload")).expect("read the payload");
        let mut file = fs::File::create(&path).expect("make the archive");
        Image::of_payload(PAYLOAD, payload)
            .write(&mut file)
            .expect("write the archive");
    }
    path
}

//! A node of its own for each test: private mount and network namespaces with an own `/run`, links to the plugins, and
//! the check that nothing is left when the test is done.

#![allow(dead_code, reason = "each test program uses another part")]

use coracle_cni_protocol::{Attachment, Caller, CniResult, ConfList};
use coracle_linux::netlink::route::link::{self, Mac, Veth, Which};
use coracle_linux::netlink::route::{address, route};
use coracle_linux::netlink::{Protocol, Socket};
use nix::mount::{MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_coracle-cni");
pub(crate) const BIN: &str = "/run/bin";
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    /// Settings that networks change, as they were before: a new namespace begins with the values of the first one.
    settings: Vec<(&'static str, String)>,
    /// What a new namespace has: tunnel drivers that the machine has loaded give each one a device.
    own_links: Vec<String>,
}

const SETTINGS: [&str; 3] = [
    "ipv4/ip_forward",
    "ipv4/conf/all/accept_redirects",
    "ipv6/conf/all/forwarding",
];

/// Runs a test on a new node. Needs root.
pub(crate) fn on_node(test: impl FnOnce(&Node) + Send) {
    assert!(is_root(), "the plugins' tests need root: they make namespaces");
    std::thread::scope(|scope| {
        let outcome = scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
                let none: Option<&str> = None;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
                fs::create_dir_all("/run/netns").unwrap();
                assert!(
                    Command::new(PROGRAM)
                        .args(["install", BIN])
                        .status()
                        .unwrap()
                        .success()
                );
                coracle_linux::link::lo_up().unwrap();
                let node = Node {
                    settings: SETTINGS.map(|name| (name, setting(name))).into(),
                    own_links: link_names(),
                };
                test(&node);
                node.assert_clean();
            })
            .join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:\t0\t"))
}

impl Node {
    /// Makes a network namespace and returns its path.
    pub(crate) fn netns(&self, name: &str) -> PathBuf {
        let path = Path::new("/run/netns").join(name);
        File::create(&path).unwrap();
        std::thread::scope(|scope| {
            let path = &path;
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                coracle_linux::link::lo_up().unwrap();
                let none: Option<&str> = None;
                mount(
                    Some("/proc/thread-self/ns/net"),
                    path,
                    none,
                    MsFlags::MS_BIND,
                    none,
                )
                .unwrap();
            });
        });
        path
    }

    pub(crate) fn remove_netns(&self, path: &Path) {
        umount2(path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        fs::remove_file(path).unwrap();
    }

    /// Does something inside a network namespace.
    pub(crate) fn inside<T: Send>(&self, netns: &Path, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(File::open(netns).unwrap().as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// Another host on a wire of its own: 192.0.2.`n`.9 and 2001:db8:`n`::9, this node has .1 and ::1 there.
    pub(crate) fn other_host(&self, n: u8) -> PathBuf {
        let netns = self.netns(&format!("other{n}"));
        let file = File::open(&netns).unwrap();
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let name = format!("up{n}");
        let veth = Veth {
            name: &name,
            mac: Mac([2, 0, 0, 0, n, 1]),
            peer_name: "e0",
            peer_mac: Mac([2, 0, 0, 0, n, 9]),
            peer_namespace: file.as_fd(),
            mtu: None,
        };
        socket.request(&[link::new_veth(&veth)]).unwrap();
        configure(&mut socket, &name, n, 1);
        self.inside(&netns, || {
            configure(&mut Socket::open(Protocol::Route).unwrap(), "e0", n, 9);
        });
        netns
    }

    /// Calls one plugin.
    pub(crate) fn call(&self, plugin: &str, env: &[(&str, &str)], config: &Value) -> Output {
        self.start(plugin, env, config).wait_with_output().unwrap()
    }

    /// Starts one plugin with its input written.
    pub(crate) fn start(&self, plugin: &str, env: &[(&str, &str)], config: &Value) -> std::process::Child {
        let mut child = Command::new(format!("{BIN}/{plugin}"))
            .env_clear()
            .env("CNI_PATH", BIN)
            .env("CNI_IFNAME", "eth0")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = config.to_string();
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        // It may end without reading its input: what is wrong with its environment comes first.
        if let Err(error) = written {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
        }
        child
    }

    /// Calls one plugin, which must succeed; returns its result.
    pub(crate) fn ok(&self, plugin: &str, env: &[(&str, &str)], config: &Value) -> Value {
        let output = self.call(plugin, env, config);
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{plugin} {env:?}: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        if stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&stdout).unwrap()
        }
    }

    /// Calls one plugin, which must fail; returns its error object.
    pub(crate) fn fails(&self, plugin: &str, env: &[(&str, &str)], config: &Value) -> Value {
        let output = self.call(plugin, env, config);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{plugin} {env:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// CHECK of each plugin of a list, which must succeed.
    pub(crate) fn check(&self, list: &ConfList, attachment: &Attachment, result: &CniResult) {
        for plugin in list.plugins() {
            let mut conf = plugin.clone();
            conf.insert("name", list.name().into());
            conf.insert("cniVersion", list.version().into());
            conf.insert("prevResult", result.to_json(list.version()));
            conf.insert("runtimeConfig", attachment.capabilities.clone().into());
            let env = [
                ("CNI_COMMAND", "CHECK"),
                ("CNI_CONTAINERID", attachment.container_id.as_str()),
                ("CNI_NETNS", attachment.netns.as_ref().unwrap().to_str().unwrap()),
            ];
            self.ok(plugin.kind().unwrap(), &env, &Value::Object(conf.map().clone()));
        }
    }

    /// `nft list ruleset`; empty without any rule.
    pub(crate) fn rules(&self) -> String {
        let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Names of the links of this node.
    pub(crate) fn links(&self) -> Vec<String> {
        let mut names = link_names();
        names.retain(|name| !self.own_links.contains(name) && !name.starts_with("up"));
        names
    }

    /// MAC address of a link of this node.
    pub(crate) fn mac(&self, name: &str) -> String {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let found = link::find(&mut socket, Which::Name(name)).unwrap().unwrap();
        found.mac.unwrap().to_string()
    }

    /// The files of a network's addresses.
    pub(crate) fn addresses(&self, network: &str) -> Vec<String> {
        let dir = fs::read_dir(Path::new("/run/ipam").join(network));
        let names = dir
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        names.sort();
        names
    }

    /// Waits until something is so; the kernel and the plugins' children finish deletions in the background.
    pub(crate) fn until(&self, what: &str, test: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !test() {
            assert!(Instant::now() < end, "{what} did not happen within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn uninstall(&self, network: &str) {
        let output = Command::new(PROGRAM)
            .args(["uninstall-network", network])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Nothing of any network is left.
    fn assert_clean(&self) {
        assert_eq!(self.links(), Vec::<String>::new(), "links");
        assert_eq!(self.rules(), "", "nf_tables rules");
        assert!(!Path::new("/run/coracle-cni").exists(), "network records");
        for (name, before) in &self.settings {
            assert_eq!(setting(name), *before, "{name}");
        }
        assert!(!Path::new("/run/ipam").exists(), "address stores");
    }
}

/// Names of the links of this thread's namespace.
pub(crate) fn link_names() -> Vec<String> {
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let links = link::list(&mut socket).unwrap().into_iter();
    let mut names: Vec<_> = links.map(|link| link.name).collect();
    names.sort();
    names
}

/// A setting below `/proc/sys/net`, which shows the namespace of whoever opens it.
pub(crate) fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}"))
        .unwrap()
        .trim()
        .to_owned()
}

fn configure(socket: &mut Socket, name: &str, n: u8, host: u8) {
    let found = link::find(socket, Which::Name(name)).unwrap().unwrap();
    let up = link::Change {
        up: Some(true),
        ..link::Change::default()
    };
    let v6: IpAddr = format!("2001:db8:{n}::{host}").parse().unwrap();
    let messages = [
        address::add(found.index, IpAddr::from([192, 0, 2 + n, host]), 24, false),
        address::add(found.index, v6, 64, false),
        link::change(Which::Index(found.index), &up),
    ];
    socket.request(&messages).unwrap();
    let _ = route::list(socket, found.index, false).unwrap();
}

pub(crate) fn caller() -> Caller {
    Caller::new(vec![BIN.into()]).timeout(Duration::from_secs(60))
}

pub(crate) fn attachment(id: &str, netns: &Path) -> Attachment {
    Attachment {
        container_id: id.to_owned(),
        netns: Some(netns.to_owned()),
        ifname: "eth0".to_owned(),
        ..Attachment::default()
    }
}

pub(crate) fn with_ports(mut attachment: Attachment, ports: &Value) -> Attachment {
    attachment
        .capabilities
        .insert("portMappings".to_owned(), ports.clone());
    attachment
}

pub(crate) fn bridge_conf() -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "dataDir": "/run/ipam",
                 "ranges": [[{"subnet": "10.7.0.0/16"}], [{"subnet": "fd07::/64"}]]},
    })
}

/// The usual chain.
pub(crate) fn list(version: &str) -> ConfList {
    list_of(
        version,
        json!([bridge_conf(), {"type": "portmap", "capabilities": {"portMappings": true}}]),
    )
}

pub(crate) fn list_of(version: &str, plugins: Value) -> ConfList {
    let list = json!({"cniVersion": version, "name": "net", "plugins": plugins});
    ConfList::parse(list.to_string().as_bytes()).unwrap()
}

/// The configuration of one plugin as a caller would send it.
pub(crate) fn single(version: &str, mut plugin: Value) -> Value {
    plugin["cniVersion"] = json!(version);
    plugin["name"] = json!("net");
    plugin
}

pub(crate) fn first(result: &CniResult, v6: bool) -> IpAddr {
    result
        .ips
        .iter()
        .map(|ip| ip.address.addr())
        .find(|address| address.is_ipv6() == v6)
        .unwrap()
}

/// A server in a namespace that tells each client the address it sees. It ends with the test's process.
pub(crate) fn serve(node: &Node, netns: &Path, port: u16) {
    // The listener of :: takes IPv4 too.
    let listener = node.inside(netns, move || TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let from = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(from.to_string().as_bytes());
        }
    });
}

/// What the server there says about where we come from.
pub(crate) fn ask(address: &str, port: u16) -> Result<String, std::io::Error> {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether nothing answers there: refused, unreachable or silent. Where an answer must not come, it is not waited for long.
pub(crate) fn closed(address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
}

//! The leak check: what a node held before, compared with what it holds after.
//!
//! A [`Snapshot`] is a plain list of facts, each under the kind of thing it is about: a mount, a link, an nftables element,
//! a file. The comparison names every fact that is new, and for the kinds where that is as bad, every one that is gone.

mod kernel;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::cri::{self, Cri};
use crate::daemon::Daemon;
use crate::node::Node;
use crate::{cgroups, wait};

/// What a node holds at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    facts: BTreeMap<Kind, BTreeSet<String>>,
    watched: Watched,
}

/// Where files and records of pods may be.
#[derive(Clone, Debug, Default)]
struct Watched {
    folders: Vec<PathBuf>,
    /// Below one of `folders`, and no pod's business: the images stay.
    except: Option<PathBuf>,
    /// Looked at as a whole.
    more: Vec<PathBuf>,
    logs: Option<PathBuf>,
    /// Of a daemon that is asked for its pods and containers.
    socket: Option<PathBuf>,
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A line of the node's mountinfo, but for the mounts that the machine had before.
    Mount,
    /// A network namespace, held by a process or bound to a path.
    NetworkNamespace,
    /// A network device.
    Link,
    /// An address of a device.
    Address,
    /// A route, of any table.
    Route,
    /// A table, chain, rule, set or element of nftables.
    Nftables,
    /// A value below /proc/sys/net.
    Sysctl,
    /// A directory of the cgroup tree.
    Cgroup,
    /// A process.
    Process,
    /// A file or directory below what is watched.
    File,
    /// A pod or container that a daemon knows.
    Record,
}

impl Kind {
    /// Whether something that is gone afterwards is a fault: nothing of the node's own may be taken away.
    fn must_stay(self) -> bool {
        matches!(
            self,
            Kind::Mount | Kind::Link | Kind::Address | Kind::Route | Kind::Nftables
        )
    }
}

impl Snapshot {
    /// Looks at everything the node has. Files are those of `/run`, `/var/lib` (IP leases too) and `/var/log`.
    ///
    /// # Panics
    /// When something cannot be looked at.
    #[must_use]
    pub fn take(node: &Node) -> Snapshot {
        Snapshot::of(
            node,
            Watched {
                folders: own_folders().to_vec(),
                ..Watched::default()
            },
        )
    }

    /// As [`Snapshot::take`], with what a daemon has of pods and containers: its records, and the files below its `--root`
    /// (without the images), below its `--state` and in the test's folder for logs.
    ///
    /// # Panics
    /// When something cannot be looked at.
    #[must_use]
    pub fn take_with_daemon(node: &Node, daemon: &Daemon<'_>) -> Snapshot {
        Snapshot::take_with_files(node, daemon, &[])
    }

    /// As [`Snapshot::take_with_daemon`], with the files below these folders too.
    ///
    /// # Panics
    /// When something cannot be looked at.
    #[must_use]
    pub fn take_with_files(node: &Node, daemon: &Daemon<'_>, folders: &[&Path]) -> Snapshot {
        let mut watched = own_folders().to_vec();
        watched.extend([daemon.root(), daemon.state()].map(Path::to_path_buf));
        Snapshot::of(
            node,
            Watched {
                folders: watched,
                except: Some(daemon.root().join("images")),
                more: folders.iter().map(|folder| folder.to_path_buf()).collect(),
                logs: Some(node.folder("logs")),
                socket: Some(daemon.socket()),
            },
        )
    }

    fn of(node: &Node, watched: Watched) -> Snapshot {
        Snapshot {
            facts: look(node, &watched),
            watched,
        }
    }

    /// Waits until the node holds what it did: 5 s, the bound for everything of ours.
    ///
    /// # Panics
    /// With the list of what is left, or was taken away, when that does not come.
    pub fn assert_nothing_left(&self, node: &Node) {
        self.assert_nothing_left_within(node, wait::SOON);
    }

    /// As [`Snapshot::assert_nothing_left`], for a client that takes longer, as the kubelet does.
    ///
    /// # Panics
    /// With the list of what is left, or was taken away.
    pub fn assert_nothing_left_within(&self, node: &Node, bound: std::time::Duration) {
        let checked = wait::until(bound, || {
            let difference = self.difference(node);
            if difference.is_empty() {
                Ok(())
            } else {
                Err(difference)
            }
        });
        if let Err(difference) = checked {
            panic!("after {bound:?} the node is not as it was:\n{difference}");
        }
    }

    /// What is different now.
    #[must_use]
    pub fn difference(&self, node: &Node) -> Difference {
        let now = look(node, &self.watched);
        let empty = BTreeSet::new();
        let mut difference = Difference::default();
        for kind in now.keys().chain(self.facts.keys()).collect::<BTreeSet<_>>() {
            let before = self.facts.get(kind).unwrap_or(&empty);
            let after = now.get(kind).unwrap_or(&empty);
            difference
                .left
                .extend(after.difference(before).map(|fact| (*kind, fact.clone())));
            if kind.must_stay() {
                difference
                    .taken
                    .extend(before.difference(after).map(|fact| (*kind, fact.clone())));
            }
        }
        // A value that changed counts; one whose file came with its link or module does not.
        if let Some(before) = self.facts.get(&Kind::Sysctl) {
            difference
                .left
                .retain(|(kind, fact)| *kind != Kind::Sysctl || kernel::changed(fact, before));
        }
        difference
    }

    /// How many facts of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.facts.get(&kind).map_or(0, BTreeSet::len)
    }
}

/// What two looks at a node do not have in common.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    left: Vec<(Kind, String)>,
    taken: Vec<(Kind, String)>,
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.taken.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, fact) in &self.left {
            writeln!(f, "  left behind: {kind:?} {fact}")?;
        }
        for (kind, fact) in &self.taken {
            writeln!(f, "  taken away:  {kind:?} {fact}")?;
        }
        Ok(())
    }
}

/// The folders that every node has for itself.
fn own_folders() -> [PathBuf; 3] {
    ["/run", "/var/lib", "/var/log"].map(PathBuf::from)
}

fn look(node: &Node, watched: &Watched) -> BTreeMap<Kind, BTreeSet<String>> {
    let mut files = kernel::files(&watched.folders);
    if let Some(except) = &watched.except {
        files.retain(|path| !Path::new(path).starts_with(except));
    }
    files.extend(kernel::files(&watched.more));
    files.extend(
        watched
            .logs
            .iter()
            .flat_map(|folder| kernel::other_than_logs(folder)),
    );
    BTreeMap::from([
        (Kind::Mount, kernel::mounts(node)),
        (Kind::NetworkNamespace, kernel::network_namespaces(node)),
        (Kind::Link, network::links(node)),
        (Kind::Address, network::addresses(node)),
        (Kind::Route, network::routes(node)),
        (Kind::Nftables, network::nftables(node)),
        (Kind::Sysctl, kernel::sysctls()),
        (
            Kind::Cgroup,
            cgroups::directories(node.cgroup())
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        ),
        (Kind::Process, kernel::processes(node)),
        (Kind::File, files),
        (
            Kind::Record,
            watched.socket.as_deref().map(records).unwrap_or_default(),
        ),
    ])
}

/// What a daemon lists; one that does not run lists nothing.
fn records(socket: &Path) -> BTreeSet<String> {
    if !cri::listens(socket) {
        return BTreeSet::new();
    }
    let cri = Cri::connect(socket);
    let pods = cri.list_pod_sandbox(Default::default()).expect("ListPodSandbox");
    let containers = cri.list_containers(Default::default()).expect("ListContainers");
    let pods = pods.items.into_iter().map(|pod| format!("pod {}", pod.id));
    let containers = containers.containers.into_iter();
    pods.chain(containers.map(|container| format!("container {}", container.id)))
        .collect()
}

//! A node of its own for every test.
//!
//! ```text
//!  test thread --- unshare(mount, net, ipc, uts, pid) ---> the node's thread: the test's closure runs here
//!                                                             |-- PID 1: a shell that reaps
//!                                                             |-- coracled, crictl, kubelet, ...: children of the closure
//! ```
//!
//! Namespaces belong to threads, so the closure's thread is the node: what it opens is the node's, and what it starts runs
//! inside. Programs inside see their own `/run`, `/var/lib`, `/var/log`, `/proc` and `/sys`. The end of PID 1 ends every
//! process of the node, however the test ended; the mounts, links and rules go with their namespaces. What is shared with
//! the machine is the cgroup tree (each node has a path of its own there) and the scratch folder.

mod mounts;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, geteuid};

use crate::{cgroups, programs, wait};
use mounts::Mounts;

/// How long a test may take that says nothing else.
const USUAL: Duration = Duration::from_secs(600);

/// Where the system's programs are, whatever the caller's environment says.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The node a test runs on.
#[derive(Debug)]
pub struct Node {
    scratch: PathBuf,
    cgroup: String,
    mounts_of_the_machine: Mounts,
    /// A shell; when it ends the kernel ends every process of its PID namespace.
    init: Child,
    own_pids: File,
    node_pids: File,
    /// The children of the node's thread, as the machine counts: proc_tid_children(5).
    children: File,
}

/// Runs a test on a node of its own.
///
/// # Panics
/// When the test does, when it takes too long, and without root.
pub fn run(name: &str, test: impl FnOnce(&Node) + Send + 'static) {
    run_for(name, USUAL, test);
}

/// Runs a test on a node of its own that may take as long as `bound`.
///
/// # Panics
/// When the test does, when it takes too long, and without root.
pub fn run_for(name: &str, bound: Duration, test: impl FnOnce(&Node) + Send + 'static) {
    assert!(
        geteuid().is_root(),
        "{name} needs root: it makes namespaces, mounts and cgroups"
    );
    let scratch = tempfile::Builder::new()
        .prefix("cit-")
        .tempdir()
        .expect("make a scratch folder");
    let folder = scratch.path().to_path_buf();
    let (events, heard) = mpsc::channel();
    let runner = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let node = Node::enter(folder);
        let _ = events.send(node.init.id());
        let outcome = catch_unwind(AssertUnwindSafe(|| test(&node)));
        let cleaned = node.leave();
        drop(events);
        match outcome {
            Err(panic) => resume_unwind(panic),
            Ok(()) => cleaned.unwrap_or_else(|left| panic!("{left}")),
        }
    });
    let runner = runner.expect("start the test's thread");
    let late = wait_for_end(&heard, bound);
    let outcome = runner.join();
    assert!(!late, "the test took longer than {bound:?}; its node was ended");
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Waits until the node is gone; says whether it had to be ended.
fn wait_for_end(heard: &mpsc::Receiver<u32>, bound: Duration) -> bool {
    let Ok(init) = heard.recv() else { return false };
    let ended = matches!(
        heard.recv_timeout(bound),
        Err(mpsc::RecvTimeoutError::Disconnected)
    );
    if !ended {
        // The test's own waits are bounded: with its programs dead it ends by itself.
        let _ = kill(
            Pid::from_raw(i32::try_from(init).expect("a pid")),
            Signal::SIGKILL,
        );
    }
    !ended
}

impl Node {
    /// A folder for the test's files, removed with the node.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A folder below [`Node::scratch`], made when it is not there.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.scratch.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
        path
    }

    /// The cgroup path below which everything of this test belongs, in every hierarchy; the test's programs make it.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A command that runs inside the node, with nothing of the caller's environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .stdin(Stdio::null());
        command
    }

    /// A command whose program runs in the cgroup `path` of every hierarchy from its first instruction; the cgroup is made.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn command_in(&self, path: &str, program: &Path) -> Command {
        cgroups::create(path).unwrap_or_else(|error| panic!("make the cgroup {path}: {error}"));
        let mut command = self.command("/bin/sh");
        // `0` is the writer itself; the program takes its place.
        let script = "for hierarchy in /sys/fs/cgroup/*/; do
                procs=\"$hierarchy$0/cgroup.procs\"
                if [ -w \"$procs\" ]; then echo 0 > \"$procs\"; fi
            done
            exec \"$@\"";
        command
            .args(["-c", script, path.trim_start_matches('/')])
            .arg(program);
        command
    }

    /// Whether a mount of the node, as a line of its mountinfo, came from the machine with the node's namespace. Such a
    /// mount is not the node's: it goes when somebody on the machine removes the directory it stands on.
    pub(crate) fn is_of_the_machine(&self, mount: &str) -> bool {
        self.mounts_of_the_machine.contains(mount)
    }

    /// Runs one of the system's programs inside the node, and gives its standard output.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn output(&self, words: &[&str]) -> String {
        programs::stdout_of(self.command(words[0]).args(&words[1..]))
    }

    /// As [`Node::output`], for a command that only has to succeed.
    ///
    /// # Panics
    /// When it fails.
    pub fn does(&self, words: &[&str]) {
        let _ = self.output(words);
    }

    /// Sends a signal to a process of the node, by the pid it has there.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn signal(&self, pid: u32, signal: &str) {
        self.does(&["kill", "-s", signal, &pid.to_string()]);
    }

    /// The processes of the node, by the pids they have there: PID 1 and what keeps it waiting are not counted.
    ///
    /// # Panics
    /// When the node's procfs cannot be read.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        // What keeps it waiting has its command line until it has become `sleep`.
        let keeper = Process::read(1).expect("the node's PID 1").command;
        let mut found: Vec<Process> = fs::read_dir("/proc")
            .expect("the node's procfs")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(Process::read)
            .filter(|process| process.command != keeper && process.command != ["sleep", "infinity"])
            .collect();
        found.sort_by_key(|process| process.pid);
        found
    }

    /// The pid of the one process whose command line holds all of `words`. A child has its parent's until its execve(2),
    /// so this waits until there is one.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[must_use]
    pub fn pid_of(&self, words: &[&str]) -> u32 {
        let is_it = |process: &&Process| {
            let has = |word: &&str| process.command.iter().any(|argument| argument.contains(*word));
            process.state != 'Z' && words.iter().all(has)
        };
        let found = wait::until(wait::SOON, || {
            let all = self.processes();
            let mut matching = all.iter().filter(is_it);
            match (matching.next(), matching.next()) {
                (Some(one), None) => Ok(one.pid),
                _ => Err(all),
            }
        });
        found.unwrap_or_else(|all| panic!("not one process with {words:?} among {all:#?}"))
    }

    /// Starts a thread that lives on the node. (The kernel refuses threads to one whose children go to another PID
    /// namespace than its own, so `std::thread::spawn` fails here; children of this thread have pids of the machine.)
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        setns(&self.own_pids, CloneFlags::CLONE_NEWPID).expect("setns to the machine's PID namespace");
        let started = thread::spawn(work);
        setns(&self.node_pids, CloneFlags::CLONE_NEWPID).expect("setns to the node's PID namespace");
        started
    }

    fn enter(scratch: PathBuf) -> Node {
        let own_pids = File::open("/proc/thread-self/ns/pid").expect("open the own PID namespace");
        let children = File::open("/proc/thread-self/children").expect("open the list of own children");
        unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWPID,
        )
        .expect("unshare the node's namespaces");
        let mounts_of_the_machine = Mounts::of_this_thread();
        mounts::make_private();
        let init = start_init();
        let node_pids = File::open("/proc/1/ns/pid").expect("open the node's PID namespace");
        // As unique as the folder: a pid comes again, and is another's in another container on this machine.
        let unique = scratch.file_name().expect("the scratch folder's name");
        let cgroup = format!("/coracle-it-{}", unique.display());
        Node {
            scratch,
            cgroup,
            mounts_of_the_machine,
            init,
            own_pids,
            node_pids,
            children,
        }
    }

    /// Ends every process and takes the cgroups away.
    fn leave(mut self) -> Result<(), String> {
        // A frozen process would not die.
        cgroups::thaw(&self.cgroup);
        let _ = self.init.kill();
        wait::until(wait::SOON, || {
            self.collect_children();
            match self.init.try_wait() {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("the node's processes do not end: {other:?}")),
            }
        })?;
        cgroups::remove(&self.cgroup)
    }

    /// A PID namespace is only gone when everybody in it was waited for, and a test that failed did not wait for its
    /// children; they are this thread's.
    fn collect_children(&mut self) {
        let mut list = String::new();
        let _ = self
            .children
            .rewind()
            .and_then(|()| self.children.read_to_string(&mut list));
        for pid in list.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            if Some(pid) != i32::try_from(self.init.id()).ok() {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    }
}

/// One process of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// As the node counts.
    pub pid: u32,
    /// As the node counts.
    pub parent: u32,
    /// The arguments; of a zombie its name alone.
    pub command: Vec<String>,
    /// `R`, `S`, `Z`, ...: proc_pid_stat(5).
    pub state: char,
}

impl Process {
    /// None when it is gone.
    fn read(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let mut fields = tail.split(' ');
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut command: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        command.pop();
        if command.is_empty() {
            command.push(head.split_once('(')?.1.to_owned());
        }
        Some(Process {
            pid,
            parent,
            command,
            state,
        })
    }
}

/// PID 1 of the node: it mounts the node's procfs (only a process inside can), brings `lo` up, and reaps orphans.
fn start_init() -> Child {
    let script = "mount -t proc proc /proc && ip link set lo up && echo ready || exit 1
        exec >/dev/null 2>&1
        while :; do sleep infinity & wait; done";
    // The node does not outlive its test, even one that was killed.
    let mut init = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "/bin/sh", "-c", script])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the node's PID 1");
    let mut line = String::new();
    let said = init.stdout.take().expect("a pipe");
    BufReader::new(said)
        .read_line(&mut line)
        .expect("hear from the node's PID 1");
    assert_eq!(line, "ready\n", "the node's PID 1 could not set it up");
    init
}

//! Facts that procfs and the file system tell.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::node::Node;

/// Mount point, type and source of each mount of the node's own; how many there are on one point counts, its number does not.
pub(super) fn mounts(node: &Node) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/1/mountinfo").expect("the node's mountinfo");
    let own = table.lines().filter(|line| !node.is_of_the_machine(line));
    numbered(own.map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let separator = fields
            .iter()
            .position(|field| *field == "-")
            .expect("a separator, proc_pid_mountinfo(5)");
        format!(
            "{} ({} {})",
            fields[4],
            fields[separator + 1],
            fields[separator + 2]
        )
    }))
}

/// The network namespaces that processes live in, and those that have a path.
pub(super) fn network_namespaces(node: &Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for process in node.processes() {
        if let Ok(namespace) = fs::read_link(format!("/proc/{}/ns/net", process.pid)) {
            found.insert(namespace.display().to_string());
        }
    }
    let own = fs::read_link("/proc/1/ns/net").expect("the node's network namespace");
    found.remove(&own.display().to_string());
    found.extend(
        fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().display().to_string()),
    );
    found
}

/// Every process by its command line: a daemon that was restarted is the same fact. A dead one that nobody collects is told.
pub(super) fn processes(node: &Node) -> BTreeSet<String> {
    numbered(node.processes().into_iter().map(|process| {
        let dead = if process.state == 'Z' {
            " (dead, not collected)"
        } else {
            ""
        };
        format!("{}{dead}", process.command.join(" "))
    }))
}

/// Every file and directory below the folders, by path. Logs grow by themselves and are no leak.
pub(super) fn files(folders: &[PathBuf]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in folders {
        collect(folder, &mut found);
    }
    // ip-netns(8)'s folder, which all who name network namespaces share; what is in it counts.
    found.remove("/run/netns");
    found
}

/// What is in the folder of the pods' logs that nobody asked for. A pod's folder and the `NAME.log` of its containers are
/// the client's, as CRI has it: the kubelet removes them.
pub(super) fn other_than_logs(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pod in fs::read_dir(folder).into_iter().flatten().flatten() {
        if pod.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&pod.path(), &mut found);
        } else {
            found.insert(pod.path().display().to_string());
        }
    }
    found
}

/// `path = value` for everything readable below /proc/sys/net that does not change by itself.
pub(super) fn sysctls() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    collect(Path::new("/proc/sys/net"), &mut paths);
    paths
        .into_iter()
        .filter(|path| !path.ends_with("/nf_conntrack_count") && !path.ends_with("/stable_secret"))
        .filter_map(|path| {
            let value = fs::read_to_string(&path).ok()?;
            Some(format!("{path} = {}", value.trim_end().replace('\n', " ")))
        })
        .collect()
}

/// Whether the sysctl that `fact` tells was there before, with another value.
pub(super) fn changed(fact: &str, before: &BTreeSet<String>) -> bool {
    let Some((path, _)) = fact.split_once(" = ") else {
        return true;
    };
    let prefix = format!("{path} = ");
    before
        .range(prefix.clone()..)
        .next()
        .is_some_and(|other| other.starts_with(&prefix))
}

/// Makes equal lines different, so that a set can hold them: the second mount on one point is `... #2`.
fn numbered(lines: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for line in lines {
        let mut name = line.clone();
        let mut number = 1;
        while !seen.insert(name.clone()) {
            number += 1;
            name = format!("{line} #{number}");
        }
    }
    seen
}

fn collect(folder: &Path, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            continue;
        }
        found.insert(path.display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, found);
        }
    }
}

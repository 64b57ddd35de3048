//! The daemon's directories: on what they lie, and how much room is left.

use std::path::{Path, PathBuf};

use coracle_linux::mountinfo::MountInfo;

use super::Places;
use super::finding::Finding;

const AREA: &str = "directories";
/// In percent of the file system.
const LOW: u64 = 10;
/// overlayfs(5): an upper directory may not itself lie on one of these.
const NO_UPPER: &[&str] = &["overlay", "nfs", "nfs4", "vfat", "fuse", "9p"];

pub(super) fn look(places: &Places) -> Vec<Finding> {
    let mounts = MountInfo::of_this_process().ok();
    let mut findings = Vec::new();
    for (what, path, is_upper) in [("root", &places.root, true), ("state", &places.state, false)] {
        let there = existing(path);
        if there != *path {
            let says = format!("{} is not there yet", path.display());
            findings.push(Finding::degraded(AREA, what, says, "start coracled: it makes it"));
        }
        if let Some(mounts) = &mounts {
            findings.push(file_system(what, &there, mounts, is_upper));
        }
        findings.push(room(what, &there));
    }
    findings
}

/// The path, or what there is of it.
fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|path| path.is_dir())
        .unwrap_or_else(|| Path::new("/"))
        .to_owned()
}

fn file_system(what: &str, path: &Path, mounts: &MountInfo, is_upper: bool) -> Finding {
    let what = format!("{what}: file system");
    let Some(mount) = mounts.holding(path) else {
        return Finding::degraded(
            AREA,
            what,
            "not found among the mounts",
            "look at /proc/self/mountinfo",
        );
    };
    let bad = NO_UPPER.iter().find(|kind| is_upper && mount.is(kind));
    if let Some(kind) = bad {
        let says = format!(
            "{} lies on {kind}, where overlayfs takes no upper directory",
            path.display()
        );
        return Finding::broken(
            AREA,
            what,
            says,
            "put root on ext4, xfs or btrfs (key `root` of the configuration)",
        );
    }
    Finding::good(
        AREA,
        what,
        format!("{} on {}", path.display(), mount.point().display()),
    )
}

fn room(what: &str, path: &Path) -> Finding {
    let what = format!("{what}: room");
    let Ok(found) = rustix::fs::statvfs(path) else {
        return Finding::degraded(
            AREA,
            what,
            "cannot be asked for",
            format!("look at {}", path.display()),
        );
    };
    // A file system without a limit (btrfs counts no files) says 0 of 0.
    let percent = |free: u64, all: u64| free.saturating_mul(100).checked_div(all).unwrap_or(100);
    let (blocks, files) = (
        percent(found.f_bavail, found.f_blocks),
        percent(found.f_favail, found.f_files),
    );
    let says = format!("{blocks} % of the bytes and {files} % of the files are free");
    if blocks.min(files) >= LOW {
        return Finding::good(AREA, what, says);
    }
    let says = format!("{says}: pulls and logs will fail, a kubelet evicts pods");
    Finding::degraded(
        AREA,
        what,
        says,
        "coraclectl image rm what is not used, or make room",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::state_of;
    use super::*;

    #[test]
    fn an_upper_directory_on_an_overlay_is_broken() {
        let mounts = MountInfo::from_text(
            "1 0 0:1 / / rw - overlay overlay rw\n2 1 8:1 / /data rw - ext4 /dev/sda1 rw\n",
        );
        for (path, is_upper, state) in [
            ("/var/lib", true, State::Broken),
            ("/run", false, State::Good),
            ("/data/coracle", true, State::Good),
        ] {
            let finding = file_system("root", Path::new(path), &mounts, is_upper);
            assert_eq!(finding.state, state, "{path}: {finding:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_and_its_parent_measured() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places {
            root: directory.path().join("no/where"),
            state: directory.path().to_owned(),
            ..Places::default()
        };
        let findings = look(&places);
        assert_eq!(state_of(&findings, "root"), State::Degraded);
        assert!(findings.iter().any(|finding| finding.what == "root: room"));
        assert!(findings.iter().all(|finding| finding.what != "state"));
    }
}

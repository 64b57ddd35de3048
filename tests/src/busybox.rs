//! Root file systems with busybox.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, umask};

/// Makes a root file system.
pub fn make_root(root: &Path) {
    // Other users than root are to get at what tests make, whoever runs them.
    umask(Mode::from_bits_truncate(0o022));
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let busybox = busybox.expect("busybox-static is installed");
    install(Path::new(busybox), &root.join("bin/busybox"));
    for name in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

/// Copies a program so that the copy can be executed at once.
///
/// Another process writes it: a descriptor of this one, open for writing, could at that moment be inherited by a child that
/// another test's thread starts, and until that child's execve the file cannot be executed (ETXTBSY).
pub fn install(program: &Path, copy: &Path) {
    let done = Command::new("install")
        .args(["-m", "755"])
        .args([program, copy])
        .status();
    assert!(done.unwrap().success(), "{}", copy.display());
}

/// Makes a program of this content; see [`install`].
pub fn executable(path: &Path, content: &[u8]) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, content).unwrap();
    install(&draft, path);
    std::fs::remove_file(draft).unwrap();
}

/// What scripts of tests use. The shell runs them without looking at PATH; a specification's args want names.
const APPLETS: &str = "sh cat chmod chroot dd echo env false grep head hostname id ifconfig ip kill ln ls mkdir mknod mount nc \
    nice nsenter od printf ps pwd readlink rm seq setsid sleep stat stty tail test touch tr true tty umount wc yes";

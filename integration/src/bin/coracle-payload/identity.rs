//! Who the process is and what it was given.

use std::fs;
use std::io;

/// User, groups, capabilities, seccomp and no_new_privs as the kernel states them.
pub(crate) fn id() -> io::Result<u8> {
    const WANTED: [&str; 9] = [
        "Uid:",
        "Gid:",
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "NoNewPrivs:",
        "Seccomp:",
    ];
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        if WANTED.iter().any(|name| line.starts_with(name)) {
            println!("{}", line.replace('\t', " "));
        }
    }
    Ok(0)
}

/// One line with the user that the process acts as: another than the caller's where a setuid bit was honoured.
pub(crate) fn effective_uid() -> io::Result<u8> {
    println!("Effective uid: {}", nix::unistd::geteuid());
    Ok(0)
}

pub(crate) fn env() -> io::Result<u8> {
    for (name, value) in std::env::vars_os() {
        println!("{}={}", name.to_string_lossy(), value.to_string_lossy());
    }
    Ok(0)
}

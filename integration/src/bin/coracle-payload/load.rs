//! Verbs that use something up: output, memory, disk.

use std::fs::File;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

/// Lines of `width` bytes, newline included, that begin with their number.
pub(crate) fn write_lines(count: u64, width: usize) -> io::Result<u8> {
    let mut out = io::stdout().lock();
    for number in 0..count {
        let head = format!("line {number} ");
        let fill = width.saturating_sub(head.len() + 1);
        writeln!(out, "{head}{:x<fill$}", "")?;
    }
    out.flush()?;
    Ok(0)
}

/// Touches every page, so that it counts, then waits.
pub(crate) fn fill_memory(mib: usize) -> io::Result<u8> {
    let mut held = Vec::new();
    for done in 1..=mib {
        held.push(vec![1_u8; 1 << 20]);
        println!("{done} MiB");
    }
    std::hint::black_box(&held);
    wait()
}

/// Writes `mib` MiB to `path`, syncs nothing, then waits.
pub(crate) fn fill_file(path: &str, mib: usize) -> io::Result<u8> {
    let mut file = File::create(path)?;
    let block = vec![1_u8; 1 << 20];
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    println!("{path}: {mib} MiB");
    wait()
}

fn wait() -> io::Result<u8> {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

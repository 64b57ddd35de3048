//! Verbs on files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

pub(crate) fn write(path: &str, text: &str) -> io::Result<u8> {
    fs::write(path, format!("{text}\n"))?;
    Ok(0)
}

pub(crate) fn append(path: &str, text: &str) -> io::Result<u8> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{text}")?;
    Ok(0)
}

pub(crate) fn cat(paths: &[&str]) -> io::Result<u8> {
    let mut out = io::stdout();
    if paths.is_empty() {
        io::copy(&mut io::stdin(), &mut out)?;
    }
    for path in paths {
        io::copy(&mut File::open(path)?, &mut out)?;
    }
    out.flush()?;
    Ok(0)
}

pub(crate) fn list(path: &str) -> io::Result<u8> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        println!("{}", name.to_string_lossy());
    }
    Ok(0)
}

/// Returns once the file is there.
pub(crate) fn wait_for(path: &str) -> io::Result<u8> {
    while !Path::new(path).exists() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(0)
}

/// Tries to open each path; says which could be opened. Exit code 0 only when none could.
pub(crate) fn open(paths: &[&str]) -> io::Result<u8> {
    let mut opened = 0;
    for path in paths {
        let result = if Path::new(path).is_dir() {
            fs::read_dir(path).map(drop)
        } else {
            File::open(path).map(drop)
        };
        match result {
            Ok(()) => {
                println!("{path}: opened");
                opened = 1;
            }
            Err(error) => println!("{path}: {error}"),
        }
    }
    Ok(opened)
}

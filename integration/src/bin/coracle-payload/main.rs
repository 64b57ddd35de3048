//! The program inside the images of the demo and the tests: one static file, no shell, no library.
//!
//! It usually is process 1 of its container, and to process 1 the kernel delivers no signal it has not asked for. So the
//! main thread blocks SIGTERM and SIGINT and waits for them while the verb runs on a second thread: a stop ends it at
//! once, with 128 + signal as exit code.

mod fetch;
mod files;
mod identity;
mod load;
mod serve;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "usage: payload VERB
  serve PORT [TEXT]            HTTP on all addresses; / answers TEXT and the hostname, /log?N writes N bytes of lines,
                               /fail answers 500 from then on, /exit?CODE ends the program
  fetch URL [--every SECONDS] [--count N]   GET, print the status and the body; again and again
  echo WORD...   err WORD...   one line on stdout, on stderr
  write-lines N [WIDTH]        N numbered lines of WIDTH bytes
  fill-memory MIB              touch so much memory, then wait
  fill-file PATH MIB           write so much, then wait
  write PATH TEXT   append PATH TEXT   cat PATH...   ls PATH   wait-for PATH   wait-for-port PORT
  id   effective-uid   env   hostname   mounts   open PATH...
  sleep SECONDS   trap SECONDS (ignores SIGTERM)   exit CODE   true
Several verbs, separated by --, run one after the other until one fails.
";

fn main() -> ExitCode {
    let mut asked = SigSet::empty();
    asked.add(Signal::SIGTERM);
    asked.add(Signal::SIGINT);
    let blocked = asked.thread_block();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if blocked.is_ok() && !words.iter().any(|word| word == "trap") {
        // The verbs run on a thread of their own; the process ends with whichever comes first.
        thread::spawn(move || leave(run_all(&words)));
        match asked.wait() {
            Ok(signal) => leave(128 + signal as u8),
            Err(_) => ExitCode::FAILURE,
        }
    } else {
        ExitCode::from(run_all(&words))
    }
}

/// Ends the process from any thread.
#[allow(
    clippy::exit,
    reason = "the verb runs on a thread that main does not wait for"
)]
fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

/// Verbs separated by `--`, until one fails.
fn run_all(words: &[String]) -> u8 {
    for verb in words.split(|word| word == "--") {
        let verb: Vec<&str> = verb.iter().map(String::as_str).collect();
        match run(&verb) {
            Ok(0) => {}
            Ok(code) => return code,
            Err(error) => {
                let _ = writeln!(io::stderr(), "payload: {}: {error}", verb.join(" "));
                return 1;
            }
        }
    }
    0
}

/// One verb; its exit code.
fn run(verb: &[&str]) -> io::Result<u8> {
    match verb {
        ["serve", port, text @ ..] => serve::serve(number(port)?, &text.join(" ")),
        ["fetch", url, options @ ..] => fetch::fetch(url, options),
        ["echo", words @ ..] => line(&mut io::stdout(), &words.join(" ")),
        ["err", words @ ..] => line(&mut io::stderr(), &words.join(" ")),
        ["write-lines", count] => load::write_lines(number(count)?, 80),
        ["write-lines", count, width] => load::write_lines(number(count)?, number(width)?),
        ["fill-memory", mib] => load::fill_memory(number(mib)?),
        ["fill-file", path, mib] => load::fill_file(path, number(mib)?),
        ["write", path, text] => files::write(path, text),
        ["append", path, text] => files::append(path, text),
        ["cat", paths @ ..] => files::cat(paths),
        ["ls", path] => files::list(path),
        ["wait-for", path] => files::wait_for(path),
        ["wait-for-port", port] => Ok(fetch::wait_for_port(number(port)?)),
        ["open", paths @ ..] => files::open(paths),
        ["id"] => identity::id(),
        ["effective-uid"] => identity::effective_uid(),
        ["env"] => identity::env(),
        ["hostname"] => files::cat(&["/proc/sys/kernel/hostname"]),
        ["mounts"] => files::cat(&["/proc/self/mountinfo"]),
        ["sleep" | "trap", seconds] => {
            thread::sleep(Duration::from_secs_f64(number(seconds)?));
            Ok(0)
        }
        ["exit", code] => number(code),
        ["true"] => Ok(0),
        _ => {
            io::stderr().write_all(USAGE.as_bytes())?;
            Ok(2)
        }
    }
}

fn line(to: &mut impl Write, text: &str) -> io::Result<u8> {
    writeln!(to, "{text}")?;
    to.flush()?;
    Ok(0)
}

/// `text` as a number, or an error that shows it.
fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is no such number")))
}

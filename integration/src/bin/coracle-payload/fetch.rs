//! `fetch`: one HTTP GET, once or in a loop.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::Duration;

/// With `--every`, a failed attempt is reported and tried again; without, it is the result.
pub(crate) fn fetch(url: &str, options: &[&str]) -> io::Result<u8> {
    let mut every: Option<f64> = None;
    let mut count = u64::MAX;
    for option in options.chunks(2) {
        match option {
            ["--every", seconds] => every = Some(super::number(seconds)?),
            ["--count", times] => count = super::number(times)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{option:?} is no option"),
                ));
            }
        }
    }
    let Some(every) = every else {
        print!("{}", get(url)?);
        return Ok(0);
    };
    for _ in 0..count {
        match get(url) {
            Ok(answer) => print!("{url}: {answer}"),
            Err(error) => println!("{url}: {error}"),
        }
        io::stdout().flush()?;
        thread::sleep(Duration::from_secs_f64(every));
    }
    Ok(0)
}

/// Returns once somebody listens on 127.0.0.1.
pub(crate) fn wait_for_port(port: u16) -> u8 {
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        thread::sleep(Duration::from_millis(50));
    }
    0
}

/// The status line's code and the body.
fn get(url: &str) -> io::Result<String> {
    let bad = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned());
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| bad("only http:// is fetched"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if authority.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let address = with_port
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| bad("the host has no address"))?;
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        connection,
        "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| bad("the answer is not HTTP"))?;
    let status = head.split(' ').nth(1).unwrap_or("no status");
    Ok(format!("{status} {body}"))
}

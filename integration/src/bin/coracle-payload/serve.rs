//! `serve`: an HTTP server that is small enough to read at once; a thread per connection, one request each.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::load;

/// Set by `/fail`: from then on every answer is 500 (for liveness probes).
static FAILING: AtomicBool = AtomicBool::new(false);

pub(crate) fn serve(port: u16, text: &str) -> io::Result<u8> {
    // Both families where IPv6 is there: the kernel maps IPv4 onto a wildcard IPv6 socket.
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    println!("serving on port {port}");
    for connection in listener.incoming() {
        let text = text.to_owned();
        let connection = connection?;
        thread::spawn(move || {
            if let Err(error) = answer(&connection, &text) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(0)
}

fn answer(connection: &TcpStream, text: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(connection).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head is read so that closing does not reset the connection under the answer.
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            break;
        }
    }
    let target = request.split(' ').nth(1).unwrap_or("/");
    println!("{request} from {}", connection.peer_addr()?.ip().to_canonical());
    let (status, body) = reply(target, text)?;
    let mut connection = connection;
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    connection.flush()
}

fn reply(target: &str, text: &str) -> io::Result<(&'static str, String)> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/exit" => super::leave(super::number(query)?),
        "/fail" => FAILING.store(true, Ordering::SeqCst),
        "/log" => {
            let bytes: u64 = super::number(query)?;
            load::write_lines(bytes / 80, 80)?;
        }
        _ => {}
    }
    if FAILING.load(Ordering::SeqCst) {
        return Ok(("500 Internal Server Error", "failing\n".to_owned()));
    }
    let text = if text.is_empty() { "hello" } else { text };
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Ok(("200 OK", format!("{text} from {hostname}")))
}

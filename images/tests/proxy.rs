//! The way out over a proxy. The environment is that of a child process, which is this program again.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use coracle_images::{Options, Reference, Store};
use serde_json::json;
use support::http::{Answer, Server, registry_of};
use support::registry::Registry;
use support::{Built, Compression, Layer, image, told};

const DIRECTORY: &str = "CORACLE_TEST_PROXY_DIRECTORY";
const NAME: &str = "CORACLE_TEST_PROXY_NAME";

fn built() -> Built {
    let layer = Layer::default().file("name", b"here").tar();
    image(&[(layer, Compression::Gzip)], json!({}))
}

/// Not a test by itself: the process that pulls, started by the tests below.
#[tokio::test]
async fn child_pulls() {
    let (Ok(directory), Ok(name)) = (std::env::var(DIRECTORY), std::env::var(NAME)) else {
        return;
    };
    let directory = Path::new(&directory);
    let store = Store::open(&directory.join("images"), Options::default(), &[]).unwrap();
    let reference = Reference::parse(&name).unwrap();
    let pulled = store.pull(&reference, None, &directory.join("certs")).await;
    let pulled = pulled.unwrap_or_else(|error| panic!("told: {}", told(&error)));
    assert!(store.read_file(&pulled, "name").unwrap().is_some());
}

/// Pulls `name` in a process with these variables; the words of its error if it fails.
fn pull(name: &str, hosts: &str, variables: &[(&str, &str)]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let default = directory.path().join("certs/_default");
    std::fs::create_dir_all(&default).unwrap();
    std::fs::write(default.join("hosts.toml"), hosts).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        child.env_remove(variable).env_remove(variable.to_lowercase());
    }
    let output = child
        .args(["--exact", "child_pulls", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env(NAME, name)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn plain_registries_are_asked_through_the_proxy() {
    let data = built();
    let proxy = Server::start(move |request| {
        let known = request.headers.get("proxy-authorization");
        if known.is_none_or(|value| value != "Basic dTpw") {
            return Answer::status(407);
        }
        assert!(request.path.starts_with("http://reg.invalid/v2/"), "{request:?}");
        registry_of(&data, request)
    });
    let hosts = "server = \"http://reg.invalid\"\n";
    let address = format!("http://u:p@{}", proxy.address);
    pull("reg.invalid/app", hosts, &[("HTTP_PROXY", &address)]).unwrap();
    assert_eq!(proxy.paths().len(), 3);
    pull("reg.invalid/app", hosts, &[("http_proxy", &address)]).unwrap();
    let direct = [("HTTP_PROXY", address.as_str()), ("NO_PROXY", "invalid")];
    pull("reg.invalid/app", hosts, &direct).unwrap_err();
    assert_eq!(proxy.paths().len(), 6);
    let other = [("HTTPS_PROXY", address.as_str())];
    pull("reg.invalid/app", hosts, &other).unwrap_err();
    assert_eq!(proxy.paths().len(), 6);
    let error = pull("reg.invalid/app", hosts, &[("HTTP_PROXY", "ftp://x")]).unwrap_err();
    assert!(error.contains("HTTP_PROXY"), "{error}");
}

/// A proxy that connects whoever asks with `to`, or refuses. Gives its address and what it was asked.
fn tunnel(to: Option<String>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut head) = (client.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            log.lock().unwrap().push(String::from_utf8(head).unwrap());
            let Some(to) = &to else {
                client.write_all(b"HTTP/1.1 403 not you\r\n\r\n").unwrap();
                continue;
            };
            let registry = TcpStream::connect(to).unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n").unwrap();
            for (mut from, mut to) in [
                (client.try_clone().unwrap(), registry.try_clone().unwrap()),
                (registry, client),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (address, asked)
}

#[test]
fn registries_with_tls_are_reached_through_the_proxy() {
    let (registry, authority) = Registry::with_tls(false);
    registry.push(&built(), "app:latest", &[]);
    let hosts = format!(
        "server = \"https://reg.invalid:5000\"\nca = {:?}\n",
        authority.to_str().unwrap()
    );
    let (address, asked) = tunnel(Some(registry.address.clone()));
    let address = format!("http://u:p@{address}");
    pull("reg.invalid:5000/app", &hosts, &[("HTTPS_PROXY", &address)]).unwrap();
    let asked = asked.lock().unwrap();
    let head = asked.first().unwrap();
    assert!(
        head.starts_with("CONNECT reg.invalid:5000 HTTP/1.1\r\nHost: reg.invalid:5000\r\n"),
        "{head}"
    );
    assert!(head.contains("Proxy-Authorization: Basic dTpw\r\n"), "{head}");
    let (refusing, _) = tunnel(None);
    let error = pull("reg.invalid:5000/app", &hosts, &[("HTTPS_PROXY", &refusing)]).unwrap_err();
    assert!(error.contains("403 not you"), "{error}");
    assert!(error.contains(&refusing), "{error}");
}

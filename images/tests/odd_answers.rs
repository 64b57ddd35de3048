//! Answers of registries that are odd in form and work everywhere; and what is not asked at all.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use coracle_images::{Auth, Image, Options, Reference, Store};
use serde_json::json;
use support::http::{Answer, Request, Server, registry_of};
use support::{Built, Compression, Layer, compress, digest, image, told};

struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("images"), Options::default(), &[]).unwrap();
        Self { directory, store }
    }

    fn hosts(&self, text: &str) {
        let default = self.directory.path().join("certs/_default");
        std::fs::create_dir_all(&default).unwrap();
        std::fs::write(default.join("hosts.toml"), text).unwrap();
    }

    async fn pull(&self, name: &str, auth: Option<&Auth>) -> Result<Arc<Image>, String> {
        let certs = self.directory.path().join("certs");
        let reference = Reference::parse(name).unwrap();
        let pulled = self.store.pull(&reference, auth, &certs).await;
        pulled.map_err(|error| told(&error))
    }
}

fn built(name: &str) -> Built {
    let layer = Layer::default().file("name", name.as_bytes()).tar();
    image(&[(layer, Compression::Gzip)], json!({"Cmd": [name]}))
}

/// Pulls from a registry whose right answer `change` makes odd, and checks that the image is whole.
async fn pull_odd(case: &str, change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) {
    let built = built("here");
    let server = Server::start(move |request| change(request, registry_of(&built, request)));
    let fixture = Fixture::new();
    let pulled = fixture.pull(&format!("{}/app", server.address), None).await;
    let pulled = pulled.unwrap_or_else(|error| panic!("{case}: {error}"));
    let name = fixture.store.read_file(&pulled, "name").unwrap();
    assert_eq!(name.unwrap(), b"here", "{case}");
}

#[tokio::test]
async fn redirects_of_every_form_are_followed() {
    let forms: [fn(&Request) -> String; 5] = [
        |request| format!("{}?moved=1", request.path),
        |request| format!("//{}{}?moved=1", request.headers["host"], request.path),
        |request| format!("./{}?moved=1", request.path.rsplit('/').next().unwrap()),
        |_| "?moved=1&name=a b|c{d}".to_owned(),
        |request| format!("{}?moved=1&name=\u{e4}#part", request.path),
    ];
    for (at, form) in forms.into_iter().enumerate() {
        pull_odd(&format!("form {at}"), move |request, answer| {
            if request.path.contains("moved=1") {
                answer
            } else {
                Answer::status(307).header("Location", &form(request))
            }
        })
        .await;
    }
}

#[tokio::test]
async fn what_may_work_later_is_asked_again() {
    for status in [408, 425, 429, 500, 503] {
        let count = AtomicUsize::new(0);
        pull_odd(&status.to_string(), move |_, answer| {
            match count.fetch_add(1, Ordering::Relaxed) {
                0 => Answer::status(status),
                _ => answer,
            }
        })
        .await;
    }
}

#[tokio::test]
async fn encoded_answers_are_decoded() {
    for (name, compression) in [
        ("gzip", Compression::Gzip),
        ("x-gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ] {
        pull_odd(name, move |_, mut answer| {
            answer.body = compress(&answer.body, compression);
            answer.header("Content-Encoding", name)
        })
        .await;
    }
    pull_odd("said of what is not encoded", |_, answer| {
        answer.header("Content-Encoding", "gzip")
    })
    .await;
    pull_odd("an encoding nobody knows", |_, answer| {
        answer.header("Content-Encoding", "aws-chunked")
    })
    .await;
    // Decoded content is verified like any other.
    let good = built("here");
    let server = Server::start(move |request| {
        let mut answer = registry_of(&good, request);
        if request.path.contains("/blobs/") {
            answer.body[3] ^= 1;
        }
        answer.body = compress(&answer.body, Compression::Gzip);
        answer.header("Content-Encoding", "gzip")
    });
    let fixture = Fixture::new();
    let error = fixture.pull(&format!("{}/app", server.address), None).await;
    assert!(error.unwrap_err().contains("digest"));
}

#[tokio::test]
async fn an_unchanged_tag_costs_one_head() {
    let images = [built("one"), built("two")];
    let digests = [images[0].manifest.clone(), images[1].manifest.clone()];
    let now = Arc::new(AtomicUsize::new(0));
    let serving = Arc::clone(&now);
    let server = Server::start(move |request| registry_of(&images[serving.load(Ordering::Relaxed)], request));
    let asked = || {
        let mut requests = server.requests.lock().unwrap();
        let told = |request: &Request| {
            let short = request.path.rsplit('/').nth(1).unwrap().to_owned();
            format!("{} {short}", request.method)
        };
        requests
            .drain(..)
            .map(|request| told(&request))
            .collect::<Vec<_>>()
    };
    let fixture = Fixture::new();
    let name = format!("{}/app", server.address);
    let first = fixture.pull(&name, None).await.unwrap();
    assert_eq!(asked(), ["GET manifests", "GET blobs", "GET blobs"]);
    for again in [name.clone(), format!("{name}@{}", digests[0])] {
        assert_eq!(fixture.pull(&again, None).await.unwrap().id, first.id);
        assert_eq!(asked(), ["HEAD manifests"], "{again}");
    }
    now.store(1, Ordering::Relaxed);
    let second = fixture.pull(&name, None).await.unwrap();
    assert_eq!(second.cmd(), ["two"]);
    assert_eq!(
        asked(),
        ["HEAD manifests", "GET manifests", "GET blobs", "GET blobs"]
    );
    // Back again: both are there, only the name moves.
    now.store(0, Ordering::Relaxed);
    let back = fixture.pull(&name, None).await.unwrap();
    assert_eq!((back.id.as_str(), back.repo_tags.len()), (first.id.as_str(), 1));
    assert_eq!(asked(), ["HEAD manifests"]);
    assert!(fixture.store.get(&second.id).unwrap().repo_tags.is_empty());
    assert_eq!(fixture.store.get(&name).unwrap().id, first.id);
    fixture.store.remove(&first.id).await.unwrap();
    fixture.pull(&name, None).await.unwrap();
    assert_eq!(
        asked(),
        ["HEAD manifests", "GET manifests", "GET blobs", "GET blobs"]
    );
}

#[tokio::test]
async fn a_manifest_that_changes_alone_costs_no_blob() {
    let one = built("here");
    let mut other = built("here");
    let mut manifest = other.blobs[&other.manifest].clone();
    manifest.push(b'\n');
    other.manifest = digest(&manifest);
    other.blobs.insert(other.manifest.clone(), manifest);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        // The registry does not answer HEAD.
        if request.method == "HEAD" {
            return Answer::status(405);
        }
        let first = count.fetch_add(1, Ordering::Relaxed) < 3;
        registry_of(if first { &one } else { &other }, request)
    });
    let fixture = Fixture::new();
    let name = format!("{}/app", server.address);
    let first = fixture.pull(&name, None).await.unwrap();
    server.requests.lock().unwrap().clear();
    let second = fixture.pull(&name, None).await.unwrap();
    assert_eq!(
        (second.id.as_str(), second.repo_digests.len()),
        (first.id.as_str(), 2)
    );
    let methods: Vec<String> = server
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.method.clone())
        .collect();
    assert_eq!(methods, ["HEAD", "GET"]);
}

#[tokio::test]
async fn credentials_of_a_registry_do_not_reach_its_mirrors() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let challenge = |answer: Answer| answer.header("WWW-Authenticate", "Basic realm=\"r\"");
    let mirror = Server::start(move |request| {
        log.lock()
            .unwrap()
            .extend(request.headers.get("authorization").cloned());
        challenge(Answer::status(401))
    });
    let good = built("here");
    let registry = Server::start(move |request| match request.headers.get("authorization") {
        Some(basic) if basic == "Basic dTpw" => registry_of(&good, request),
        _ => challenge(Answer::status(401)),
    });
    let auth = |server_address: &str| Auth {
        username: "u".to_owned(),
        password: "p".to_owned(),
        server_address: server_address.to_owned(),
        ..Auth::default()
    };
    for server_address in ["", "reg.example", "https://reg.example/v1/"] {
        let fixture = Fixture::new();
        fixture.hosts(&format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\n",
            registry.address, mirror.address
        ));
        fixture
            .pull("reg.example/app", Some(&auth(server_address)))
            .await
            .unwrap();
        assert!(!mirror.requests.lock().unwrap().is_empty());
        assert!(seen.lock().unwrap().is_empty(), "{server_address}: {seen:?}");
    }
    // Those that are meant for the mirror do reach it.
    let fixture = Fixture::new();
    fixture.hosts(&format!("[host.\"http://{}\"]\n", mirror.address));
    let own = auth(&mirror.address.to_string());
    fixture.pull("127.0.0.1:1/app", Some(&own)).await.unwrap_err();
    assert_eq!(
        seen.lock().unwrap().first().map(String::as_str),
        Some("Basic dTpw")
    );
}

//! What real registries rarely show: tokens, redirects, broken connections, lies, silence.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_images::{Auth, Image, Kind, Options, PullError, Reference, Store};
use serde_json::json;
use support::http::{Answer, Server, registry_of};
use support::{Built, Compression, Layer, image, names, told};

fn built() -> Built {
    // xorshift: gzip must not shrink it
    let mut state = 88_172_645_463_325_252_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..100_000).flat_map(|_| next()).collect();
    let layer = Layer::default()
        .directory("./", 0o755)
        .file("noise", &noise)
        .file("name", b"here");
    image(&[(layer.tar(), Compression::Gzip)], json!({}))
}

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

    /// Writes the hosts.toml that is used for every registry.
    fn hosts(&self, text: &str) {
        std::fs::create_dir_all(self.certs().join("_default")).unwrap();
        std::fs::write(self.certs().join("_default/hosts.toml"), text).unwrap();
    }

    fn certs(&self) -> std::path::PathBuf {
        self.directory.path().join("certs")
    }

    async fn pull(&self, name: &str, auth: Option<&Auth>) -> Result<Arc<Image>, PullError> {
        self.store
            .pull(&Reference::parse(name).unwrap(), auth, &self.certs())
            .await
    }

    async fn assert_clean(&self) {
        self.store.flush().await;
        assert_eq!(names(self.store.layer_store()), [""; 0]);
        assert!(self.store.list().is_empty());
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_said_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let fixture = Fixture::new();
    let error = fixture.pull(&format!("{address}/app:1"), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = told(&error);
    assert!(text.contains(&address.to_string()), "{text}");
    assert_eq!(text.matches("refused").count(), 1, "{text}");
}

#[tokio::test]
async fn a_token_is_fetched_and_sent_but_not_to_the_storage_behind_a_redirect() {
    let built = Arc::new(built());
    let blobs = Arc::clone(&built);
    let storage = Server::start(move |request| {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        registry_of(&blobs, request)
    });
    let (manifests, storage_address) = (Arc::clone(&built), storage.address);
    let server = Server::start(move |request| {
        let host = request.headers["host"].clone();
        if request.path.starts_with("/token") {
            let granted = match request.method.as_str() {
                "POST" => {
                    request.body.contains("refresh_token=r%2Bt")
                        && request.body.contains("scope=repository%3Aapp%3Apull")
                }
                _ => request
                    .headers
                    .get("authorization")
                    .is_some_and(|a| a == "Basic dTpw"),
            };
            return if granted {
                Answer::ok(br#"{"token":"good"}"#)
            } else {
                Answer::status(401)
            };
        }
        if request
            .headers
            .get("authorization")
            .is_none_or(|a| a != "Bearer good")
        {
            let challenge =
                format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:app:pull\"");
            return Answer::status(401).header("WWW-Authenticate", &challenge);
        }
        if request.path.contains("/blobs/") {
            let location = format!("http://{storage_address}{}", request.path);
            return Answer::status(307).header("Location", &location);
        }
        registry_of(&manifests, request)
    });
    let fixture = Fixture::new();
    let name = format!("{}/app", server.address);
    let auths = [
        Auth {
            username: "u".into(),
            password: "p".into(),
            ..Auth::default()
        },
        Auth {
            identity_token: "r+t".into(),
            ..Auth::default()
        },
        Auth {
            registry_token: "good".into(),
            ..Auth::default()
        },
    ];
    for auth in &auths {
        fixture.pull(&name, Some(auth)).await.unwrap();
        fixture.store.remove(&name).await.unwrap();
    }
    for auth in [
        None,
        Some(&Auth {
            registry_token: "bad".into(),
            ..Auth::default()
        }),
    ] {
        let error = fixture.pull(&name, auth).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthorized, "{error:?}");
    }
    fixture.assert_clean().await;
}

#[tokio::test]
async fn mirrors_are_tried_in_order_and_told_whose_image_it_is() {
    let built = Arc::new(built());
    let broken = Server::start(|_| Answer::status(404));
    let good = Arc::clone(&built);
    let mirror = Server::start(move |request| registry_of(&good, request));
    let last = Server::start(|_| Answer::status(404));
    let fixture = Fixture::new();
    fixture.hosts(&format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\n[host.\"http://{}/prefix\"]\n[host.\"http://{1}/x\".header]\nx-team = \"a\"\n",
        last.address, broken.address, mirror.address
    ));
    let image = fixture.pull("registry.example.org/team/app", None).await.unwrap();
    assert_eq!(image.repo_tags, ["registry.example.org/team/app:latest"]);
    assert_eq!(
        broken.paths()[0],
        "/v2/team/app/manifests/latest?ns=registry.example.org"
    );
    assert!(mirror.paths()[0].starts_with("/prefix/v2/team/app/manifests/latest?ns="));
    assert!(last.requests.lock().unwrap().is_empty());

    fixture.hosts(&format!("server = \"http://{}\"\n", last.address));
    let error = fixture
        .pull("registry.example.org/team/other", None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    fixture.hosts("serve = 1");
    let error = fixture
        .pull("registry.example.org/team/other", None)
        .await
        .unwrap_err();
    assert!(
        told(&error).contains("hosts.toml") && told(&error).contains("serve"),
        "{error:?}"
    );
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn a_download_that_breaks_is_taken_up_where_it_broke() {
    for ranges in [true, false] {
        let built = Arc::new(built());
        let rounds = AtomicUsize::new(0);
        let (data, layer) = (Arc::clone(&built), built.layers[0].clone());
        let server = Server::start(move |request| {
            let mut request = request.clone();
            if !ranges {
                request.headers.remove("range");
            }
            let mut answer = registry_of(&data, &request);
            if request.path.contains(&layer) {
                // Each connection brings some more, none brings all.
                let step = 300_000;
                let from = data.blobs[&layer].len() - answer.body.len();
                let rounds = rounds.fetch_add(1, Ordering::Relaxed);
                answer.cut_at = Some(if ranges || from > 0 {
                    step
                } else {
                    step * (rounds + 1)
                });
            }
            answer
        });
        let fixture = Fixture::new();
        let image = fixture
            .pull(&format!("{}/app", server.address), None)
            .await
            .unwrap();
        assert_eq!(fixture.store.read_file(&image, "name").unwrap().unwrap(), b"here");
        let blob_requests = server
            .paths()
            .iter()
            .filter(|p| p.contains(&built.layers[0]))
            .count();
        assert!(blob_requests > 1, "{blob_requests}");
    }
}

#[tokio::test]
async fn a_registry_that_is_busy_is_asked_again() {
    let built = Arc::new(built());
    let (data, count) = (Arc::clone(&built), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::status(503),
        1 => Answer::status(429).header("Retry-After", "0"),
        _ => registry_of(&data, request),
    });
    let fixture = Fixture::new();
    fixture
        .pull(&format!("{}/app", server.address), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn lies_are_refused_and_leave_nothing() {
    type Lie = Box<dyn Fn(&Built, &str, Answer) -> Answer + Send + Sync>;
    let change = |from: usize| {
        move |mut answer: Answer| {
            answer.body[from] ^= 1;
            answer
        }
    };
    let cases: Vec<(&str, Lie, Kind, &str)> = vec![
        (
            "another manifest than the header says",
            Box::new(|built, path, answer| match path.contains("/manifests/") {
                true => answer.header("Docker-Content-Digest", &built.config),
                false => answer,
            }),
            Kind::Corrupt,
            "sent content with digest",
        ),
        (
            "a changed layer",
            Box::new(move |built, path, answer| {
                if path.contains(&built.layers[0]) {
                    change(4)(answer)
                } else {
                    answer
                }
            }),
            Kind::Corrupt,
            "sent content with digest",
        ),
        (
            "a changed configuration",
            Box::new(move |built, path, answer| {
                if path.contains(&built.config) {
                    change(1)(answer)
                } else {
                    answer
                }
            }),
            Kind::Corrupt,
            "sent content with digest",
        ),
        (
            "a layer that goes on",
            Box::new(|built, path, mut answer| {
                if path.contains(&built.layers[0]) {
                    answer.body.extend_from_slice(b"more");
                }
                answer
            }),
            Kind::Corrupt,
            "the manifest says",
        ),
        (
            "a page instead of a manifest",
            Box::new(|_, path, answer| {
                if path.contains("/manifests/") {
                    Answer::ok(b"<html>")
                } else {
                    answer
                }
            }),
            Kind::InvalidArgument,
            "manifest is malformed",
        ),
        (
            "an endless manifest",
            Box::new(|_, path, answer| {
                if path.contains("/manifests/") {
                    Answer::ok(&vec![b' '; 5 << 20])
                } else {
                    answer
                }
            }),
            Kind::Corrupt,
            "more than 4194304 bytes",
        ),
        (
            "schema 1",
            Box::new(|_, path, answer| {
                if path.contains("/manifests/") {
                    Answer::ok(br#"{"schemaVersion":1}"#)
                } else {
                    answer
                }
            }),
            Kind::InvalidArgument,
            "schemaVersion 1",
        ),
        (
            "redirects in a circle",
            Box::new(|_, path, _| Answer::status(302).header("Location", path)),
            Kind::Unavailable,
            "too many redirects",
        ),
        (
            "a redirect to a file",
            Box::new(|_, _, _| Answer::status(302).header("Location", "file:///etc/passwd")),
            Kind::Unavailable,
            "is not followed",
        ),
    ];
    for (case, lie, kind, want) in cases {
        let built = Arc::new(built());
        let data = Arc::clone(&built);
        let server = Server::start(move |request| lie(&data, &request.path, registry_of(&data, request)));
        let fixture = Fixture::new();
        let error = fixture
            .pull(&format!("{}/app", server.address), None)
            .await
            .unwrap_err();
        assert!(told(&error).contains(want), "{case}: {error:?}");
        assert_eq!(error.kind(), kind, "{case}: {error:?}");
        fixture.assert_clean().await;
    }
}

#[tokio::test]
async fn a_cancelled_pull_ends_at_once_and_leaves_nothing() {
    let built = Arc::new(built());
    for silent in ["/manifests/", "/blobs/"] {
        let data = Arc::clone(&built);
        let asked = Arc::new(tokio::sync::Notify::new());
        let tell = Arc::clone(&asked);
        let server = Server::start(move |request| {
            let mut answer = registry_of(&data, request);
            if request.path.contains(silent)
                && (silent == "/manifests/" || request.path.contains(&data.layers[0]))
            {
                answer.hang = true;
                tell.notify_one();
            }
            answer
        });
        let fixture = Fixture::new();
        let name = format!("{}/app", server.address);
        tokio::select! {
            ended = fixture.pull(&name, None) => panic!("{silent}: {:?}", ended.map(|image| image.id.clone())),
            () = asked.notified() => {}
        }
        // The pull was dropped while the server is silent for ever; what is bounded here is its cleaning up.
        tokio::time::timeout(Duration::from_secs(60), fixture.assert_clean())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn two_pulls_of_one_image_unpack_it_once() {
    let built = Arc::new(built());
    let data = Arc::clone(&built);
    let server = Server::start(move |request| registry_of(&data, request));
    let fixture = Fixture::new();
    let names_of = [
        format!("{}/one", server.address),
        format!("{}/two", server.address),
    ];
    let (one, two) = tokio::join!(fixture.pull(&names_of[0], None), fixture.pull(&names_of[1], None));
    assert_eq!(one.unwrap().layers, two.unwrap().layers);
    let layer_requests = server
        .paths()
        .iter()
        .filter(|p| p.contains(&built.layers[0]))
        .count();
    assert_eq!(layer_requests, 1);
    fixture.store.flush().await;
    assert_eq!(names(fixture.store.layer_store()).len(), 1);
    assert_eq!(fixture.store.list()[0].repo_tags.len(), 2);
    assert!(Path::new(&fixture.store.layer_store()).exists());
}

//! Pulls from docker-registry, filled by skopeo.

mod support;

use std::path::Path;
use std::sync::Arc;

use coracle_images::{Auth, Image, Kind, Options, PullError, Reference, Store};
use serde_json::json;
use support::registry::Registry;
use support::{Built, Compression, Layer, image, names, told};

fn built(content: &str) -> Built {
    let bottom = Layer::default()
        .directory("./", 0o755)
        .directory("etc/", 0o755)
        .file("etc/name", content.as_bytes());
    let big = (0..400_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    let top = Layer::default().directory("data/", 0o700).file("data/big", &big);
    image(
        &[(bottom.tar(), Compression::Gzip), (top.tar(), Compression::None)],
        json!({"Cmd": ["/x"]}),
    )
}

fn open(directory: &Path) -> Store {
    Store::open(directory, Options::default(), &[]).unwrap()
}

async fn pull(store: &Store, name: &str, certs: &Path) -> Result<Arc<Image>, PullError> {
    store.pull(&Reference::parse(name).unwrap(), None, certs).await
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest() {
    let registry = Registry::start();
    let built = built("a");
    registry.push(&built, "library/app:v1", &[]);
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let none = Path::new("/nonexistent");
    let tag = format!("{}/library/app:v1", registry.address);
    let image = pull(&store, &tag, none).await.unwrap();
    assert_eq!(image.id, built.config);
    assert_eq!(image.repo_tags, [tag.as_str()]);
    // skopeo compresses the plain layer, so the manifest is its own.
    let digest = image.repo_digests[0].clone();
    assert!(
        digest.starts_with(&format!("{}/library/app@sha256:", registry.address)),
        "{digest}"
    );
    assert_eq!(store.read_file(&image, "etc/name").unwrap().unwrap(), b"a");

    let again = pull(&store, &digest, none).await.unwrap();
    assert_eq!(
        (&again.id, &again.repo_tags, &again.repo_digests),
        (&image.id, &image.repo_tags, &image.repo_digests)
    );
    assert_eq!(store.get(&digest).unwrap().id, image.id);
    assert_eq!(names(store.layer_store()).len(), 2);
    store.remove(&tag).await.unwrap();
    assert!(store.list().is_empty());
}

#[tokio::test]
async fn one_image_from_two_registries_is_one_image() {
    let (first, second) = (Registry::start(), Registry::start());
    let built = built("same");
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut ids = Vec::new();
    for registry in [&first, &second] {
        registry.push(&built, "app:1", &[]);
        let image = pull(
            &store,
            &format!("{}/app:1", registry.address),
            Path::new("/nonexistent"),
        )
        .await
        .unwrap();
        ids.push(image.id.clone());
    }
    assert_eq!(ids[0], ids[1]);
    let image = &store.list()[0];
    assert_eq!((image.repo_tags.len(), image.repo_digests.len()), (2, 2));
    assert!(store.remove(&format!("{}/app:1", first.address)).await.unwrap());
    assert!(
        store.get(&format!("{}/app:1", second.address)).is_none(),
        "removing one tag removes all"
    );
}

#[tokio::test]
async fn zstd_layers_docker_manifests_and_manifest_lists_are_understood() {
    let registry = Registry::start();
    let built = built("z");
    // In this order: skopeo would send the zstd blobs again, which docker's manifest cannot name.
    registry.push(&built, "docker:1", &["--format", "v2s2"]);
    registry.push(
        &built,
        "zstd:1",
        &["--format", "oci", "--dest-compress-format", "zstd"],
    );
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let none = Path::new("/nonexistent");
    let zstd = pull(&store, &format!("{}/zstd:1", registry.address), none)
        .await
        .unwrap();
    assert_eq!(zstd.id, built.config);
    let docker = pull(&store, &format!("{}/docker:1", registry.address), none)
        .await
        .unwrap();
    assert_eq!(
        docker.layers, zstd.layers,
        "the same layers, however they are compressed"
    );

    // A list of which only one entry is for this machine.
    let child = zstd.repo_digests[0].split_once('@').unwrap().1.to_owned();
    let size = std::fs::metadata(registry.blob(&child)).unwrap().len();
    let entry = |arch: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": child, "size": size,
            "platform": {"os": "linux", "architecture": arch},
        })
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    for (tag, entries) in [
        ("multi", vec![entry("s390x"), entry("amd64")]),
        ("alien", vec![entry("s390x")]),
    ] {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
        registry.put_manifest("zstd", tag, media_type, &serde_json::to_vec(&index).unwrap());
    }
    let multi = pull(&store, &format!("{}/zstd:multi", registry.address), none)
        .await
        .unwrap();
    assert_eq!(multi.id, built.config);
    assert_eq!(multi.repo_digests.len(), 3, "{:?}", multi.repo_digests);
    let error = pull(&store, &format!("{}/zstd:alien", registry.address), none)
        .await
        .unwrap_err();
    assert!(told(&error).contains("linux/s390x"), "{error:?}");
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn a_password_is_asked_for_and_sent() {
    let registry = Registry::with_password();
    registry.push(&built("p"), "app:1", &["--dest-creds", "user:secret"]);
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let reference = Reference::parse(&format!("{}/app:1", registry.address)).unwrap();
    let none = Path::new("/nonexistent");
    let user = |password: &str| Auth {
        username: "user".to_owned(),
        password: password.to_owned(),
        ..Auth::default()
    };
    for auth in [None, Some(user("wrong"))] {
        let error = store.pull(&reference, auth.as_ref(), none).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthorized, "{error:?}");
        assert!(!told(&error).contains("wrong"), "{error:?}");
    }
    let encoded = Auth {
        auth: "dXNlcjpzZWNyZXQ=".to_owned(),
        ..Auth::default()
    };
    for auth in [user("secret"), encoded] {
        store.pull(&reference, Some(&auth), none).await.unwrap();
        store.remove(&reference.to_string()).await.unwrap();
    }
    assert!(store.list().is_empty());
}

#[tokio::test]
async fn any_name_is_served_by_a_mirror() {
    let registry = Registry::start();
    let built = built("m");
    registry.push(&built, "library/busybox:1.36", &[]);
    registry.push(&built, "e2e/pause:3.9", &[]);
    let certs = tempfile::tempdir().unwrap();
    std::fs::create_dir(certs.path().join("_default")).unwrap();
    let hosts = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        registry.address
    );
    std::fs::write(certs.path().join("_default/hosts.toml"), hosts).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let image = pull(&store, "busybox:1.36", certs.path()).await.unwrap();
    assert_eq!(image.repo_tags, ["docker.io/library/busybox:1.36"]);
    let image = pull(&store, "registry.example.org/e2e/pause:3.9", certs.path())
        .await
        .unwrap();
    assert_eq!(image.repo_tags.len(), 2);
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_down_is_unavailable() {
    let registry = Registry::start();
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let none = Path::new("/nonexistent");
    let error = pull(&store, &format!("{}/nothing:1", registry.address), none)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    assert!(
        told(&error).contains("nothing:1") && told(&error).contains("MANIFEST_UNKNOWN"),
        "{error:?}"
    );
    // A port that is given to nobody by chance.
    let error = pull(&store, "127.0.0.1:1/app:1", none).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(told(&error).contains("refused"), "{error:?}");
}

#[tokio::test]
async fn a_damaged_blob_is_refused_and_leaves_nothing() {
    let registry = Registry::start();
    let built = built("d");
    registry.push(&built, "app:1", &[]);
    // The gzip header's time: the archive inside stays good, the blob does not.
    let blob = registry.blob(&built.layers[0]);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[4] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let error = pull(
        &store,
        &format!("{}/app:1", registry.address),
        Path::new("/nonexistent"),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error:?}");
    assert!(told(&error).contains(&built.layers[0]), "{error:?}");
    store.flush().await;
    assert_eq!(names(store.layer_store()), [""; 0]);
    assert!(store.list().is_empty());
}

#[tokio::test]
async fn certificates_are_checked_against_the_configured_authority() {
    check_certificates(false).await;
}

/// As docker's and most tutorials' one line of openssl makes them.
#[tokio::test]
async fn a_trusted_authority_may_be_the_servers_own_certificate() {
    check_certificates(true).await;
}

/// Keys of the field's servers and authorities, and such as nobody can verify any more: those are named.
#[tokio::test]
async fn keys_of_all_kinds_are_verified() {
    for (key, taken) in [
        (&["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"][..], true),
        (
            &["ec", "-pkeyopt", "ec_paramgen_curve:secp521r1", "-sha512"],
            true,
        ),
        (&["ed25519"], true),
        (&["rsa:2048"], true),
        (&["rsa:3072", "-sha384"], true),
        (&["rsa:4096", "-sha512"], true),
        (&["rsa:1024"], false),
    ] {
        for is_authority in [false, true] {
            let (registry, authority) = Registry::with_key(is_authority, key);
            registry.push(&built("t"), "app:1", &[]);
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let certs = tempfile::tempdir().unwrap();
            let port = registry.address.rsplit(':').next().unwrap().to_owned();
            let configured = certs.path().join(format!("localhost_{port}_"));
            std::fs::create_dir(&configured).unwrap();
            std::fs::copy(&authority, configured.join("own.pem")).unwrap();
            let text = format!("server = \"https://localhost:{port}\"\nca = \"own.pem\"\n");
            std::fs::write(configured.join("hosts.toml"), text).unwrap();
            let pulled = pull(&store, &format!("localhost:{port}/app:1"), certs.path()).await;
            match pulled {
                Ok(_) => assert!(taken, "{key:?}"),
                Err(error) => assert!(
                    !taken && told(&error).len() > 40,
                    "{key:?} {is_authority}: {}",
                    told(&error)
                ),
            }
        }
    }
}

async fn check_certificates(is_authority: bool) {
    let (registry, authority) = Registry::with_tls(is_authority);
    let built = built("t");
    registry.push(&built, "app:1", &[]);
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let certs = tempfile::tempdir().unwrap();
    let port = registry.address.rsplit(':').next().unwrap().to_owned();
    let name = format!("localhost:{port}/app:1");
    let configured = certs.path().join(format!("localhost_{port}_"));
    std::fs::create_dir(&configured).unwrap();
    let hosts = |more: &str| {
        let text = format!("server = \"https://localhost:{port}\"\n{more}\n");
        std::fs::write(configured.join("hosts.toml"), text).unwrap();
    };
    hosts("");
    let error = pull(&store, &name, certs.path()).await.unwrap_err();
    assert!(told(&error).contains("certificate"), "{error:?}");
    assert_eq!(error.kind(), Kind::Unavailable);
    hosts("ca = \"missing.pem\"");
    let error = pull(&store, &name, certs.path()).await.unwrap_err();
    assert!(told(&error).contains("missing.pem"), "{error:?}");
    assert_eq!(error.kind(), Kind::InvalidArgument);
    hosts("skip_verify = true");
    pull(&store, &name, certs.path()).await.unwrap();
    store.remove(&name).await.unwrap();
    std::fs::copy(&authority, configured.join("own.pem")).unwrap();
    hosts("ca = \"own.pem\"");
    assert_eq!(pull(&store, &name, certs.path()).await.unwrap().id, built.config);
    store.remove(&name).await.unwrap();
    // The same certificate for a name that it does not have, and another one for the name that it has.
    // Another one that says the same of itself.
    let (other, stranger) = Registry::with_tls(is_authority);
    std::fs::copy(&stranger, configured.join("own.pem")).unwrap();
    drop(other);
    hosts("ca = \"own.pem\"");
    let error = pull(&store, &name, certs.path()).await.unwrap_err();
    assert!(told(&error).contains("certificate"), "{error:?}");
}

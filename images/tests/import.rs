//! Archives become images; bad ones leave nothing.

mod support;

use coracle_images::{Image, ImageUser, Options, Reference, Store, user};
use serde_json::json;
use support::{Built, Compression, Layer, compress, image, names, told};

fn store(directory: &tempfile::TempDir) -> Store {
    Store::open(directory.path(), Options::default(), &[]).unwrap()
}

async fn import(store: &Store, archive: &[u8], name: Option<&str>) -> std::sync::Arc<Image> {
    let name = name.map(|name| Reference::parse(name).unwrap());
    let mut images = store.import(archive, name.as_ref()).await.unwrap();
    assert_eq!(images.len(), 1);
    images.remove(0)
}

fn layers() -> Vec<Vec<u8>> {
    let bottom = Layer::default()
        .directory("./", 0o755)
        .directory("etc/", 0o755)
        .file(
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n",
        )
        .file("etc/group", b"web:x:1000:\nlogs:x:50:web\n")
        .file("etc/gone", b"x")
        .symlink("conf", "/etc");
    let top = Layer::default()
        .directory("etc/", 0o755)
        .file("etc/.wh.gone", b"")
        .file("etc/new", b"new");
    vec![bottom.tar(), top.tar()]
}

fn built() -> (Built, Vec<Vec<u8>>) {
    let tars = layers();
    let parts = [
        (tars[0].clone(), Compression::Gzip),
        (tars[1].clone(), Compression::Zstd),
    ];
    let process = json!({
        "User": "web", "Env": ["A=b"], "Entrypoint": ["/bin/app"], "Cmd": ["-x"], "WorkingDir": "/srv",
        "StopSignal": "SIGINT", "Labels": {"k": "v"}, "Volumes": {"/data": {}},
    });
    (image(&parts, process), tars)
}

#[tokio::test]
async fn an_oci_archive_is_imported_and_found_by_every_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let (built, _) = built();
    let image = import(&store, &built.archive(Some("example.org/app:v1")), None).await;

    assert_eq!(image.id, built.config);
    assert_eq!(image.repo_tags, ["example.org/app:v1"]);
    assert_eq!(
        image.repo_digests,
        [format!("example.org/app@{}", built.manifest)]
    );
    assert!(image.size > 0);
    assert_eq!(
        (image.entrypoint(), image.cmd()),
        (&["/bin/app".to_owned()][..], &["-x".to_owned()][..])
    );
    assert_eq!(
        (image.env(), image.working_dir()),
        (&["A=b".to_owned()][..], "/srv")
    );
    assert_eq!(
        (image.stop_signal(), image.volumes()),
        (Some("SIGINT"), vec!["/data".to_owned()])
    );
    assert_eq!(image.user_spec(), ImageUser::Name("web".to_owned()));

    let hex = built.config.strip_prefix("sha256:").unwrap();
    for name in [
        "example.org/app:v1",
        &image.repo_digests[0],
        &built.config,
        hex,
        &hex[..12],
    ] {
        assert_eq!(store.get(name).unwrap().id, image.id, "{name}");
    }
    assert!(store.get("example.org/app").is_none(), "latest is another tag");
    assert!(store.get(&hex[..3]).is_none(), "too short");

    let read = |path: &str| store.read_file(&image, path).unwrap();
    assert_eq!(read("etc/new").unwrap(), b"new");
    assert_eq!(read("/conf/new").unwrap(), b"new");
    assert_eq!(read("etc/gone"), None);
    let user = user::resolve(&store, &image, image.user()).unwrap();
    assert_eq!(
        (user.uid, user.gid, user.groups, user.home.as_str()),
        (1000, 1000, vec![50], "/srv")
    );
}

#[tokio::test]
async fn a_docker_archive_is_imported_with_all_its_tags() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let (built, tars) = built();
    let archive = built.docker_archive(&["busybox:1", "host.io/b:2"], &tars);
    let image = import(&store, &compress(&archive, Compression::Gzip), None).await;
    assert_eq!(image.id, built.config);
    assert_eq!(image.repo_tags, ["docker.io/library/busybox:1", "host.io/b:2"]);
    assert_eq!(store.get("busybox:1").unwrap().id, image.id);
    assert_eq!(names(&directory.path().join("tmp")), [""; 0]);
}

#[tokio::test]
async fn a_name_is_given_to_an_archive_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let (built, _) = built();
    let image = import(&store, &built.archive(None), Some("app:x")).await;
    assert_eq!(image.repo_tags, ["docker.io/library/app:x"]);
    let image = import(&store, &built.archive(Some("v2")), Some("app:x")).await;
    assert_eq!(
        image.repo_tags,
        ["docker.io/library/app:v2", "docker.io/library/app:x"]
    );
}

#[tokio::test]
async fn a_name_that_no_image_of_several_takes_is_an_error() {
    let (first, tars) = built();
    let second = image(&[(tars[0].clone(), Compression::None)], json!({}));
    let named = |first: &Built, name, second: &Built, other| {
        let mut both = second.blobs.clone();
        both.extend(first.blobs.clone());
        let mut index: serde_json::Value = serde_json::from_slice(&first.index(Some(name))).unwrap();
        let more: serde_json::Value = serde_json::from_slice(&second.index(Some(other))).unwrap();
        let entries = index["manifests"].as_array_mut().unwrap();
        entries.extend(more["manifests"].as_array().unwrap().clone());
        let mut archive = Layer::default().file("index.json", &serde_json::to_vec(&index).unwrap());
        for (digest, blob) in &both {
            archive = archive.file(&format!("blobs/{}", digest.replace(':', "/")), blob);
        }
        archive.tar()
    };
    let name = Reference::parse("a.io/app:x").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);

    let elsewhere = named(&first, "b.io/first:1", &second, "b.io/second:1");
    let error = store.import(elsewhere.as_slice(), Some(&name)).await.unwrap_err();
    assert!(told(&error).contains("has 2 images"), "{error:?}");
    assert!(store.list().is_empty());

    let tags_only = named(&first, "1", &second, "2");
    let images = store.import(tags_only.as_slice(), Some(&name)).await.unwrap();
    let tags: Vec<_> = images.iter().flat_map(|image| image.repo_tags.clone()).collect();
    assert_eq!(tags, ["a.io/app:1", "a.io/app:2"]);
}

#[tokio::test]
async fn layers_are_shared_counted_and_removed_with_the_last_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let (first, tars) = built();
    let second = image(&[(tars[0].clone(), Compression::None)], json!({}));
    let first = import(&store, &first.archive(Some("a.io/first:1")), None).await;
    let second = import(&store, &second.archive(Some("a.io/second:1")), None).await;
    assert_eq!(first.layers[0], second.layers[0]);
    assert_eq!(names(store.layer_store()).len(), 2);
    let usage = store.usage();
    assert!(usage.bytes >= 4096 && usage.inodes >= 8, "{usage:?}");

    let held = store.hold("container", &first).unwrap();
    assert_eq!(held.len(), 2);
    assert!(store.remove("a.io/first:1").await.unwrap());
    assert!(!store.remove("a.io/first:1").await.unwrap());
    assert!(store.hold("other", &first).is_err());
    store.flush().await;
    assert_eq!(names(store.layer_store()).len(), 2, "held by a container");
    store.release("container");
    store.flush().await;
    assert_eq!(names(store.layer_store()).len(), 1);
    store.remove(&second.id).await.unwrap();
    store.flush().await;
    assert_eq!(names(store.layer_store()), [""; 0]);
    assert_eq!(store.usage().bytes, 0);
}

#[tokio::test]
async fn a_tag_moves_to_the_newer_image() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let (old, tars) = built();
    let new = image(&[(tars[0].clone(), Compression::None)], json!({}));
    let old = import(&store, &old.archive(Some("a.io/app:1")), None).await;
    let new = import(&store, &new.archive(Some("a.io/app:1")), None).await;
    assert_eq!(store.get("a.io/app:1").unwrap().id, new.id);
    assert_eq!(store.get(&old.id).unwrap().repo_tags, [""; 0]);
    assert_eq!(store.list().len(), 2);
}

#[tokio::test]
async fn records_survive_a_reopen_and_strangers_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let (built, _) = built();
    let first = store(&directory);
    let image = import(&first, &built.archive(Some("a.io/app:1")), None).await;
    assert!(
        Store::open(directory.path(), Options::default(), &[])
            .is_err_and(|e| told(&e).contains("another process"))
    );
    let lower = first.hold("c", &image).unwrap();
    first.remove("a.io/app:1").await.unwrap();
    first.close().await;

    std::fs::create_dir(directory.path().join("layers/77")).unwrap();
    std::fs::write(directory.path().join("tmp/left"), b"x").unwrap();
    let again = Store::open(directory.path(), Options::default(), &[("c".to_owned(), lower)]).unwrap();
    again.flush().await;
    assert_eq!(
        names(again.layer_store()).len(),
        2,
        "kept for the container, the stranger is gone"
    );
    assert_eq!(names(&directory.path().join("tmp")), [""; 0]);
    let image = import(&again, &built.archive(None), None).await;
    assert_eq!(image.layers.len(), 2);
    assert_eq!(
        names(again.layer_store()).len(),
        2,
        "the held layers are used again"
    );
}

#[tokio::test]
async fn an_image_that_had_not_reached_the_disk_is_dropped_on_the_next_boot() {
    let directory = tempfile::tempdir().unwrap();
    let (built, _) = built();
    let open = |boot: &str| {
        let options = Options {
            boot_id: boot.to_owned(),
            ..Options::default()
        };
        Store::open(directory.path(), options, &[]).unwrap()
    };
    let first = open("one");
    import(&first, &built.archive(Some("a.io/app:1")), None).await;
    first.close().await; // flushes: durable
    let second = open("two");
    assert!(second.get("a.io/app:1").is_some());
    second.close().await;
}

#[tokio::test]
async fn what_is_not_a_store_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), b"").unwrap();
    let error = Store::open(&directory.path().join("file"), Options::default(), &[])
        .err()
        .unwrap();
    assert!(told(&error).contains("/file"), "{error:?}");
}

#[tokio::test]
async fn the_configurations_of_old_builders_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(&directory);
    let process = json!({
        "Hostname": "x", "Domainname": "", "User": "", "AttachStdin": false, "ExposedPorts": null, "Tty": false,
        "Env": null, "Cmd": null, "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null,
        "Labels": null, "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1}, "Shell": ["/bin/sh"], "ArgsEscaped": true,
    });
    let built = image(&[(layers()[0].clone(), Compression::Gzip)], process);
    let read = import(&store, &built.archive(None), Some("old")).await;
    assert!(read.env().is_empty() && read.cmd().is_empty() && read.volumes().is_empty());
    let process = json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/a": {}}, "Labels": {}});
    let built = image(&[(layers()[0].clone(), Compression::Gzip)], process);
    assert_eq!(
        import(&store, &built.archive(None), Some("new")).await.volumes(),
        ["/a"]
    );
}

#[tokio::test]
async fn bad_archives_are_refused_by_name_and_leave_nothing() {
    let (built, tars) = built();
    let without = |digest: &str| {
        let mut blobs = built.blobs.clone();
        blobs.remove(digest);
        Built {
            blobs,
            config: built.config.clone(),
            manifest: built.manifest.clone(),
            layers: vec![],
        }
    };
    let changed = |digest: &str, bytes: Vec<u8>| {
        let mut blobs = built.blobs.clone();
        blobs.insert(digest.to_owned(), bytes);
        Built {
            blobs,
            config: built.config.clone(),
            manifest: built.manifest.clone(),
            layers: vec![],
        }
    };
    let layer = &built.layers[0];
    let same_size = {
        let mut bytes = built.blobs[layer].clone();
        bytes[4] ^= 1; // the time in the gzip header: the content stays the same
        bytes
    };
    let archive = built.archive(None);
    let cases = [
        (b"".to_vec(), "neither index.json"),
        (b"hello, this is not an archive at all".repeat(40), "checksum"),
        (archive[..archive.len() / 2].to_vec(), ""),
        (
            compress(&archive, Compression::Gzip)[..200].to_vec(),
            "decompress",
        ),
        (b"\xfd7zXZ\0\0\x04rest".to_vec(), "compressed with xz"),
        (b"BZh91AY&SYrest".to_vec(), "compressed with bzip2"),
        (b"\x04\x22\x4d\x18restrest".to_vec(), "compressed with lz4"),
        (b"BZh9 is no bzip2".repeat(100), "checksum"),
        (
            Layer::default().file("index.json", b"{").tar(),
            "index.json: manifest is malformed",
        ),
        (
            Layer::default().file("manifest.json", b"[{}]").tar(),
            "missing field `Config`",
        ),
        (
            Layer::default()
                .file("index.json", br#"{"schemaVersion":2,"manifests":[]}"#)
                .tar(),
            "index.json lists no image",
        ),
        (
            Layer::default().file("manifest.json", b"[]").tar(),
            "manifest.json lists no image",
        ),
        (without(layer).archive(None), "no file"),
        (changed(layer, same_size).archive(None), "the manifest says"),
        (changed(&built.config, b"{}".to_vec()).archive(None), "want"),
        (
            built.docker_archive(&["UPPER/x y"], &tars),
            "not a path component",
        ),
        (built.docker_archive(&["a"], &tars[..1]), "1 layers"),
        (
            built.docker_archive(&["a"], &[tars[0].clone(), tars[0].clone()]),
            "uncompressed layer has digest",
        ),
    ];
    for (at, (archive, want)) in cases.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let error = told(&store.import(archive.as_slice(), None).await.unwrap_err());
        assert!(error.contains(want), "{at}: {error:?}");
        store.flush().await;
        assert_eq!(names(store.layer_store()), [""; 0], "{at}");
        assert_eq!(names(&directory.path().join("tmp")), [""; 0], "{at}");
        assert!(store.list().is_empty(), "{at}");
    }
}

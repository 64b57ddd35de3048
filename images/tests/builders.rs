//! Images of real builders, and such as their archives look: each is imported or pulled, and holds what was put in.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use coracle_images::{Image, Options, Reference, Store};
use serde_json::{Value, json};
use support::registry::Registry;
use support::{Compression, Layer, compress, digest};

const SAID: &str = "hello of the builder\n";

fn run(directory: &Path, program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} is not installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Options::default(), &[]).unwrap();
    (directory, store)
}

async fn import(store: &Store, archive: &[u8]) -> Vec<Arc<Image>> {
    let images = store.import(archive, None).await;
    images.unwrap_or_else(|error| panic!("{}", support::told(&error)))
}

/// An image that says what it should: the file, and how it is run.
fn check(store: &Store, image: &Image, what: &str) {
    let read = store.read_file(image, "app/hello").unwrap();
    assert_eq!(read.as_deref(), Some(SAID.as_bytes()), "{what}");
    assert_eq!(image.entrypoint(), ["/app/run"], "{what}");
    assert_eq!(store.read_file(image, "app/gone").unwrap(), None, "{what}");
}

/// An OCI layout in `directory/layout`, tag `t`, by umoci: two layers, a whiteout in the second.
fn by_umoci(directory: &Path) {
    run(directory, "umoci", &["init", "--layout", "layout"]);
    run(directory, "umoci", &["new", "--image", "layout:t"]);
    for (file, content) in [("gone", "x"), ("hello", SAID)] {
        run(directory, "umoci", &["unpack", "--image", "layout:t", "bundle"]);
        let app = directory.join("bundle/rootfs/app");
        std::fs::create_dir_all(&app).unwrap();
        let _ = std::fs::remove_file(app.join("gone"));
        std::fs::write(app.join(file), content).unwrap();
        run(directory, "umoci", &["repack", "--image", "layout:t", "bundle"]);
        std::fs::remove_dir_all(directory.join("bundle")).unwrap();
    }
    run(
        directory,
        "umoci",
        &[
            "config",
            "--image",
            "layout:t",
            "--config.entrypoint",
            "/app/run",
            "--config.volume",
            "/data",
        ],
    );
}

fn archive(directory: &Path, of: &str) -> Vec<u8> {
    run(directory, "tar", &["-C", of, "-cf", "all.tar", "."]);
    std::fs::read(directory.join("all.tar")).unwrap()
}

#[tokio::test]
async fn a_layout_of_umoci_and_what_skopeo_makes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    by_umoci(path);
    let copy = |to: &str, flags: &[&str]| {
        run(
            path,
            "skopeo",
            &[&["--insecure-policy", "copy", "-q"], flags, &["oci:layout:t", to]].concat(),
        );
    };
    copy("docker-archive:docker.tar:example.org/app:v1", &[]);
    copy("oci-archive:oci.tar:example.org/app:v1", &[]);
    copy(
        "oci:zstd:t",
        &["--dest-compress-format", "zstd", "--dest-compress"],
    );
    copy("oci:plain:t", &["--dest-decompress"]);
    for (name, archive) in [
        ("umoci", archive(path, "layout")),
        ("docker-archive", std::fs::read(path.join("docker.tar")).unwrap()),
        ("oci-archive", std::fs::read(path.join("oci.tar")).unwrap()),
        ("zstd layout", archive(path, "zstd")),
        ("plain layout", archive(path, "plain")),
        (
            "compressed archive",
            compress(&std::fs::read(path.join("oci.tar")).unwrap(), Compression::Gzip),
        ),
    ] {
        let (_directory, store) = store();
        let images = import(&store, &archive).await;
        assert_eq!(images.len(), 1, "{name}");
        check(&store, &images[0], name);
        assert_eq!(images[0].volumes(), ["/data"], "{name}");
    }
}

#[tokio::test]
async fn what_skopeo_pushes_is_pulled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    by_umoci(path);
    let registry = Registry::start();
    for (tag, flags) in [
        ("oci", &["--format", "oci"][..]),
        ("v2s2", &["--format", "v2s2"]),
        ("zstd", &["--dest-compress-format", "zstd", "--dest-compress"]),
        ("plain", &["--dest-decompress"]),
    ] {
        let name = format!("{}/app:{tag}", registry.address);
        let to = format!("docker://{name}");
        let copy = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
        run(path, "skopeo", &[&copy, flags, &["oci:layout:t", &to]].concat());
        let (_directory, store) = store();
        let nothing = tempfile::tempdir().unwrap();
        let pulled = store
            .pull(&Reference::parse(&name).unwrap(), None, nothing.path())
            .await;
        let pulled = pulled.unwrap_or_else(|error| panic!("{tag}: {}", support::told(&error)));
        check(&store, &pulled, tag);
    }
}

#[tokio::test]
async fn what_podman_builds_saves_and_pushes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let context = path.join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("hello"), SAID).unwrap();
    std::fs::write(context.join("gone"), "x").unwrap();
    let file = "FROM scratch\nCOPY hello gone /app/\nENTRYPOINT [\"/app/run\"]\nENV A=b\nVOLUME /data\nLABEL x=y\nUSER 7:8\nSTOPSIGNAL 3\n\
                HEALTHCHECK CMD true\n";
    // Nothing runs in it, so what is removed is removed by leaving it out.
    std::fs::write(context.join("Containerfile"), file.replace(" gone ", " ")).unwrap();
    let storage = path.join("storage").display().to_string();
    let podman = |args: &[&str]| {
        let own = [
            "--root",
            &storage,
            "--runroot",
            &storage,
            "--storage-driver",
            "vfs",
        ];
        run(path, "podman", &[&own, args].concat());
    };
    let registry = Registry::start();
    for (format, squash) in [("oci", "--layers=true"), ("docker", "--squash-all")] {
        let tag = format!("example.org/{format}:1");
        podman(&["build", "-q", "--format", format, squash, "-t", &tag, "context"]);
        for save in ["oci-archive", "docker-archive"] {
            let out = format!("{format}-{save}.tar");
            podman(&["save", "-q", "--format", save, "-o", &out, &tag]);
            let (_directory, store) = store();
            let images = import(&store, &std::fs::read(path.join(&out)).unwrap()).await;
            check(&store, &images[0], &out);
            assert_eq!(images[0].user(), "7:8", "{out}");
            assert_eq!(store.get(&tag).unwrap().id, images[0].id, "{out}");
        }
        for compression in ["gzip", "zstd", "zstd:chunked"] {
            let name = format!("{}/{format}:{}", registry.address, compression.replace(':', "-"));
            let to = format!("docker://{name}");
            podman(&[
                "push",
                "-q",
                "--tls-verify=false",
                "--compression-format",
                compression,
                &tag,
                &to,
            ]);
            let (_directory, store) = store();
            let nothing = tempfile::tempdir().unwrap();
            let pulled = store
                .pull(&Reference::parse(&name).unwrap(), None, nothing.path())
                .await;
            let pulled = pulled.unwrap_or_else(|error| panic!("{name}: {}", support::told(&error)));
            check(&store, &pulled, &name);
        }
    }
    podman(&["rmi", "-a", "-f"]);
}

/// One layer, in the bytes that a builder writes it in.
fn layer() -> Vec<u8> {
    Layer::default()
        .directory("app/", 0o755)
        .file("app/hello", SAID.as_bytes())
        .tar()
}

fn configuration(diff_ids: &[String], more: Value) -> Vec<u8> {
    let mut config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/app/run"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config.to_string().into_bytes()
}

/// `docker save` until 24: folders of layers with their old metadata, and links where two layers are the same.
#[tokio::test]
async fn a_docker_save_of_20() {
    let layer = layer();
    let id = digest(&layer);
    let config = configuration(
        &[id.clone(), id],
        json!({"container": "0", "docker_version": "20.10.24", "created": "2023-05-01T00:00:00Z",
        "history": [{"created_by": "a"}, {"created_by": "b", "empty_layer": true}, {"created_by": "c"}]}),
    );
    let name = digest(&config).replace("sha256:", "");
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let manifest = json!([{"Config": format!("{name}.json"), "RepoTags": ["app:1", "app:latest"],
        "Layers": [format!("{first}/layer.tar"), format!("{second}/layer.tar")]}]);
    let archive = Layer::default()
        .directory(&format!("{first}/"), 0o755)
        .file(&format!("{first}/VERSION"), b"1.0")
        .file(&format!("{first}/json"), b"{\"id\":\"1\",\"os\":\"linux\"}")
        .file(&format!("{first}/layer.tar"), &layer)
        .directory(&format!("{second}/"), 0o755)
        .file(&format!("{second}/VERSION"), b"1.0")
        .file(&format!("{second}/json"), b"{}")
        .symlink(&format!("{second}/layer.tar"), &format!("../{first}/layer.tar"))
        .file(&format!("{name}.json"), &config)
        .file("manifest.json", manifest.to_string().as_bytes())
        .file("repositories", b"{\"app\":{\"1\":\"2\"}}")
        .tar();
    let (_directory, store) = store();
    let images = import(&store, &archive).await;
    check(&store, &images[0], "docker 20");
    assert_eq!(
        images[0].repo_tags,
        ["docker.io/library/app:1", "docker.io/library/app:latest"]
    );
}

/// `docker save` since 25: an OCI layout and the old manifest beside it, which names blobs.
#[tokio::test]
async fn a_docker_save_of_25() {
    let layer = layer();
    let config = configuration(&[digest(&layer)], json!({"history": [], "variant": ""}));
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest(bytes).replace("sha256:", ""));
    let oci = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(&layer), "size": layer.len()}]}).to_string();
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(oci.as_bytes()), "size": oci.len(),
        "annotations": {"io.containerd.image.name": "docker.io/library/app:1", "org.opencontainers.image.ref.name": "1"},
        "platform": {"architecture": "amd64", "os": "linux"}}]});
    let manifest = json!([{"Config": blob(&config), "RepoTags": ["app:1"], "Layers": [blob(&layer)],
        "LayerSources": {digest(&layer): {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": layer.len(), "digest": digest(&layer)}}}]);
    let archive = Layer::default()
        .directory("blobs/", 0o755)
        .directory("blobs/sha256/", 0o755)
        .file(&blob(&config), &config)
        .file(&blob(&layer), &layer)
        .file(&blob(oci.as_bytes()), oci.as_bytes())
        .file("index.json", index.to_string().as_bytes())
        .file("manifest.json", manifest.to_string().as_bytes())
        .file("oci-layout", b"{\"imageLayoutVersion\": \"1.0.0\"}")
        .file("repositories", b"{}")
        .tar();
    let (_directory, store) = store();
    let images = import(&store, &archive).await;
    check(&store, &images[0], "docker 25");
    assert_eq!(images[0].repo_tags, ["docker.io/library/app:1"]);
}

/// ko: no directory entries, names from the root on, times of 1970, a layer that is compressed in the docker archive.
#[tokio::test]
async fn an_archive_as_ko_and_jib_write_it() {
    let layer = Layer::default()
        .file("/app/hello", SAID.as_bytes())
        .entry("/app/run", tar::EntryType::Regular, 0o555, b"#!", "")
        .tar();
    let config = configuration(
        &[digest(&layer)],
        json!({"author": "github.com/ko-build/ko", "created": "1970-01-01T00:00:00Z",
        "history": [{"author": "ko", "created": "1970-01-01T00:00:00Z", "created_by": "ko build", "comment": "go build output"}]}),
    );
    let compressed = compress(&layer, Compression::Gzip);
    let file = format!("{}.tar.gz", digest(&compressed).replace("sha256:", ""));
    let manifest =
        json!([{"Config": digest(&config), "RepoTags": ["ko.local/app:latest"], "Layers": [file]}]);
    let archive = Layer::default()
        .file(&digest(&config), &config)
        .file(&file, &compressed)
        .file("manifest.json", manifest.to_string().as_bytes())
        .tar();
    let (_directory, store) = store();
    let images = import(&store, &archive).await;
    check(&store, &images[0], "ko");
}

/// rules_docker of Bazel: files named by digest, `./` before every name, no history and no creation, owners that nobody has.
#[tokio::test]
async fn an_archive_as_bazel_writes_it() {
    let layer = Layer::default()
        .raw("./", tar::EntryType::Directory, b"", |header| {
            header.set_mode(0o755);
        })
        .raw(
            "./app/hello",
            tar::EntryType::Regular,
            SAID.as_bytes(),
            |header| {
                header.set_uid(4_294_967_294);
                header.set_username("bazel").unwrap();
            },
        )
        .tar();
    let config = configuration(&[digest(&layer)], json!({"created": null, "history": null}));
    let hex = digest(&layer).replace("sha256:", "");
    let name = digest(&config).replace("sha256:", "");
    let manifest = json!([{"Config": format!("{name}.json"), "RepoTags": ["bazel/app:image"], "Layers": [format!("{hex}/layer.tar")], "Parent": ""}]);
    let archive = Layer::default()
        .file(&format!("./{name}.json"), &config)
        .file(&format!("./{hex}/layer.tar"), &layer)
        .file("./manifest.json", manifest.to_string().as_bytes())
        .tar();
    let (_directory, store) = store();
    let images = import(&store, &archive).await;
    check(&store, &images[0], "bazel");
}

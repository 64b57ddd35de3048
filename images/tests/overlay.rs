//! The layers really are what overlayfs wants: 60 of them below a root of 200 characters, mounted relative to the store, as the
//! shim does it, in a private mount namespace.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_images::{Options, Store};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use support::{Compression, Layer, image};

const LAYERS: usize = 60;

fn layers() -> Vec<(Vec<u8>, Compression)> {
    let mut layers = Vec::new();
    for at in 0..LAYERS {
        let mut layer = Layer::default();
        if at == 0 {
            layer = layer
                .directory("./", 0o711)
                .directory("all/", 0o755)
                .directory("gone/", 0o755)
                .file("gone/x", b"");
        }
        layer = layer
            .directory("all/", 0o750)
            .file(&format!("all/{at}"), at.to_string().as_bytes());
        layer = layer.file("top", at.to_string().as_bytes());
        if at % 2 == 1 {
            layer = layer.file(&format!("all/.wh.{}", at - 1), b"");
        }
        if at == 30 {
            layer = layer
                .directory("gone/", 0o755)
                .file("gone/.wh..wh..opq", b"")
                .file("gone/y", b"");
        }
        let compression = [Compression::None, Compression::Gzip, Compression::Zstd][at % 3];
        layers.push((layer.tar(), compression));
    }
    // Once more the first layer: the kernel refuses the same directory twice.
    layers.push(layers[0].clone());
    layers
}

#[tokio::test]
async fn sixty_layers_below_a_long_root_are_mounted() {
    let directory = tempfile::tempdir().unwrap();
    let fill = 200 - directory.path().as_os_str().len() - 1;
    let root = directory.path().join("r".repeat(fill));
    assert_eq!(root.as_os_str().len(), 200);
    let store = Store::open(&root, Options::default(), &[]).unwrap();
    // Known before, so that the image has one directory twice.
    let first = image(&layers()[..1], json!({})).archive(None);
    store.import(first.as_slice(), None).await.unwrap();
    let archive = image(&layers(), json!({})).archive(Some("a.io/many:1"));
    let image = store.import(archive.as_slice(), None).await.unwrap().remove(0);
    assert_eq!(image.root.mode, 0o711);
    let lower = store.lower(&image);
    assert_eq!((image.layers.len(), lower.len()), (LAYERS + 1, LAYERS));

    let (upper, work) = (root.join("upper"), root.join("work"));
    let target = root.join("merged");
    let point = target.clone();
    for path in [&upper, &work, &target] {
        std::fs::create_dir(path).unwrap();
    }
    let layer_store = store.layer_store().to_owned();
    // Namespaces belong to threads: this one has its own and ends with it.
    let mounted = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        look_through_overlay(&layer_store, &lower, &upper, &work, &target);
    });
    mounted.join().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(point.to_str().unwrap()),
        "nothing is mounted outside"
    );
}

fn look_through_overlay(store: &Path, lower: &[PathBuf], upper: &Path, work: &Path, target: &Path) {
    // unshare(CLONE_NEWNS) also unshared the working directory of this thread.
    std::env::set_current_dir(store).unwrap();
    let names: Vec<&str> = lower.iter().map(|name| name.to_str().unwrap()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        names.join(":"),
        upper.display(),
        work.display()
    );
    assert!(options.len() < 4096, "mount(2) takes one page");
    mount(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .unwrap();
    let read = |path: &str| std::fs::read_to_string(target.join(path)).unwrap();
    assert_eq!(read("top"), "0", "the first layer is on top once more");
    let mut present: Vec<usize> = support::names(&target.join("all"))
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
    present.sort_unstable();
    let mut expected: Vec<usize> = (1..LAYERS).step_by(2).collect();
    expected.insert(0, 0);
    assert_eq!(
        present, expected,
        "every other file was deleted by the next layer"
    );
    assert_eq!(support::names(&target.join("gone")), ["x", "y"]);
    assert_eq!(
        std::fs::metadata(target.join("all")).unwrap().mode() & 0o777,
        0o750
    );
    std::fs::write(target.join("all/written"), b"x").unwrap();
    assert!(upper.join("all/written").exists());
    umount2(target, MntFlags::MNT_DETACH).unwrap();
}

#[tokio::test]
async fn what_the_lookup_finds_is_what_the_kernel_shows() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("s"), Options::default(), &[]).unwrap();
    let layers = [
        Layer::default()
            .directory("etc/", 0o755)
            .file("etc/passwd", b"one")
            .symlink("etc/link", "../etc/passwd")
            .symlink("abs", "/etc/passwd")
            .file("deleted", b"")
            .directory("opaque/", 0o755)
            .file("opaque/hidden", b"")
            .directory("replaced/", 0o755)
            .file("replaced/inside", b""),
        Layer::default()
            .directory("etc/", 0o755)
            .file("etc/passwd", b"two")
            .file(".wh.deleted", b"")
            .directory("opaque/", 0o755)
            .file("opaque/.wh..wh..opq", b"")
            .file("opaque/shown", b"")
            .file("replaced", b"a file"),
        Layer::default()
            .file("etc/late", b"three")
            .symlink("dangling", "/nowhere")
            .symlink("dir", "etc/../etc/"),
    ];
    let layers: Vec<_> = layers
        .into_iter()
        .map(|layer| (layer.tar(), Compression::None))
        .collect();
    let archive = image(&layers, json!({})).archive(None);
    let image = store.import(archive.as_slice(), None).await.unwrap().remove(0);
    let paths = [
        "etc/passwd",
        "etc/link",
        "abs",
        "deleted",
        "opaque/hidden",
        "opaque/shown",
        "replaced",
        "replaced/inside",
        "etc/late",
        "dangling",
        "dir/passwd",
        "dir/../abs",
        "../../etc/passwd",
        "none",
        "etc/passwd/x",
    ];
    let found: Vec<Option<Vec<u8>>> = paths
        .iter()
        .map(|path| store.read_file(&image, path).unwrap())
        .collect();
    let (layer_store, lower) = (store.layer_store().to_owned(), store.lower(&image));
    let target = directory.path().join("merged");
    std::fs::create_dir(&target).unwrap();
    let shown = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        std::env::set_current_dir(layer_store).unwrap();
        let names: Vec<&str> = lower.iter().map(|name| name.to_str().unwrap()).collect();
        let options = format!("lowerdir={}", names.join(":"));
        mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap();
        // As in a container: links and .. end at its root.
        nix::unistd::chroot(&target).unwrap();
        std::env::set_current_dir("/").unwrap();
        paths.map(|path| std::fs::read(Path::new("/").join(path)).ok())
    });
    let shown = shown.join().unwrap();
    for ((path, found), shown) in paths.iter().zip(found).zip(shown) {
        assert_eq!(found, shown, "{path}");
    }
    assert!(
        store.read_file(&image, "etc").is_err(),
        "a directory is not a file"
    );
}

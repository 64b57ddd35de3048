//! Layers that are odd in form and unpack everywhere: names, ids, attributes, devices. Needs root.

mod support;

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use coracle_images::{Options, Store};
use serde_json::json;
use support::{Compression, Layer, image, names, told};
use tar::EntryType;

#[derive(Debug)]
struct Unpacked {
    _directory: tempfile::TempDir,
    layer: PathBuf,
}

impl Unpacked {
    fn path(&self, name: &str) -> PathBuf {
        self.layer.join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}

async fn unpack(layer: Layer) -> Result<Unpacked, String> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Options::default(), &[]).unwrap();
    let archive = image(&[(layer.tar(), Compression::None)], json!({})).archive(Some("a.io/odd:1"));
    let imported = store.import(archive.as_slice(), None).await;
    let imported = imported.map_err(|error| told(&error))?.remove(0);
    let layer = store.layer_store().join(&store.lower(&imported)[0]);
    Ok(Unpacked {
        _directory: directory,
        layer,
    })
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn node(layer: Layer, name: &str, kind: EntryType, (major, minor): (u32, u32)) -> Layer {
    layer.raw(name, kind, b"", |header| {
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
    })
}

#[tokio::test]
async fn names_are_cleaned_as_paths_below_the_root() {
    let layer = Layer::default()
        .directory("", 0o711)
        .directory("./d//", 0o750)
        .file("/abs", b"abs")
        .file("./d/./one", b"one")
        .file("d//two", b"two")
        .file("d/x/../three", b"three")
        .file("x/y/../../four", b"four")
        .file("five/", b"")
        .symlink("s//", "d")
        .link("./hard", "./d/../d//one")
        .file("", b"nameless")
        .file("last", b"last");
    let unpacked = unpack(layer).await.unwrap();
    assert_eq!(std::fs::metadata(&unpacked.layer).unwrap().mode() & 0o777, 0o711);
    assert_eq!(
        std::fs::metadata(unpacked.path("d")).unwrap().mode() & 0o777,
        0o750
    );
    for (name, content) in [
        ("abs", "abs"),
        ("d/one", "one"),
        ("d/two", "two"),
        ("d/three", "three"),
        ("four", "four"),
        ("hard", "one"),
        ("last", "last"),
    ] {
        assert_eq!(unpacked.read(name), content, "{name}");
    }
    assert!(unpacked.path("five").is_dir());
    assert_eq!(std::fs::read_link(unpacked.path("s")).unwrap(), Path::new("d"));
    assert!(!unpacked.path("x").exists() && !unpacked.path("d/x").exists());
    assert_eq!(names(&unpacked.layer).len(), 7);
}

#[tokio::test]
async fn what_leaves_the_root_is_refused() {
    let cases = [
        Layer::default().file("..", b""),
        Layer::default().file("../d", b""),
        Layer::default().file("d/../../e", b""),
        Layer::default().file("/../e", b""),
        Layer::default().link("l", "d/../../etc/passwd"),
        Layer::default().symlink("d/..", "/etc"),
    ];
    for layer in cases {
        assert!(unpack(layer).await.is_err());
    }
}

#[tokio::test]
async fn ids_are_what_chown_makes_of_them() {
    let base_256 = |value: i64| {
        let mut field = [if value < 0 { 0xff } else { 0 }; 8];
        field.copy_from_slice(&value.to_be_bytes());
        field[0] |= 0x80;
        field
    };
    let header = |value: i64| {
        Layer::default().raw("f", EntryType::Regular, b"", move |header| {
            header.as_old_mut().uid = base_256(value);
        })
    };
    let pax = |value: &str| Layer::default().pax(&[("uid", value.as_bytes())]).file("f", b"");
    let cases = [
        (header(-2), 4_294_967_294),
        (header(-1), 0),
        (header(70_000_000), 70_000_000),
        (header((1 << 32) + 5), 5),
        (pax("-2"), 4_294_967_294),
        (pax("4294967294"), 4_294_967_294),
        (pax("4294967295"), 0),
        (pax("4294967301"), 5),
        (pax("1000"), 1000),
    ];
    for (at, (layer, uid)) in cases.into_iter().enumerate() {
        let unpacked = unpack(layer).await.unwrap_or_else(|e| panic!("{at}: {e}"));
        let found = std::fs::metadata(unpacked.path("f")).unwrap().uid();
        assert_eq!(found, uid, "{at}");
    }
    assert!(unpack(pax("root")).await.unwrap_err().contains("uid"));
}

#[tokio::test]
async fn attributes_that_a_layer_should_not_have_are_left_out() {
    let left_out = [
        "user.overlay.opaque",
        "user.overlay.redirect",
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.own",
        "com.apple.quarantine",
        "security.selinux",
        "system.nfs4_acl",
        "nothing",
        "",
    ];
    for name in left_out {
        let key = format!("SCHILY.xattr.{name}");
        let records: [(&str, &[u8]); 1] = [(&key, b"y")];
        let layer = Layer::default()
            .pax(&records)
            .directory("d/", 0o755)
            .pax(&records)
            .file("d/f", b"x");
        let unpacked = unpack(layer).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(unpacked.read("d/f"), "x");
        if !name.is_empty() {
            assert_eq!(attribute(&unpacked.path("d"), name), None, "{name}");
            assert_eq!(attribute(&unpacked.path("d/f"), name), None, "{name}");
        }
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let layer = Layer::default()
        .pax(&[
            ("SCHILY.xattr.trusted.x", b"1"),
            ("SCHILY.xattr.security.capability", capability),
        ])
        .file("f", b"")
        .pax(&[("SCHILY.xattr.security.capability", b"odd")])
        .file("odd", b"");
    let unpacked = unpack(layer).await.unwrap();
    let kept = attribute(&unpacked.path("f"), "security.capability");
    assert_eq!(kept.as_deref(), Some(capability.as_slice()));
    assert_eq!(attribute(&unpacked.path("odd"), "security.capability"), None);
}

#[tokio::test]
async fn device_nodes_are_made_where_harmless_and_else_left_out() {
    let devices = [
        ("null", EntryType::Char, (1, 3)),
        ("mem", EntryType::Char, (1, 1)),
        ("sda", EntryType::Block, (8, 0)),
        ("loop0", EntryType::Block, (7, 0)),
        ("console2", EntryType::Char, (4, 1)),
        ("gone", EntryType::Char, (0, 0)),
        ("zero_block", EntryType::Block, (0, 0)),
    ];
    let layer = devices
        .iter()
        .fold(Layer::default(), |layer, (name, kind, number)| {
            node(layer, name, *kind, *number)
        });
    let layer = layer.link("hard", "sda").link("harder", "hard").file("f", b"x");
    let unpacked = unpack(layer).await.unwrap();
    assert_eq!(names(&unpacked.layer), ["f", "gone", "null"]);
    let null = std::fs::metadata(unpacked.path("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
    let gone = std::fs::metadata(unpacked.path("gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
}

//! What layer archives may and may not do, seen from the outside: an image is imported, its layer directories are looked at.

mod support;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use coracle_images::{Image, Limits, Options, Store};
use serde_json::json;
use support::{Compression, Layer, image, names, told};
use tar::EntryType;

struct Fixture {
    directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            limits,
            ..Options::default()
        };
        let store = Store::open(&directory.path().join("images"), options, &[]).unwrap();
        Self { directory, store }
    }

    async fn import(&self, layers: Vec<Vec<u8>>) -> Result<Arc<Image>, String> {
        let layers: Vec<_> = layers.into_iter().map(|tar| (tar, Compression::None)).collect();
        let archive = image(&layers, json!({})).archive(Some("a.io/test:1"));
        let imported = self.store.import(archive.as_slice(), None).await;
        imported
            .map(|mut images| images.remove(0))
            .map_err(|error| told(&error))
    }

    /// The layers' directories, bottom first.
    async fn directories(&self, layers: Vec<Layer>) -> Vec<PathBuf> {
        let image = self
            .import(layers.into_iter().map(Layer::tar).collect())
            .await
            .unwrap();
        let mut lower = self.store.lower(&image);
        lower.reverse();
        lower
            .into_iter()
            .map(|name| self.store.layer_store().join(name))
            .collect()
    }
}

fn xattr(path: &std::path::Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[tokio::test]
async fn files_keep_all_their_attributes() {
    let fixture = Fixture::new(Limits::default());
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let layer = Layer::default()
        .directory("dir/", 0o1777)
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability[..]),
            ("SCHILY.xattr.user.note", b"hi"),
        ])
        .raw("dir/suid", EntryType::Regular, b"content", |h| {
            h.set_mode(0o4755);
            h.set_uid(1000);
            h.set_gid(2000);
            h.set_mtime(1_234_567_890);
        })
        .pax(&[("mtime", b"-1.5")])
        .file("dir/old", b"")
        .link("dir/hard", "dir/suid")
        .symlink("dir/link", "/etc/../outside")
        .raw("dir/null", EntryType::Char, b"", |h| {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
            h.set_mode(0o666);
        })
        .entry("dir/fifo", EntryType::Fifo, 0o622, b"", "")
        .file("/absolute", b"below the root of the layer")
        .pax(&[(
            "path",
            format!("long/{}/{}", "x".repeat(200), "y".repeat(200)).as_bytes(),
        )])
        .file("short", b"long");
    let layer = layer.raw("blank", EntryType::Regular, b"", |h| {
        let old = h.as_old_mut();
        (old.uid, old.gid, old.mode) = ([0; 8], [b' '; 8], [0; 8]);
    });
    let root = &fixture.directories(vec![layer]).await[0];
    assert_eq!(std::fs::metadata(root.join("blank")).unwrap().mode() & 0o7777, 0);

    let dir = std::fs::metadata(root.join("dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o1777, 1_700_000_000));
    let suid = std::fs::metadata(root.join("dir/suid")).unwrap();
    assert_eq!(
        (suid.mode() & 0o7777, suid.uid(), suid.gid(), suid.nlink()),
        (0o4755, 1000, 2000, 2)
    );
    assert_eq!(suid.mtime(), 1_234_567_890);
    assert_eq!(
        xattr(&root.join("dir/suid"), "security.capability").unwrap(),
        capability
    );
    let old = std::fs::metadata(root.join("dir/old")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(
        std::fs::metadata(root.join("dir/hard")).unwrap().ino(),
        suid.ino()
    );
    assert_eq!(
        std::fs::read_link(root.join("dir/link")).unwrap(),
        PathBuf::from("/etc/../outside")
    );
    let null = std::fs::metadata(root.join("dir/null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    assert_eq!(null.mode() & 0o777, 0o666);
    assert!(
        std::fs::metadata(root.join("dir/fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(root.join("absolute").exists());
    assert_eq!(
        std::fs::read(root.join(format!("long/{}/{}", "x".repeat(200), "y".repeat(200)))).unwrap(),
        b"long"
    );
}

#[tokio::test]
async fn deletions_become_what_overlayfs_understands() {
    let fixture = Fixture::new(Limits::default());
    let bottom = Layer::default()
        .directory("d/", 0o755)
        .file("d/a", b"")
        .file("d/b", b"")
        .directory("o/", 0o755);
    let top = Layer::default()
        .directory("d/", 0o755)
        .file("d/.wh.a", b"")
        .directory("o/", 0o755)
        .file("o/.wh..wh..opq", b"")
        .file("o/.wh..wh.plnk", b"")
        // Deleted and made anew in one layer, in either order: the new one hides the old one.
        .file(".wh.x", b"")
        .directory("x/", 0o755)
        .directory("y/", 0o755)
        .file(".wh.y", b"")
        .file("z", b"new")
        .file(".wh.z", b"")
        .file(".wh.v", b"")
        .file("v/implied", b"");
    let root = &fixture.directories(vec![bottom, top]).await[1];
    let whiteout = std::fs::symlink_metadata(root.join("d/a")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    for opaque in ["o", "x", "y", "v"] {
        assert_eq!(
            xattr(&root.join(opaque), "trusted.overlay.opaque").unwrap(),
            b"y",
            "{opaque}"
        );
    }
    assert_eq!(std::fs::read(root.join("z")).unwrap(), b"new");
    assert_eq!(names(root), ["d", "o", "v", "x", "y", "z"]);
    assert_eq!(names(&root.join("o")), [""; 0]);
}

#[tokio::test]
async fn an_opaque_root_hides_all_lower_layers() {
    let fixture = Fixture::new(Limits::default());
    let layers = vec![
        Layer::default().file("a", b""),
        Layer::default().file(".wh..wh..opq", b"").file("b", b""),
    ];
    let image = fixture
        .import(layers.into_iter().map(Layer::tar).collect())
        .await
        .unwrap();
    assert_eq!((image.layers.len(), fixture.store.lower(&image).len()), (2, 1));
    assert_eq!(fixture.store.read_file(&image, "a").unwrap(), None);
}

#[tokio::test]
async fn directories_that_are_only_implied_look_as_in_the_lower_layers() {
    let fixture = Fixture::new(Limits::default());
    let bottom = Layer::default()
        .directory("tmp/", 0o1777)
        .directory("usr/", 0o755)
        .directory("usr/lib/", 0o711)
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib");
    let top = Layer::default()
        .file("tmp/x", b"")
        .file("lib/deep/one", b"1")
        .file("abs/two", b"2")
        .symlink("own", "tmp")
        .file("own/three", b"3");
    let directories = fixture.directories(vec![bottom, top]).await;
    let root = &directories[1];
    let mode = |path: &str| std::fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("usr/lib")), (0o1777, 0o711));
    assert_eq!(std::fs::read(root.join("usr/lib/deep/one")).unwrap(), b"1");
    assert_eq!(std::fs::read(root.join("usr/lib/two")).unwrap(), b"2");
    assert_eq!(std::fs::read(root.join("tmp/three")).unwrap(), b"3");
    assert_eq!(names(root), ["own", "tmp", "usr"]);
    let image = fixture.store.list().remove(0);
    assert_eq!(
        fixture.store.read_file(&image, "lib/deep/one").unwrap().unwrap(),
        b"1"
    );
}

#[tokio::test]
async fn an_entry_that_comes_twice_replaces_and_never_writes_through() {
    let fixture = Fixture::new(Limits::default());
    let victim = fixture.directory.path().join("victim");
    std::fs::write(&victim, b"safe").unwrap();
    let layer = Layer::default()
        .symlink("f", victim.to_str().unwrap())
        .file("f", b"second")
        .directory("d/", 0o755)
        .file("d/inside", b"")
        .file("d", b"a file now")
        .symlink("e", "/")
        .directory("e/", 0o700)
        .file("e/x", b"");
    let root = &fixture.directories(vec![layer]).await[0];
    assert_eq!(std::fs::read(&victim).unwrap(), b"safe");
    assert_eq!(std::fs::read(root.join("f")).unwrap(), b"second");
    assert_eq!(std::fs::read(root.join("d")).unwrap(), b"a file now");
    assert_eq!(names(&root.join("e")), ["x"]);
}

#[tokio::test]
async fn links_of_a_layer_lead_no_further_than_the_layer() {
    let fixture = Fixture::new(Limits::default());
    let layer = Layer::default()
        .symlink("up", "../../../../../..")
        .file("up/escaped-dotdot", b"x")
        .symlink("abs", "/")
        .file("abs/escaped-absolute", b"x")
        .symlink("p", "/proc/self/root")
        .file("p/escaped-magic", b"x");
    let root = &fixture.directories(vec![layer]).await[0];
    for name in [
        "escaped-dotdot",
        "escaped-absolute",
        "proc/self/root/escaped-magic",
    ] {
        assert!(root.join(name).exists(), "{name}");
    }
    assert!(!PathBuf::from("/escaped-dotdot").exists() && !PathBuf::from("/escaped-magic").exists());
}

#[tokio::test]
async fn sparse_files_of_every_format_are_filled() {
    let fixture = Fixture::new(Limits::default());
    let mut content = vec![0_u8; 3 << 20];
    content[(1 << 20)..(1 << 20) + 5].copy_from_slice(b"hello");
    let mut directories = Vec::new();
    for format in [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        let source = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(source.path().join("sparse")).unwrap();
        use std::os::unix::fs::FileExt;
        file.write_at(b"hello", 1 << 20).unwrap();
        file.set_len(3 << 20).unwrap();
        let output = std::process::Command::new("tar")
            .args(format.split(' '))
            .args(["--sparse", "-cf", "-", "sparse"])
            .current_dir(source.path())
            .output()
            .unwrap();
        assert!(output.status.success());
        assert!(output.stdout.len() < 1 << 20, "{format} is sparse");
        let image = fixture.import(vec![output.stdout]).await.unwrap();
        directories.push((
            format,
            fixture.store.layer_store().join(&fixture.store.lower(&image)[0]),
        ));
    }
    for (format, directory) in directories {
        // A tag moved on each import; the older images stay.
        let file = directory.join("sparse");
        assert_eq!(std::fs::read(&file).unwrap(), content, "{format}");
        assert!(
            std::fs::metadata(&file).unwrap().blocks() * 512 < 1 << 20,
            "{format} stays sparse"
        );
    }
}

#[tokio::test]
async fn hostile_archives_are_refused_by_name_and_leave_nothing() {
    let huge = |size: u64| {
        let mut tar = Layer::default()
            .raw("huge", EntryType::Regular, b"", |h| h.set_size(size))
            .tar();
        tar.truncate(512);
        tar
    };
    let gnu_name = |size: u64| {
        let mut tar = Layer::default()
            .raw("././@LongLink", EntryType::GNULongName, b"", |h| h.set_size(size))
            .tar();
        tar.truncate(512);
        tar
    };
    let deep = "d/".repeat(300) + "f";
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "dotdot",
            Layer::default().file("../evil", b"").tar(),
            &["\"../evil\"", "'..'"],
        ),
        (
            "dotdot inside",
            Layer::default().file("a/../../evil", b"").tar(),
            &["a/../../evil", "'..'"],
        ),
        (
            "pax dotdot",
            Layer::default().pax(&[("path", b"../pax")]).file("x", b"").tar(),
            &["../pax"],
        ),
        (
            "hard link out",
            Layer::default().link("l", "../../etc/passwd").tar(),
            &["\"l\"", "../../etc/passwd"],
        ),
        (
            "hard link absolute",
            Layer::default().link("l", "/etc/passwd").tar(),
            &["\"l\"", "not a file of this layer"],
        ),
        (
            "hard link through a link",
            Layer::default().symlink("s", "/etc").link("l", "s/passwd").tar(),
            &["\"l\"", "not a file of this layer"],
        ),
        (
            "hard link to a directory",
            Layer::default().directory("d/", 0o755).link("l", "d").tar(),
            &["\"l\""],
        ),
        (
            "hard link to a whiteout",
            Layer::default().file(".wh.w", b"").link("l", "w").tar(),
            &["\"l\""],
        ),
        (
            "device bomb",
            (0..300)
                .fold(Layer::default(), |layer, at| {
                    layer.raw(&format!("n{at}"), EntryType::Char, b"", |h| {
                        h.set_device_major(1).unwrap();
                        h.set_device_minor(3).unwrap();
                    })
                })
                .tar(),
            &["\"n256\"", "more than 256 device nodes"],
        ),
        ("declared size", huge(1 << 50), &["\"huge\"", "larger than"]),
        (
            "declared size, beyond the limit of a layer",
            huge(1 << 38),
            &["\"huge\"", "larger than"],
        ),
        (
            "whiteout of nothing",
            Layer::default().file("a/.wh.", b"").tar(),
            &["a/.wh.", "malformed"],
        ),
        (
            "whiteout of the parent",
            Layer::default().file("a/.wh...", b"").tar(),
            &["a/.wh...", "malformed"],
        ),
        (
            "loop",
            Layer::default()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/f", b"")
                .tar(),
            &["a/f", "symbolic links"],
        ),
        (
            "below a file",
            Layer::default().file("a", b"").file("a/f", b"").tar(),
            &["a/f", "not a directory"],
        ),
        (
            "root is a link",
            Layer::default().symlink("./", "/etc").tar(),
            &["root of a layer"],
        ),
        (
            "deep",
            Layer::default()
                .pax(&[("path", deep.as_bytes())])
                .file("x", b"")
                .tar(),
            &["256 directories"],
        ),
        (
            "strange type",
            Layer::default()
                .entry("t", EntryType::new(b'Z'), 0o644, b"", "")
                .tar(),
            &["\"t\"", "type"],
        ),
        (
            "empty link",
            Layer::default()
                .entry("s", EntryType::Symlink, 0o777, b"", "")
                .tar(),
            &["\"s\"", "no target"],
        ),
        ("name of a terabyte", gnu_name(1 << 40), &["extension header"]),
        (
            "truncated",
            Layer::default().file("f", &[1; 4096]).tar()[..2000].to_vec(),
            &["\"f\"", "end of file"],
        ),
        (
            "bad checksum",
            {
                let mut tar = Layer::default().file("first", b"").file("second", b"").tar();
                tar[600] ^= 1;
                tar
            },
            &["after \"first\"", "checksum"],
        ),
        (
            "bad pax",
            Layer::default()
                .raw("p", EntryType::XHeader, b"99 path=x\n", |_| {})
                .file("f", b"")
                .tar(),
            &["\"p\"", "PAX"],
        ),
        (
            "sparse map outside the file",
            Layer::default()
                .pax(&[
                    ("GNU.sparse.size", b"10"),
                    ("GNU.sparse.map", b"8,4"),
                    ("GNU.sparse.name", b"s"),
                ])
                .file("x", b"abcd")
                .tar(),
            &["\"s\"", "sparse map"],
        ),
        ("no archive", vec![7; 2048], &["checksum"]),
    ];
    for (case, tar, wants) in cases {
        let fixture = Fixture::new(Limits::default());
        let error = fixture.import(vec![tar]).await.err();
        let error = error.unwrap_or_else(|| panic!("{case}: not refused"));
        for want in wants {
            assert!(error.contains(want), "{case}: {error:?}");
        }
        assert_clean(&fixture, case).await;
    }
}

#[tokio::test]
async fn limits_count_what_really_comes() {
    let limits = Limits {
        layer_bytes: 1000,
        layer_entries: 3,
        trailing_bytes: 4096,
        ..Limits::default()
    };
    let files = |count: usize, size: usize| {
        (0..count)
            .fold(Layer::default(), |layer, at| {
                layer.file(&format!("f{at}"), &vec![1; size])
            })
            .tar()
    };
    let cases = [
        (files(2, 600), "\"f1\""),
        (files(4, 1), "\"f3\""),
        ([files(1, 1), vec![0; 10_000]].concat(), "follow the end"),
    ];
    for (tar, want) in cases {
        let fixture = Fixture::new(limits.clone());
        let error = fixture.import(vec![tar]).await.unwrap_err();
        assert!(error.contains(want), "{error:?}");
        assert_clean(&fixture, want).await;
    }
    let fixture = Fixture::new(Limits {
        archive_bytes: 4096,
        ..Limits::default()
    });
    let error = fixture.import(vec![files(1, 100_000)]).await.unwrap_err();
    assert!(error.contains("more than 4096 bytes"), "{error:?}");
    // A bomb: 32 MB of zeros in 32 KB.
    let fixture = Fixture::new(Limits {
        layer_bytes: 1 << 20,
        ..Limits::default()
    });
    let bomb = Layer::default().file("zeros", &vec![0; 32 << 20]).tar();
    let built = image(&[(bomb, Compression::Gzip)], json!({}));
    let archive = built.archive(None);
    let error = told(&fixture.store.import(archive.as_slice(), None).await.unwrap_err());
    assert!(error.contains("\"zeros\""), "{error:?}");
    assert_clean(&fixture, "bomb").await;
}

async fn assert_clean(fixture: &Fixture, case: &str) {
    fixture.store.flush().await;
    assert_eq!(names(fixture.store.layer_store()), [""; 0], "{case}");
    assert_eq!(
        names(&fixture.directory.path().join("images/tmp")),
        [""; 0],
        "{case}"
    );
    assert_eq!(names(fixture.directory.path()), ["images"], "{case}");
    assert!(fixture.store.list().is_empty(), "{case}");
}

/// Archives damaged in every way: an error or an image, never a panic, never a file outside.
#[tokio::test]
async fn damaged_archives_do_no_harm() {
    let fixture = Fixture::new(Limits::default());
    let victim = fixture.directory.path().join("victim");
    std::fs::write(&victim, b"safe").unwrap();
    let valid = Layer::default()
        .directory("d/", 0o755)
        .symlink("d/out", fixture.directory.path().to_str().unwrap())
        .pax(&[
            ("path", b"d/out/victim"),
            ("SCHILY.xattr.user.a", b"b"),
            ("size", b"5"),
        ])
        .file("x", b"hello")
        .link("d/l", "d/out")
        .file("d/.wh.gone", b"")
        .tar();
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut taken = 0;
    for _ in 0..400 {
        let mut tar = valid.clone();
        for _ in 0..=random(3) {
            let (at, value) = (random(tar.len()), random(256));
            tar[at] = u8::try_from(value).unwrap();
        }
        for header in [0, 512, 1024, 2560] {
            let Some(block) = tar.get_mut(header..header + 512) else {
                continue;
            };
            let mut fixed = tar::Header::from_byte_slice(block).clone();
            fixed.set_cksum();
            block.copy_from_slice(fixed.as_bytes());
        }
        if random(4) == 0 {
            tar.truncate(random(tar.len()));
        }
        taken += usize::from(fixture.import(vec![tar]).await.is_ok());
        assert_eq!(std::fs::read(&victim).unwrap(), b"safe");
    }
    assert!(
        taken > 20,
        "{taken}: the damage goes deeper than the first header"
    );
    assert_eq!(names(fixture.directory.path()), ["images", "victim"]);
}

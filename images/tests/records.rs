//! The record file: whatever is in it, the store opens, lists only images that are whole, and takes new ones.

mod support;

use std::os::fd::AsFd as _;
use std::path::Path;

use coracle_images::{Options, Store};
use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;
use support::{Built, Compression, Layer, image, names};

const FILE: &str = "images.records";

fn open(directory: &Path) -> Store {
    Store::open(directory, Options::default(), &[]).unwrap()
}

fn built(name: &str) -> Built {
    let below = Layer::default().file("etc/below", b"shared").tar();
    let own = Layer::default().file("etc/own", name.as_bytes()).tar();
    image(
        &[(below, Compression::Gzip), (own, Compression::Gzip)],
        json!({"Cmd": [name]}),
    )
}

/// Three images in a store, and the bytes of its record file.
async fn three_images(directory: &Path) -> Vec<u8> {
    let store = open(directory);
    for name in ["a", "b", "c"] {
        let archive = built(name).archive(Some(&format!("reg.io/{name}:1")));
        store.import(archive.as_slice(), None).await.unwrap();
    }
    store.close().await;
    std::fs::read(directory.join(FILE)).unwrap()
}

/// Opens the store over a damaged file. Gives how many images are still there; each of them must be whole.
async fn survivors(directory: &Path, damaged: &[u8], case: &str) -> usize {
    std::fs::write(directory.join(FILE), damaged).unwrap();
    let store = open(directory);
    let images = store.list();
    for image in &images {
        let own = store.read_file(image, "etc/own").unwrap().unwrap();
        assert_eq!(String::from_utf8(own).unwrap(), image.cmd()[0], "{case}");
        assert!(store.read_file(image, "etc/below").unwrap().is_some(), "{case}");
    }
    store.flush().await;
    let layers = names(store.layer_store()).len();
    assert!(layers <= 4, "{case}: {layers} layers");
    store.close().await;
    images.len()
}

/// Each case in a store of its own; afterwards it takes an image as if nothing had been.
async fn each_damage(cases: impl Iterator<Item = (String, Vec<u8>)>, mut check: impl FnMut(&str, usize)) {
    for (case, damaged) in cases {
        let directory = tempfile::tempdir().unwrap();
        three_images(directory.path()).await;
        check(&case, survivors(directory.path(), &damaged, &case).await);
        let store = open(directory.path());
        let again = built("a").archive(Some("reg.io/a:1"));
        store.import(again.as_slice(), None).await.unwrap();
        store.close().await;
        assert!(open(directory.path()).get("reg.io/a:1").is_some(), "{case}");
    }
}

async fn sample() -> Vec<u8> {
    three_images(tempfile::tempdir().unwrap().path()).await
}

#[tokio::test]
async fn a_truncated_file_loses_what_is_cut_off() {
    let whole = sample().await;
    let cases = (0..whole.len())
        .step_by(61)
        .map(|at| (format!("cut at {at}"), whole[..at].to_vec()));
    each_damage(cases, |case, left| assert!(left <= 3, "{case}")).await;
}

#[tokio::test]
async fn a_damaged_byte_loses_what_its_line_says() {
    let whole = sample().await;
    let start = "coracle-images 1\n".len();
    let end = whole.len() - "0123456789abcdef {'end':{'records':7}}\n".len();
    let cases = (start..end).step_by(67).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x11;
        (format!("byte {at}"), bytes)
    });
    each_damage(cases, |case, left| assert!(left < 3, "{case}: {left}")).await;
}

#[tokio::test]
async fn random_bytes_and_strange_files_lose_the_images() {
    let whole = sample().await;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = move |length: usize| -> Vec<u8> {
        let mut byte = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[3]
        };
        (0..length).map(|_| byte()).collect()
    };
    let mut cases = vec![
        ("empty".to_owned(), Vec::new()),
        ("zeros".to_owned(), vec![0; whole.len()]),
        ("newlines".to_owned(), vec![b'\n'; 5000]),
        ("newer".to_owned(), b"coracle-images 2\n".to_vec()),
        ("noise".to_owned(), noise(20_000)),
    ];
    for at in (0..whole.len() - 60).step_by(300) {
        let mut bytes = whole.clone();
        let end = (at + 120).min(bytes.len());
        bytes.splice(at..end, noise(end - at));
        cases.push((format!("noise at {at}"), bytes));
    }
    each_damage(cases.into_iter(), |case, left| {
        assert!(left < 3, "{case}: {left}");
    })
    .await;
}

#[tokio::test]
async fn a_damaged_configuration_loses_its_image() {
    let directory = tempfile::tempdir().unwrap();
    three_images(directory.path()).await;
    let configs = directory.path().join("configs");
    let one = configs.join(&names(&configs)[0]);
    std::fs::write(&one, b"{}").unwrap();
    let store = open(directory.path());
    assert_eq!(store.list().len(), 2);
    assert!(!one.exists());
}

#[tokio::test]
async fn layers_without_a_record_stay_for_their_container() {
    let directory = tempfile::tempdir().unwrap();
    three_images(directory.path()).await;
    let store = open(directory.path());
    let image = store.get("reg.io/a:1").unwrap();
    let lower = store.hold("c", &image).unwrap();
    store.close().await;
    std::fs::write(directory.path().join(FILE), b"lost").unwrap();
    let in_use = [("c".to_owned(), lower)];
    let store = Store::open(directory.path(), Options::default(), &in_use).unwrap();
    store.flush().await;
    assert!(store.list().is_empty());
    assert_eq!(names(store.layer_store()).len(), 2);
    store.release("c");
    store.flush().await;
    assert_eq!(names(store.layer_store()), [""; 0]);
}

#[tokio::test]
async fn a_directory_of_any_depth_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).close().await;
    let stranger = directory.path().join("layers/7");
    std::fs::create_dir(&stranger).unwrap();
    let mut at = rustix::fs::openat(CWD, &stranger, OFlags::RDONLY, Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(at.as_fd(), "directory", Mode::RWXU).unwrap();
        at = rustix::fs::openat(at.as_fd(), "directory", OFlags::RDONLY, Mode::empty()).unwrap();
    }
    let store = open(directory.path());
    store.flush().await;
    assert_eq!(names(store.layer_store()), [""; 0]);
}

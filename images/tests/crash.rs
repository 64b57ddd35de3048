//! kill -9 at any moment: what is found afterwards is complete, and nothing else is there.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_images::{Options, Reference, Store};
use serde_json::json;
use support::http::{Server, registry_of};
use support::{Compression, Layer, image, names};

const ROOT: &str = "CORACLE_TEST_CRASH_ROOT";
const NAME: &str = "CORACLE_TEST_CRASH_NAME";

/// Not a test by itself: the process that is killed, started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_pulls_and_removes_until_it_is_killed() {
    let (Ok(root), Ok(name)) = (std::env::var(ROOT), std::env::var(NAME)) else {
        return;
    };
    let store = Store::open(Path::new(&root), Options::default(), &[]).unwrap();
    let reference = Reference::parse(&name).unwrap();
    loop {
        store
            .pull(&reference, None, Path::new("/nonexistent"))
            .await
            .unwrap();
        store.remove(&name).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_was_killed_at_any_moment_opens_clean() {
    let layers: Vec<_> = (0..6)
        .map(|at| {
            let files = (0..40).fold(Layer::default().directory("d/", 0o755), |layer, file| {
                layer.file(&format!("d/{at}-{file}"), &vec![7; 3000])
            });
            (files.tar(), [Compression::Gzip, Compression::Zstd][at % 2])
        })
        .collect();
    let built = image(&layers, json!({}));
    let blobs = built.blobs.clone();
    let data = support::Built {
        blobs,
        config: built.config.clone(),
        manifest: built.manifest.clone(),
        layers: vec![],
    };
    let server = Server::start(move |request| registry_of(&data, request));
    let name = format!("{}/app", server.address);
    let directory = tempfile::tempdir().unwrap();
    let (mut with_image, mut without) = (0, 0);
    for round in 0..30_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_pulls_and_removes_until_it_is_killed",
                "--test-threads=1",
            ])
            .env(ROOT, directory.path())
            .env(NAME, &name)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some time after it has begun, each round another.
        std::thread::sleep(Duration::from_millis(30 + (round * 7919) % 97));
        child.kill().unwrap();
        child.wait().unwrap();

        // Every other time the machine "went down" too: then only what had reached the disk is believed.
        let mut options = Options::default();
        if round % 2 == 1 {
            options.boot_id = "the next boot".to_owned();
        }
        let store = Store::open(directory.path(), options, &[]).unwrap();
        store.flush().await;
        let directories = names(store.layer_store());
        match store.list().as_slice() {
            [] => {
                without += 1;
                assert_eq!(directories, [""; 0], "round {round}");
            }
            [image] => {
                with_image += 1;
                assert_eq!(
                    (directories.len(), &image.id),
                    (6, &built.config),
                    "round {round}"
                );
                for (at, number) in image.layers.iter().enumerate() {
                    let files = names(&store.layer_store().join(number.to_string()).join("d"));
                    assert_eq!(files.len(), 40, "round {round}, layer {at}");
                }
            }
            _ => panic!("round {round}: more than one image"),
        }
        assert_eq!(names(&directory.path().join("tmp")), [""; 0], "round {round}");
        store.close().await;
    }
    println!("killed with the image there: {with_image}, without: {without}");
    assert!(with_image > 0 || without > 0);
}

//! Images that are odd in form and run everywhere: each is taken, with the value that is right.

mod support;

use std::sync::Arc;

use coracle_images::{Image, ImageUser, Options, Platform, Reference, Store};
use serde_json::{Value, json};
use support::http::{Answer, Server, registry_of};
use support::{Built, Compression, Layer, compress, digest, image, told};

struct Fixture {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            platform: Platform {
                os: "linux".to_owned(),
                architecture: "amd64".to_owned(),
                variant: "v2".to_owned(),
            },
            ..Options::default()
        };
        let store = Store::open(directory.path(), options, &[]).unwrap();
        Self {
            _directory: directory,
            store,
        }
    }

    /// From a registry and from an archive; both must give the same.
    async fn take(&self, built: &Built) -> Result<Arc<Image>, String> {
        let archive = built.archive(Some("reg.io/app:1"));
        let imported = self.store.import(archive.as_slice(), None).await;
        let imported = imported.map_err(|error| told(&error))?.remove(0);
        self.store.remove(&imported.id).await.unwrap();
        let pulled = self.pull(built).await?;
        assert_eq!(imported.config, pulled.config);
        Ok(pulled)
    }

    async fn pull(&self, built: &Built) -> Result<Arc<Image>, String> {
        self.pull_with(built, "").await
    }

    /// With this in the file for every registry.
    async fn pull_with(&self, built: &Built, hosts: &str) -> Result<Arc<Image>, String> {
        let (blobs, config, manifest) = (built.blobs.clone(), built.config.clone(), built.manifest.clone());
        let served = Built {
            blobs,
            config,
            manifest,
            layers: built.layers.clone(),
        };
        let server = Server::start(move |request| registry_of(&served, request));
        let reference = Reference::parse(&format!("{}/app", server.address)).unwrap();
        let certs = tempfile::tempdir().unwrap();
        std::fs::create_dir(certs.path().join("_default")).unwrap();
        std::fs::write(certs.path().join("_default/hosts.toml"), hosts).unwrap();
        let pulled = self.store.pull(&reference, None, certs.path()).await;
        pulled.map_err(|error| told(&error))
    }
}

fn layer() -> Vec<u8> {
    Layer::default().file("name", b"here").tar()
}

/// An image of one layer whose configuration and manifest the caller changes.
fn odd(change_config: impl FnOnce(&mut Value), change_manifest: impl FnOnce(&mut Value)) -> Built {
    let mut built = image(&[(layer(), Compression::Gzip)], json!({"Cmd": ["run"]}));
    let mut config: Value = serde_json::from_slice(&built.blobs[&built.config]).unwrap();
    change_config(&mut config);
    let config = serde_json::to_vec(&config).unwrap();
    let mut manifest: Value = serde_json::from_slice(&built.blobs[&built.manifest]).unwrap();
    manifest["config"]["digest"] = json!(digest(&config));
    manifest["config"]["size"] = json!(config.len());
    change_manifest(&mut manifest);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    built.config = digest(&config);
    built.manifest = digest(&manifest);
    built.blobs.insert(built.config.clone(), config);
    built.blobs.insert(built.manifest.clone(), manifest);
    built
}

fn remove(key: &'static str) -> impl FnOnce(&mut Value) {
    move |value| drop(value.as_object_mut().unwrap().remove(key))
}

fn set(path: &'static str, to: Value) -> impl FnOnce(&mut Value) {
    move |value| {
        let (parent, key) = path.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[key] = to;
    }
}

fn same(_: &mut Value) {}

#[tokio::test]
async fn configurations_of_odd_form_are_read() {
    let cases = [
        odd(remove("architecture"), same),
        odd(remove("os"), same),
        odd(set("/architecture", Value::Null), same),
        odd(set("/architecture", json!("")), same),
        odd(set("/architecture", json!("x86_64")), same),
        odd(set("/architecture", json!("AMD64")), same),
        odd(set("/os", json!("Linux")), same),
        odd(set("/variant", Value::Null), same),
        odd(
            |config| {
                config["rootfs"].as_object_mut().unwrap().remove("type");
            },
            same,
        ),
        odd(set("/rootfs/type", Value::Null), same),
        odd(set("/created", json!("")), same),
        odd(set("/created", json!(0)), same),
        odd(set("/history", Value::Null), same),
        odd(set("/history", json!([{"empty_layer": null}, 1])), same),
        odd(set("/os.features", Value::Null), same),
        odd(set("/container_config", json!({"Cmd": null})), same),
        odd(set("/config/Healthcheck", json!({"Interval": "5s"})), same),
        odd(set("/config/ExposedPorts", json!(["80"])), same),
        odd(set("/config/Labels", json!({"a": null, "b": 1})), same),
        odd(
            |config| {
                let rootfs = config.as_object_mut().unwrap().remove("rootfs").unwrap();
                config["RootFS"] = rootfs;
            },
            same,
        ),
    ];
    for built in cases {
        let case = String::from_utf8_lossy(&built.blobs[&built.config]).into_owned();
        let fixture = Fixture::new();
        let taken = fixture
            .take(&built)
            .await
            .unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(taken.cmd(), ["run"], "{case}");
        let name = fixture.store.read_file(&taken, "name").unwrap();
        assert_eq!(name.unwrap(), b"here", "{case}");
    }
}

#[tokio::test]
async fn each_field_of_odd_form_has_the_value_that_is_right() {
    let take = async |change: &dyn Fn(&mut Value)| {
        let built = odd(|config| change(&mut config["config"]), same);
        Fixture::new().take(&built).await.unwrap()
    };
    let read = take(&|config| config["Volumes"] = json!({"/data": null, "/b": {"x": 1}})).await;
    assert_eq!(read.volumes(), ["/b", "/data"]);
    let read = take(&|config| config["Volumes"] = json!(["/data"])).await;
    assert_eq!(read.volumes(), ["/data"]);
    let read = take(&|config| config["Env"] = json!(["FOO", "A=b", null, "=x"])).await;
    assert_eq!(read.env(), ["FOO", "A=b", "=x"]);
    let read = take(&|config| config["User"] = json!(1000)).await;
    assert_eq!(read.user_spec(), ImageUser::Uid(1000));
    let read = take(&|config| config["StopSignal"] = json!(15)).await;
    assert_eq!(read.stop_signal(), Some("15"));
    let read = take(&|config| config["Entrypoint"] = json!("/bin/app")).await;
    assert_eq!(read.entrypoint(), ["/bin/app"]);
    let read = take(&|config| config["WorkingDir"] = Value::Null).await;
    assert_eq!(read.working_dir(), "");
    let read = take(&|config| *config = json!({"cmd": ["run"], "workingdir": "/w"})).await;
    assert_eq!((read.cmd()[0].as_str(), read.working_dir()), ("run", "/w"));
    let read = take(&|config| *config = Value::Null).await;
    assert!(read.cmd().is_empty() && read.env().is_empty());
}

#[tokio::test]
async fn manifests_of_odd_form_are_read() {
    let cases = [
        odd(same, remove("schemaVersion")),
        odd(same, set("/schemaVersion", json!("2"))),
        odd(same, remove("mediaType")),
        odd(same, set("/mediaType", Value::Null)),
        odd(same, set("/annotations", Value::Null)),
        odd(same, set("/annotations", json!({"a": 1}))),
        odd(same, set("/manifests", Value::Null)),
        odd(same, set("/config/mediaType", Value::Null)),
        odd(same, set("/config/platform", json!({}))),
        odd(same, set("/layers/0/annotations", Value::Null)),
        odd(same, set("/layers/0/urls", Value::Null)),
        odd(same, set("/layers/0/size", Value::Null)),
        odd(same, set("/layers/0/size", json!(0))),
        odd(same, set("/layers/0/size", json!(-1))),
        odd(same, set("/config/size", json!(0))),
    ];
    for built in cases {
        let case = String::from_utf8_lossy(&built.blobs[&built.manifest]).into_owned();
        let taken = Fixture::new().take(&built).await;
        assert_eq!(taken.unwrap_or_else(|e| panic!("{case}: {e}")).cmd(), ["run"]);
    }
    for none in [json!(null), json!([])] {
        let without = |value: &mut Value| value["rootfs"]["diff_ids"] = none.clone();
        let built = odd(without, |manifest| manifest["layers"] = none.clone());
        let taken = Fixture::new().take(&built).await.unwrap();
        assert!(taken.layers.is_empty());
    }
}

#[tokio::test]
async fn layers_that_need_not_be_in_a_registry_are_asked_of_it_first() {
    let tar = layer();
    let zipped = compress(&tar, Compression::Gzip);
    let elsewhere = Server::start(move |request| {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        assert_eq!(request.path, "/files/layer?x=y");
        Answer::ok(&zipped)
    });
    let url = format!("http://{}/files/layer?x=y", elsewhere.address);
    let foreign = [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ];
    for media_type in foreign {
        let make = || {
            odd(same, |manifest| {
                manifest["layers"][0]["mediaType"] = json!(media_type);
                manifest["layers"][0]["urls"] = json!(["ftp://x/", "no url", url]);
            })
        };
        Fixture::new().pull(&make()).await.unwrap();
        assert!(elsewhere.paths().is_empty());
        let mut without = make();
        without.blobs.remove(&without.layers[0]);
        let error = Fixture::new().pull(&without).await.unwrap_err();
        assert!(error.contains("404"), "{error}");
        assert!(elsewhere.paths().is_empty());
        let fixture = Fixture::new();
        let pulled = fixture.pull_with(&without, "layer_urls = true\n").await.unwrap();
        assert_eq!(pulled.layers.len(), 1);
        assert_eq!(elsewhere.paths().len(), 1);
        elsewhere.requests.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn what_matters_is_still_refused() {
    let cases = [
        (odd(set("/architecture", json!("s390x")), same), "s390x"),
        (odd(set("/os", json!("windows")), same), "windows"),
        (odd(set("/rootfs/diff_ids", json!(["md5:00"])), same), "md5"),
        (odd(set("/rootfs/diff_ids", json!([])), same), "0"),
        (odd(same, set("/manifests", json!([]))), "both"),
        (odd(same, set("/layers/0/size", json!(7))), "7"),
    ];
    for (built, want) in cases {
        let error = Fixture::new().pull(&built).await.unwrap_err();
        assert!(error.contains(want), "{want}: {error}");
    }
}

#[tokio::test]
async fn a_neighbour_in_an_index_spoils_nothing() {
    let good = odd(same, same);
    let blob = &good.blobs[&good.manifest];
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let entry = json!({
        "mediaType": manifest, "digest": good.manifest, "size": blob.len(),
        "platform": {"os": "linux", "architecture": "amd64"},
    });
    let other = digest(b"other");
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let neighbours = [
        json!({"mediaType": manifest, "digest": other, "size": 5, "platform": {}}),
        json!({"mediaType": manifest, "digest": other, "size": 5, "platform": null}),
        json!({"mediaType": manifest, "digest": other, "size": 5,
            "platform": {"os": "linux", "architecture": "arm64", "variant": null}}),
        json!({"mediaType": manifest, "digest": "blake3:0011", "size": 5, "platform": platform}),
        json!({"mediaType": manifest, "digest": "", "size": 5, "platform": platform}),
        json!({"mediaType": manifest, "digest": other, "platform": {"os": "windows", "architecture": "amd64"}}),
        json!({"mediaType": manifest, "digest": other, "size": -1, "platform": {"os": "unknown"}}),
        json!({"mediaType": "application/vnd.example+json", "digest": other, "size": 5, "platform": platform}),
        json!({"mediaType": manifest, "digest": other, "size": 5, "platform": {"os": 1, "architecture": []}}),
        json!({"mediaType": manifest, "digest": other, "size": 5,
            "platform": {"os": "linux", "architecture": "amd64", "variant": "v9"}}),
        json!("strange"),
        json!(null),
        json!({}),
    ];
    for neighbour in neighbours {
        for entries in [json!([neighbour, entry]), json!([entry, neighbour])] {
            let index = json!({"schemaVersion": 2, "manifests": entries});
            let mut built = odd(same, same);
            let index = serde_json::to_vec(&index).unwrap();
            built.manifest = digest(&index);
            built.blobs.insert(built.manifest.clone(), index);
            let pulled = Fixture::new().pull(&built).await;
            assert_eq!(pulled.unwrap_or_else(|e| panic!("{entries}: {e}")).cmd(), ["run"]);
        }
    }
}

#[tokio::test]
async fn the_entry_of_an_index_may_be_odd_itself() {
    let good = odd(same, same);
    let entries = [
        json!({"digest": good.manifest, "platform": {"os": "Linux", "architecture": "x86_64"}}),
        json!({"digest": good.manifest, "size": null, "platform": {"os": "linux", "architecture": "amd64", "variant": null}}),
        json!({"digest": good.manifest, "size": 0, "mediaType": null, "platform": null}),
        json!({"Digest": good.manifest, "platform": {}}),
    ];
    for entry in entries {
        let index = serde_json::to_vec(&json!({"manifests": [entry]})).unwrap();
        let mut built = odd(same, same);
        built.manifest = digest(&index);
        built.blobs.insert(built.manifest.clone(), index);
        let pulled = Fixture::new().pull(&built).await;
        assert_eq!(pulled.unwrap_or_else(|e| panic!("{entry}: {e}")).cmd(), ["run"]);
    }
}

//! The real critest, the conformance suite of CRI, finds nothing wrong with the daemon.

use std::time::Duration;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{ImageSpec, ListImagesRequest, RemoveImageRequest};
use coracle_integration::critest::{Critest, Outcome, Report};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::node;
use coracle_integration::registry::Registry;

/// What is not run: words that stand in the specs' names, how many specs they name, and why.
///
/// It is of the suite's version 1.37.0, whose specs on image volumes, NRI and metrics are new. The list may only become
/// shorter: a spec that skips itself and is not named here fails the test, and so does an entry that names more or fewer
/// specs than it says.
const SKIPPED: &[(&str, usize, &str)] = &[
    (
        "benchmark about",
        5,
        "measures, checks nothing; `make bench` compares instead",
    ),
    (
        "[k8s.io] AppArmor",
        9,
        "the daemon refuses AppArmor profiles by name; many kernels have no AppArmor anyway",
    ),
    (
        "[k8s.io] Streaming",
        5,
        "Exec, Attach and PortForward answer UNIMPLEMENTED",
    ),
    (
        "Security Context UserNamespaces",
        6,
        "Status does not claim user namespaces for pods; a request for one is refused by name",
    ),
    (
        "[k8s.io] Image Volume",
        5,
        "a mount of an image is refused by name",
    ),
    ("[k8s.io] NRI", 13, "there is no NRI socket yet"),
    (
        "runtime should support metrics operations",
        2,
        "ListMetricDescriptors and ListPodSandboxMetrics answer UNIMPLEMENTED",
    ),
];

#[test]
fn critest_finds_nothing_wrong() {
    node::run_for("critest", Duration::from_secs(600), |node| {
        let registry = Registry::start(node);
        let critest = Critest::prepare(node, &registry);
        let daemon = Daemon::start(node);
        registry.mirror(&daemon.registry_configuration(), "_default");
        let before = Snapshot::take_with_files(node, &daemon, &[&daemon.root().join("images")]);

        let skipped: Vec<&str> = SKIPPED.iter().map(|(name, ..)| *name).collect();
        let report = critest.run(&daemon.socket(), &skipped);
        println!("{report}");
        let wrong = faults(&report);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));

        remove_images(&daemon.cri());
        daemon.uninstall_network();
        before.assert_nothing_left(node);
    });
}

/// critest leaves the images of its pods; without them the daemon has what it began with.
fn remove_images(cri: &Cri) {
    for image in cri.list_images(ListImagesRequest::default()).unwrap().images {
        let spec = ImageSpec {
            image: image.id,
            ..ImageSpec::default()
        };
        cri.remove_image(RemoveImageRequest { image: Some(spec) })
            .unwrap();
    }
}

/// Every spec passed or is named in [`SKIPPED`], and that names what it says.
fn faults(report: &Report) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut named = vec![0; SKIPPED.len()];
    for spec in report.specs() {
        let entry = SKIPPED.iter().position(|(name, ..)| spec.name.contains(name));
        if let Some(entry) = entry {
            named[entry] += 1;
        }
        match (&spec.outcome, entry) {
            (Outcome::Passed, None) | (Outcome::Skipped, Some(_)) => {}
            (Outcome::Skipped, None) => wrong.push(format!("skipped itself: {}", spec.name)),
            (Outcome::Passed | Outcome::Failed(_), Some(_)) => {
                wrong.push(format!("ran, though it is to be skipped: {}", spec.name));
            }
            (Outcome::Failed(_), None) => wrong.push(format!("failed: {}", spec.name)),
        }
    }
    for ((name, count, _), found) in SKIPPED.iter().zip(named) {
        if found != *count {
            wrong.push(format!("{name:?} names {found} specs, not {count}"));
        }
    }
    wrong
}

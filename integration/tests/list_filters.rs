//! Lists through their filters: by id or its beginning, by state, by label, by pod.

use std::collections::HashMap;

use coracle_integration::cri::Cri;
use coracle_integration::cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest, ListPodSandboxRequest,
    PodSandboxFilter, PodSandboxState, PodSandboxStateValue, StopContainerRequest, StopPodSandboxRequest,
};
use coracle_integration::daemon::Daemon;
use coracle_integration::leak::Snapshot;
use coracle_integration::{node, pods};

#[test]
fn lists_keep_what_the_filter_names() {
    node::run("list-filters", |node| {
        let daemon = Daemon::start(node);
        daemon.import_payload();
        let before = Snapshot::take_with_daemon(node, &daemon);
        let cri = daemon.cri();
        let mut configs = ["one", "two"].map(|name| pods::host_network_sandbox(name, &node.folder("logs")));
        for (config, tier) in configs.iter_mut().zip(["front", "back"]) {
            config.labels = labels(tier);
        }
        let [one, two] = configs.each_ref().map(|config| cri.run(config));
        let [first, second] = ["front", "back"].map(|tier| {
            let mut container = pods::container(tier, &["sleep", "1000"]);
            container.labels = labels(tier);
            cri.launch(&one, &configs[0], &container)
        });
        sandboxes_are_filtered(&cri, &one, &two);
        containers_are_filtered(&cri, [&one, &two], [&first, &second]);
        for pod in [one, two] {
            cri.discard(&pod);
        }
        before.assert_nothing_left(node);
    });
}

fn sandboxes_are_filtered(cri: &Cri, one: &str, two: &str) {
    let list = |filter| {
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let found = cri.list_pod_sandbox(request).unwrap().items;
        sorted(found.into_iter().map(|pod| pod.id))
    };
    let in_state = |state: PodSandboxState| PodSandboxFilter {
        state: Some(PodSandboxStateValue { state: state.into() }),
        ..Default::default()
    };
    let by_id = |id: &str| PodSandboxFilter {
        id: id.to_owned(),
        ..Default::default()
    };
    let by_label = |tier: &str| PodSandboxFilter {
        label_selector: labels(tier),
        ..Default::default()
    };
    assert_eq!(list(PodSandboxFilter::default()), sorted([one, two]));
    assert_eq!(list(by_id(one)), [one]);
    assert_eq!(list(by_id(&two[..13])), [two]);
    assert_eq!(list(by_id("absent")), [""; 0]);
    assert_eq!(list(by_label("front")), [one]);
    assert_eq!(list(by_label("neither")), [""; 0]);
    let stop = StopPodSandboxRequest {
        pod_sandbox_id: two.to_owned(),
    };
    cri.stop_pod_sandbox(stop).unwrap();
    assert_eq!(list(in_state(PodSandboxState::SandboxReady)), [one]);
    assert_eq!(list(in_state(PodSandboxState::SandboxNotready)), [two]);
    let both = PodSandboxFilter {
        label_selector: labels("front"),
        ..in_state(PodSandboxState::SandboxNotready)
    };
    assert_eq!(list(both), [""; 0]);
}

fn containers_are_filtered(cri: &Cri, [one, two]: [&str; 2], [first, second]: [&str; 2]) {
    let list = |filter| {
        let request = ListContainersRequest { filter: Some(filter) };
        let found = cri.list_containers(request).unwrap().containers;
        sorted(found.into_iter().map(|container| container.id))
    };
    let in_state = |state: ContainerState| ContainerFilter {
        state: Some(ContainerStateValue { state: state.into() }),
        ..Default::default()
    };
    let of_pod = |pod: &str| ContainerFilter {
        pod_sandbox_id: pod.to_owned(),
        ..Default::default()
    };
    let by_label = |tier: &str| ContainerFilter {
        label_selector: labels(tier),
        ..Default::default()
    };
    let by_id = |id: &str| ContainerFilter {
        id: id.to_owned(),
        ..Default::default()
    };
    assert_eq!(list(of_pod(one)), sorted([first, second]));
    assert_eq!(list(of_pod(two)), [""; 0]);
    assert_eq!(list(by_label("back")), [second]);
    assert_eq!(list(by_id(&first[..13])), [first]);
    let stop = StopContainerRequest {
        container_id: second.to_owned(),
        timeout: 0,
    };
    cri.stop_container(stop).unwrap();
    assert_eq!(list(in_state(ContainerState::ContainerRunning)), [first]);
    assert_eq!(list(in_state(ContainerState::ContainerExited)), [second]);
}

fn labels(tier: &str) -> HashMap<String, String> {
    HashMap::from([("tier".to_owned(), tier.to_owned())])
}

fn sorted(ids: impl IntoIterator<Item = impl Into<String>>) -> Vec<String> {
    let mut ids: Vec<String> = ids.into_iter().map(Into::into).collect();
    ids.sort();
    ids
}

//! Manifest in, CRI requests out.

use coracle_cri_api::runtime_v1::{ContainerConfig, NamespaceMode, security_profile::ProfileType};

use super::*;
use crate::manifest::{HostPathType, parse};

fn host() -> Host {
    Host {
        name: "node".to_owned(),
        resolv_conf: "nameserver 10.0.0.1\nsearch example.org\noptions ndots:1\n".to_owned(),
        memory: 1 << 30,
    }
}

fn planned(spec: &str) -> PodPlan {
    let text =
        format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  labels: {{app: web}}\nspec:\n{spec}");
    plan(
        &parse(&text).unwrap()[0],
        &host(),
        Place::new("/data".as_ref(), "u"),
    )
}

fn facts() -> Facts {
    Facts {
        attempt: 2,
        pod_ips: vec!["10.1.0.2".to_owned(), "fd00::2".to_owned()],
        image_ref: "sha256:1".to_owned(),
        image_user: ImageUser::Id(0),
    }
}

fn config(fields: &str) -> ContainerConfig {
    let plan = planned(&format!("  containers: [{{name: c, image: i:1{fields}}}]\n"));
    plan.main[0].config(&facts()).unwrap()
}

#[test]
fn a_sandbox_has_the_names_ports_and_namespaces_of_the_pod() {
    let plan = planned(
        "  hostPID: true\n  containers:\n  - {name: c, image: i, ports: [{containerPort: 80}, {containerPort: 81, hostPort: \
         8081, hostIP: 127.0.0.1}]}\n",
    );
    let sandbox = plan.sandbox;
    assert_eq!(sandbox.hostname, "p");
    assert_eq!(sandbox.log_directory, "/data/u/logs");
    assert_eq!(sandbox.labels["app"], "web");
    assert_eq!(sandbox.labels["io.kubernetes.pod.uid"], "u");
    assert_eq!(sandbox.annotations[GRACE_ANNOTATION], "30");
    assert_eq!(sandbox.port_mappings.len(), 1);
    assert_eq!(
        (
            sandbox.port_mappings[0].container_port,
            sandbox.port_mappings[0].host_port
        ),
        (81, 8081)
    );
    let options = sandbox
        .linux
        .unwrap()
        .security_context
        .unwrap()
        .namespace_options
        .unwrap();
    assert_eq!(options.pid(), NamespaceMode::Node);
    assert_eq!(options.network(), NamespaceMode::Pod);
    let dns = sandbox.dns_config.unwrap();
    assert_eq!(
        (dns.servers, dns.searches, dns.options),
        (
            vec!["10.0.0.1".to_owned()],
            vec!["example.org".to_owned()],
            vec!["ndots:1".to_owned()]
        )
    );
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_name_and_no_mapping() {
    let plan = planned(
        "  hostNetwork: true\n  containers: [{name: c, image: i, ports: [{containerPort: 80, hostPort: 80}]}]\n",
    );
    assert_eq!(plan.sandbox.hostname, "node");
    assert!(plan.sandbox.port_mappings.is_empty());
}

#[test]
fn dns_config_adds_to_the_host_or_stands_alone() {
    let add = "  dnsConfig: {nameservers: [10.0.0.1, 10.0.0.2], searches: [a.b], options: [{name: ndots, value: '5'}]}\n  containers: [{name: c, image: i}]\n";
    let dns = planned(add).sandbox.dns_config.unwrap();
    assert_eq!(dns.servers, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(dns.searches, ["example.org", "a.b"]);
    assert_eq!(dns.options, ["ndots:5"]);
    let alone = planned(&format!("  dnsPolicy: None\n{add}"))
        .sandbox
        .dns_config
        .unwrap();
    assert_eq!(alone.searches, ["a.b"]);
}

#[test]
fn the_environment_is_expanded_in_order_and_used_in_the_command() {
    let config = config(
        ", command: [/x, $(A)], args: [$(IP), $(L), $(NO)], env: [{name: A, value: a}, {name: B, value: '$(A)$(C)'}, {name: C, \
         value: c}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: L, valueFrom: {fieldRef: \
         {fieldPath: 'metadata.labels[''app'']'}}}]",
    );
    assert_eq!(config.command, ["/x", "a"]);
    assert_eq!(config.args, ["10.1.0.2", "web", "$(NO)"]);
    let env: Vec<_> = config
        .envs
        .iter()
        .map(|e| format!("{}={}", e.key, String::from_utf8_lossy(&e.value)))
        .collect();
    assert_eq!(env, ["A=a", "B=a$(C)", "C=c", "IP=10.1.0.2", "L=web"]);
    assert_eq!(config.log_path, "c/2.log");
    assert_eq!(config.image.unwrap().image, "sha256:1");
}

#[test]
fn resources_are_what_a_kubelet_sends() {
    let resources = |text: &str| {
        config(&format!(", resources: {text}"))
            .linux
            .unwrap()
            .resources
            .unwrap()
    };
    let both = resources("{requests: {cpu: 250m, memory: 512Mi}, limits: {cpu: 1500m, memory: 512Mi}}");
    assert_eq!(
        (both.cpu_shares, both.cpu_quota, both.cpu_period),
        (256, 150_000, 100_000)
    );
    assert_eq!((both.memory_limit_in_bytes, both.oom_score_adj), (512 << 20, 500));
    let none = resources("{}");
    assert_eq!(
        (
            none.cpu_shares,
            none.cpu_quota,
            none.cpu_period,
            none.oom_score_adj
        ),
        (0, 0, 0, 1000)
    );
    let tiny = resources("{limits: {cpu: 1m, memory: 4Mi}}");
    assert_eq!(
        (tiny.cpu_shares, tiny.cpu_quota, tiny.oom_score_adj),
        (2, 1000, -997)
    );
}

#[test]
fn security_comes_from_the_container_then_the_pod() {
    let plan = planned(
        "  securityContext: {runAsUser: 5, runAsGroup: 6, fsGroup: 7, supplementalGroups: [8], seccompProfile: {type: \
         RuntimeDefault}}\n  containers:\n  - {name: a, image: i, securityContext: {runAsUser: 9, allowPrivilegeEscalation: \
         false}}\n  - {name: b, image: i, securityContext: {privileged: true, seccompProfile: {type: Unconfined}}}\n",
    );
    let security = |index: usize| {
        plan.main[index]
            .config(&facts())
            .unwrap()
            .linux
            .unwrap()
            .security_context
            .unwrap()
    };
    let first = security(0);
    assert_eq!(
        (
            first.run_as_user.unwrap().value,
            first.run_as_group.unwrap().value
        ),
        (9, 6)
    );
    assert_eq!(first.supplemental_groups, [8, 7]);
    assert!(first.no_new_privs && first.masked_paths.contains(&"/proc/kcore".to_owned()));
    assert_eq!(first.seccomp.unwrap().profile_type(), ProfileType::RuntimeDefault);
    let second = security(1);
    assert!(second.privileged && second.masked_paths.is_empty() && !second.no_new_privs);
    assert_eq!(second.seccomp.unwrap().profile_type(), ProfileType::Unconfined);
    assert_eq!(plan.fs_group, Some(7));
}

#[test]
fn a_user_must_be_known_not_to_be_root_when_asked() {
    let plan = |security: &str| {
        planned(&format!(
            "  containers: [{{name: c, image: i, securityContext: {{runAsNonRoot: true{security}}}}}]\n"
        ))
    };
    let with = |user: ImageUser| Facts {
        image_user: user,
        ..facts()
    };
    let config = |plan: &PodPlan, user| plan.main[0].config(&with(user));
    assert_eq!(
        config(&plan(""), ImageUser::Id(0)),
        Err(PlanError::Root {
            container: "c".to_owned()
        })
    );
    assert!(matches!(
        config(&plan(""), ImageUser::Name("web".to_owned())),
        Err(PlanError::NamedUser { .. })
    ));
    assert!(config(&plan(""), ImageUser::Id(1)).is_ok());
    assert!(config(&plan(", runAsUser: 1"), ImageUser::Id(0)).is_ok());
    assert!(config(&plan(", runAsUser: 0"), ImageUser::Id(1)).is_err());
}

#[test]
fn volumes_and_sub_paths_have_their_places() {
    let plan = planned(
        "  volumes:\n  - {name: disk, emptyDir: {sizeLimit: 1Mi}}\n  - {name: mem, emptyDir: {medium: Memory}}\n  - {name: host, \
         hostPath: {path: /srv, type: Directory}}\n  containers:\n  - name: c\n    image: i\n    resources: {limits: {memory: \
         64Mi}}\n    volumeMounts:\n    - {name: disk, mountPath: /d}\n    - {name: disk, mountPath: /s, subPath: a/b, \
         readOnly: true}\n    - {name: mem, mountPath: /m}\n    - {name: host, mountPath: /h, mountPropagation: \
         Bidirectional}\n",
    );
    let kinds: Vec<_> = plan.volumes.iter().map(|volume| volume.kind).collect();
    let wanted = [
        VolumeKind::Directory { limit: Some(1 << 20) },
        VolumeKind::Memory { size: Some(64 << 20) },
        VolumeKind::Host(HostPathType::Directory),
    ];
    assert_eq!(kinds, wanted);
    let mounts = plan.main[0].config(&facts()).unwrap().mounts;
    let paths: Vec<_> = mounts
        .iter()
        .map(|mount| (mount.host_path.as_str(), mount.container_path.as_str()))
        .collect();
    let wanted = [
        ("/data/u/volumes/disk", "/d"),
        ("/data/u/sub-paths/c-1", "/s"),
        ("/data/u/volumes/mem", "/m"),
        ("/srv", "/h"),
        ("/data/u/termination/c", "/dev/termination-log"),
    ];
    assert_eq!(paths, wanted);
    assert!(mounts[1].readonly);
    assert_eq!(
        plan.main[0].sub_paths[0].volume.to_str(),
        Some("/data/u/volumes/disk")
    );
}

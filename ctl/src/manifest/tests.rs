//! What is read and, above all, what is refused and how.

use std::time::Duration;

use super::*;
use crate::error::chain;

const HEAD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n";

/// A pod whose `spec` is `spec`, one level in.
fn pod(spec: &str) -> Result<Pod, String> {
    parse(&format!("{HEAD}{spec}"))
        .map(|mut pods| pods.remove(0))
        .map_err(|error| chain(&error))
}

/// A pod with one container that has `fields` besides its name and image.
fn container(fields: &str) -> Result<Container, String> {
    let mut indented = String::new();
    for line in fields.lines() {
        indented.push_str(&format!("    {line}\n"));
    }
    pod(&format!(
        "  volumes: [{{name: v, emptyDir: {{}}}}]\n  containers:\n  - name: c\n    image: i:1\n{indented}"
    ))
    .map(|mut pod| pod.containers.remove(0))
}

#[test]
fn the_pod_of_a_first_tutorial_is_read() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: my-pod\nspec:\n  containers:\n    - name: my-container\n      \
                image: some-vendor/some-image\n      ports:\n        - containerPort: 8080\n  volumes:\n    - name: \
                example-volume\n      emptyDir:\n        sizeLimit: 1Gi\n";
    let pod = parse(text).unwrap().remove(0);
    assert_eq!(
        (pod.metadata.name.as_str(), pod.metadata.namespace.as_str()),
        ("my-pod", "default")
    );
    assert_eq!(pod.containers[0].image_pull_policy, ImagePullPolicy::Always);
    assert_eq!(pod.containers[0].ports[0].container_port, 8080);
    assert_eq!(
        pod.volumes[0].source,
        VolumeSource::EmptyDir {
            size_limit: Some(1 << 30)
        }
    );
    assert_eq!(pod.restart_policy, RestartPolicy::Always);
    assert_eq!(pod.termination_grace_period, Duration::from_secs(30));
}

#[test]
fn what_kubectl_writes_by_itself_is_accepted() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  creationTimestamp: null\n  labels: {run: x}\n  name: x\nspec:\n  \
                containers:\n  - image: nginx\n    name: x\n    resources: {}\n  dnsPolicy: ClusterFirst\n  restartPolicy: \
                Always\nstatus: {}\n";
    parse(text).unwrap();
}

#[test]
fn several_documents_are_several_pods() {
    let one = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: i}}]}}\n"
        )
    };
    let text = format!("---\n{}---\n---\n{}", one("a"), one("b"));
    assert_eq!(parse(&text).unwrap().len(), 2);
    let twice = format!("{}---\n{}", one("a"), one("a"));
    assert_eq!(
        chain(&parse(&twice).unwrap_err()),
        "it has pod \"a\" of namespace \"default\" twice"
    );
    assert_eq!(chain(&parse("# nothing\n").unwrap_err()), "it has no pod");
}

#[test]
fn every_part_of_a_container_is_read() {
    let container = container(
        "command: [/payload, '$(A)']\nargs: ['8080']\nworkingDir: /tmp\nimagePullPolicy: Never\nenv:\n- name: A\n  value: \
         x\n- name: IP\n  valueFrom: {fieldRef: {fieldPath: status.podIP}}\n- name: L\n  valueFrom: {fieldRef: {fieldPath: \
         \"metadata.labels['app']\"}}\nports:\n- {containerPort: 80, hostPort: 8080, hostIP: 127.0.0.1, protocol: \
         UDP, name: web}\nvolumeMounts:\n- {name: v, mountPath: /v, readOnly: true, subPath: a/b, mountPropagation: \
         HostToContainer}\nresources:\n  requests: {cpu: 100m, memory: 16Mi}\n  limits: {cpu: 1.5, memory: \
         64Mi}\nsecurityContext:\n  runAsUser: 1000\n  runAsGroup: 100\n  capabilities: {add: [NET_ADMIN], drop: \
         [ALL]}\n  allowPrivilegeEscalation: false\n  readOnlyRootFilesystem: true\n  procMount: Unmasked\n  \
         seccompProfile: {type: RuntimeDefault}\n",
    )
    .unwrap();
    assert_eq!(container.args, ["8080"]);
    assert_eq!(container.env[1].source, EnvSource::Field(PodField::PodIp));
    assert_eq!(
        container.env[2].source,
        EnvSource::Field(PodField::Label("app".to_owned()))
    );
    let wanted = Port {
        container_port: 80,
        host_port: 8080,
        host_ip: Some("127.0.0.1".to_owned()),
        protocol: Protocol::Udp,
    };
    assert_eq!(container.ports, [wanted]);
    assert_eq!(
        container.volume_mounts[0].sub_path.as_deref(),
        Some("a/b".as_ref())
    );
    let resources = Resources {
        cpu_limit: Some(1500),
        cpu_request: Some(100),
        memory_limit: Some(64 << 20),
        memory_request: Some(16 << 20),
    };
    assert_eq!(container.resources, resources);
    assert!(container.security.read_only_root && container.security.unmasked_proc);
    assert_eq!(container.security.seccomp, Some(SeccompProfile::RuntimeDefault));
}

#[test]
fn a_container_that_cannot_be_played_as_written_is_refused_by_path() {
    let cases: &[(&str, &str)] = &[
        (
            "livenessProbe: {}",
            "spec.containers[0].livenessProbe: not supported: probes are a kubelet's work",
        ),
        (
            "readinessProbe: {tcpSocket: {port: 1}}",
            "spec.containers[0].readinessProbe: not supported",
        ),
        (
            "startupProbe: {exec: {command: [x]}}",
            "spec.containers[0].startupProbe: not supported",
        ),
        (
            "lifecycle: {preStop: {}}",
            "spec.containers[0].lifecycle: not supported",
        ),
        (
            "envFrom: [{configMapRef: {name: x}}]",
            "spec.containers[0].envFrom: not supported",
        ),
        (
            "env: [{name: A, value: 1}]",
            "spec.containers[0].env[0].value: must be a string, and 1 is not one in YAML",
        ),
        (
            "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
            "spec.containers[0].env[0].valueFrom.secretKeyRef: not supported",
        ),
        (
            "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.x}}}]",
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: \"spec.x\" is not supported here",
        ),
        (
            "env: [{name: 'A=B', value: x}]",
            "spec.containers[0].env[0].name: \"A=B\" must be",
        ),
        (
            "comand: [x]",
            "spec.containers[0].comand: Kubernetes has no such field here",
        ),
        (
            "command: x",
            "spec.containers[0].command: must be a list, is a string",
        ),
        (
            "imagePullPolicy: Sometimes",
            "spec.containers[0].imagePullPolicy: \"Sometimes\" is not one of Always, IfNotPresent, Never",
        ),
        (
            "ports: [{containerPort: 0}]",
            "spec.containers[0].ports[0].containerPort: 0 is not between 1 and 65535",
        ),
        (
            "ports: [{hostPort: 80}]",
            "spec.containers[0].ports[0].containerPort: this field is required",
        ),
        (
            "ports: [{containerPort: '80'}]",
            "spec.containers[0].ports[0].containerPort: must be a whole number, is a string",
        ),
        (
            "ports: [{containerPort: 80, hostIP: here}]",
            "spec.containers[0].ports[0].hostIP: \"here\" is not an IP address",
        ),
        (
            "volumeMounts: [{name: w, mountPath: /v}]",
            "spec.containers[0].volumeMounts[0].name: \"w\" is not an entry of spec.volumes",
        ),
        (
            "volumeMounts: [{name: v, mountPath: v}]",
            "spec.containers[0].volumeMounts[0].mountPath: \"v\" must be",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /a/../b}]",
            "spec.containers[0].volumeMounts[0].mountPath: \"/a/../b\" must be",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /v, subPath: ../x}]",
            "spec.containers[0].volumeMounts[0].subPath: \"../x\" must be",
        ),
        (
            "volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /v/}]",
            "spec.containers[0].volumeMounts[1]: \"/v\" is already used at spec.containers[0].volumeMounts[0]",
        ),
        (
            "resources: {limits: {cpu: lots}}",
            "spec.containers[0].resources.limits.cpu: \"lots\" is not a quantity",
        ),
        (
            "resources: {limits: {memory: -1}}",
            "spec.containers[0].resources.limits.memory: \"-1\" is not a quantity",
        ),
        (
            "resources: {limits: {nvidia.com/gpu: 1}}",
            "spec.containers[0].resources.limits.nvidia.com/gpu: not supported",
        ),
        (
            "resources: {limits: {cpu: 1}, requests: {cpu: 2}}",
            "spec.containers[0].resources: requests more than its limit",
        ),
        (
            "restartPolicy: Always",
            "spec.containers[0].restartPolicy: not supported",
        ),
        (
            "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
            "spec.containers[0].securityContext.allowPrivilegeEscalation: cannot be false",
        ),
        (
            "securityContext: {capabilities: {add: [net admin]}}",
            "spec.containers[0].securityContext.capabilities.add[0]: \"net admin\" is not a capability",
        ),
        (
            "securityContext: {runAsUser: -1}",
            "spec.containers[0].securityContext.runAsUser: -1 is not between 0 and 2147483647",
        ),
        (
            "securityContext: {seccompProfile: {type: Localhost, localhostProfile: x}}",
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: not supported",
        ),
        (
            "securityContext: {seLinuxOptions: {level: x}}",
            "spec.containers[0].securityContext.seLinuxOptions: not supported",
        ),
        (
            "terminationMessagePolicy: FallbackToLogsOnError",
            "spec.containers[0].terminationMessagePolicy: not supported",
        ),
    ];
    for (fields, wanted) in cases {
        let error = container(fields).expect_err(fields);
        let (line, rest) = error.split_once(": ").unwrap();
        assert!(
            line.starts_with("line ") && rest.starts_with(wanted),
            "{fields}: {error}"
        );
    }
}

#[test]
fn a_pod_that_cannot_be_played_as_written_is_refused_by_path() {
    const C: &str = "  containers: [{name: c, image: i}]\n";
    let cases: &[(&str, &str)] = &[
        (
            "  containers: []\n",
            "line 6: spec.containers: this field is required",
        ),
        (
            "  containers: [{image: i}]\n",
            "line 6: spec.containers[0].name: this field is required",
        ),
        (
            "  containers: [{name: c}]\n",
            "line 6: spec.containers[0].image: this field is required",
        ),
        (
            "  containers: [{name: c, image: i}, {name: c, image: i}]\n",
            "line 6: spec: \"c\" is already used at spec.containers[0]",
        ),
        (
            "  initContainers: [{name: c, image: i}]\n  containers: [{name: c, image: i}]\n",
            "line 6: spec: \"c\" is already used at spec.initContainers[0]",
        ),
        (
            "  initContainers: [{name: a, image: i, restartPolicy: Never}]\n  containers: [{name: c, image: i}]\n",
            "line 6: spec.initContainers[0].restartPolicy: \"Never\" is not one of Always",
        ),
        (
            "  containers:\n  - {name: c, image: i, ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]}\n",
            "line 6: spec: \"hostPort 9\" is already used at spec.containers[0]",
        ),
        (
            &format!("{C}  hostNetwork: true\n  containers2: x\n"),
            "line 8: spec.containers2: Kubernetes has no such field here",
        ),
        (
            &format!("{C}  nodeSelector: {{a: b}}\n"),
            "line 7: spec.nodeSelector: not supported: there is no scheduler",
        ),
        (
            &format!("{C}  restartPolicy: Sometimes\n"),
            "line 7: spec.restartPolicy: \"Sometimes\" is not one of",
        ),
        (
            &format!("{C}  automountServiceAccountToken: true\n"),
            "line 7: spec.automountServiceAccountToken: not supported",
        ),
        (
            &format!("{C}  terminationGracePeriodSeconds: -1\n"),
            "line 7: spec.terminationGracePeriodSeconds: -1 is not between",
        ),
        (
            &format!("{C}  dnsPolicy: None\n"),
            "line 7: spec.dnsPolicy: None needs",
        ),
        (
            &format!("{C}  dnsConfig: {{searches: ['a b']}}\n"),
            "line 7: spec.dnsConfig.searches[0]: \"a b\" must be one word",
        ),
        (
            &format!("{C}  hostname: Big\n"),
            "line 7: spec.hostname: \"Big\" is not a name",
        ),
        (
            &format!("{C}  shareProcessNamespace: true\n  hostPID: true\n"),
            "line 7: spec.shareProcessNamespace: cannot be true",
        ),
        (
            &format!("{C}  volumes: [{{name: v}}]\n"),
            "line 7: spec.volumes[0]: has no source",
        ),
        (
            &format!("{C}  volumes: [{{name: v, emptyDir: {{}}, hostPath: {{path: /}}}}]\n"),
            "line 7: spec.volumes[0]: has two sources",
        ),
        (
            &format!("{C}  volumes: [{{name: v, configMap: {{}}}}]\n"),
            "line 7: spec.volumes[0].configMap: not supported",
        ),
        (
            &format!("{C}  volumes: [{{name: v, emptyDir: {{medium: HugePages}}}}]\n"),
            "line 7: spec.volumes[0].emptyDir.medium: \"HugePages\" is not one of",
        ),
        (
            &format!("{C}  volumes: [{{name: v, hostPath: {{path: a}}}}]\n"),
            "line 7: spec.volumes[0].hostPath.path: \"a\" must be",
        ),
        (
            &format!("{C}  volumes: [{{name: v, emptyDir: {{}}}}, {{name: v, emptyDir: {{}}}}]\n"),
            "line 7: spec.volumes[1]: \"v\" is already used at spec.volumes[0]",
        ),
        (
            &format!("{C}  securityContext: {{sysctls: [{{name: net.x, value: 1}}]}}\n"),
            "line 7: spec.securityContext.sysctls[0].value: must be a string",
        ),
    ];
    for (spec, wanted) in cases {
        let error = pod(spec).expect_err(spec);
        assert!(error.starts_with(wanted), "{spec}: {error}");
    }
}

#[test]
fn other_kinds_and_versions_are_refused() {
    let cases = [
        ("kind: Pod\n", "line 1: apiVersion: this field is required"),
        (
            "apiVersion: v2\nkind: Pod\n",
            "line 1: apiVersion: \"v2\" is not one of v1",
        ),
        (
            "apiVersion: v1\nkind: Service\n",
            "line 2: kind: not supported: only kind Pod is played",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: A}\n",
            "line 3: metadata.name: \"A\" is not a name",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n",
            "line 3: metadata.generateName: not supported",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {a: 'b c'}}\n",
            "line 3: metadata.labels.a: \"b c\" is not a label value",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
            "line 1: spec: this field is required",
        ),
        ("- a\n", "line 1: the document: must be a mapping, is a list"),
        (
            "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"}, \"spec\": {}}",
            "line 1: spec.containers: this field is required",
        ),
    ];
    for (text, wanted) in cases {
        let error = chain(&parse(text).unwrap_err());
        assert!(error.starts_with(wanted), "{text}: {error}");
    }
}

/// Bytes changed, removed, doubled and moved: always an answer, never a panic.
#[test]
fn damaged_manifests_are_answered() {
    let sample = "# c\napiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: &x 'b'}}\nspec:\n  volumes:\n  - name: v\n    \
                  emptyDir: {sizeLimit: 1.5Gi}\n  containers:\n  - name: c\n    image: \"i:1\"\n    command: [a, *x]\n    args:\n    - \
                  |\n      text\n      more\n    - >-\n      folded\n    env: [{name: A, value: '$(B)'}]\n    resources: {limits: {cpu: \
                  1e3}}\n...\n---\n? a\n: !!str b\n";
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for _ in 0..20_000 {
        let mut bytes = sample.as_bytes().to_vec();
        for _ in 0..=next(4) {
            if bytes.is_empty() {
                break;
            }
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = b"\0\t\r\n -:[]{}#&*!|>'\"%@`,?~\xc3"[next(26)],
                1 => drop(bytes.drain(at..(at + 1 + next(12)).min(bytes.len()))),
                2 => {
                    let part = bytes[at..(at + 1 + next(30)).min(bytes.len())].to_vec();
                    bytes.splice(at / 2..at / 2, part);
                }
                _ => bytes.truncate(at.max(1)),
            }
        }
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }
}

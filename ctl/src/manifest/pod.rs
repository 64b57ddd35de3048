//! The pod: `apiVersion`, `kind`, `metadata` and `spec`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::container::{Container, Role};
use super::field::{Field, FieldError, Object, Problem};
use super::metadata::{self, Metadata};
use super::security_context::PodSecurity;
use super::volume::Volume;

/// One checked pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    /// In their order; each runs to its end before the next, but for sidecars ([`Container::sidecar`]).
    pub(crate) init_containers: Vec<Container>,
    /// At least one.
    pub(crate) containers: Vec<Container>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) restart_policy: RestartPolicy,
    /// Between the stop signal and SIGKILL.
    pub(crate) termination_grace_period: Duration,
    /// From `activeDeadlineSeconds`: the pod fails when it has run so long.
    pub(crate) active_deadline: Option<Duration>,
    pub(crate) hostname: Option<String>,
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    pub(crate) share_process_namespace: bool,
    pub(crate) dns_policy: DnsPolicy,
    pub(crate) dns_config: DnsConfig,
    pub(crate) security: PodSecurity,
}

/// `spec.restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// `spec.dnsPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DnsPolicy {
    /// The host's resolv.conf. `ClusterFirst` means the same here: a kubelet without a cluster DNS does so too.
    Host,
    /// Only what `dnsConfig` says.
    None,
}

/// `spec.dnsConfig`, which is added to what the policy gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DnsConfig {
    pub(crate) nameservers: Vec<String>,
    pub(crate) searches: Vec<String>,
    /// `name` or `name:value`, as in resolv.conf.
    pub(crate) options: Vec<String>,
}

impl Pod {
    pub(super) fn read(document: &Field<'_>) -> Result<Pod, FieldError> {
        let mut object = document.object()?;
        object.need("apiVersion")?.choice(&[("v1", ())])?;
        let kind = object.need("kind")?;
        if kind.string()? != "Pod" {
            return Err(kind.error(Problem::Unsupported("only kind Pod is played")));
        }
        object.refuse(&[("status", "it is what a kubelet reports, not what it is told")])?;
        let metadata = Metadata::read(&object.need("metadata")?)?;
        let spec = object.need("spec")?;
        object.done()?;
        read_spec(metadata, spec.object()?)
    }

    /// Init containers first, then the others.
    pub(crate) fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(&self.containers)
    }
}

fn read_spec(metadata: Metadata, mut spec: Object<'_>) -> Result<Pod, FieldError> {
    refuse_unsupported(&mut spec)?;
    let host_network = spec.boolean("hostNetwork")?;
    let host_pid = spec.boolean("hostPID")?;
    let volumes = read_volumes(&mut spec)?;
    let dns_policy = spec.take("dnsPolicy");
    let pod = Pod {
        metadata,
        init_containers: read_containers(&mut spec, "initContainers", Role::Init, &volumes, host_network)?,
        containers: read_containers(&mut spec, "containers", Role::Main, &volumes, host_network)?,
        volumes,
        restart_policy: read_restart_policy(&mut spec)?,
        termination_grace_period: seconds(
            spec.integer("terminationGracePeriodSeconds", 0, MAX_SECONDS)?
                .unwrap_or(30),
        ),
        active_deadline: spec
            .integer("activeDeadlineSeconds", 1, MAX_SECONDS)?
            .map(seconds),
        hostname: spec
            .take("hostname")
            .map(|field| metadata::label(&field))
            .transpose()?,
        host_network,
        host_pid,
        host_ipc: spec.boolean("hostIPC")?,
        share_process_namespace: read_share_process_namespace(&mut spec, host_pid)?,
        dns_policy: dns_policy.as_ref().map_or(Ok(DnsPolicy::Host), read_dns_policy)?,
        dns_config: spec
            .take("dnsConfig")
            .map_or_else(|| Ok(DnsConfig::default()), |field| read_dns_config(&field))?,
        security: spec
            .take("securityContext")
            .map_or_else(|| Ok(PodSecurity::default()), |f| PodSecurity::read(&f))?,
    };
    if pod.containers.is_empty() {
        return Err(spec.missing("containers"));
    }
    if let Some(field) = dns_policy
        && pod.dns_policy == DnsPolicy::None
        && pod.dns_config.nameservers.is_empty()
    {
        return Err(field.error(Problem::Rule(
            "None needs at least one of spec.dnsConfig.nameservers",
        )));
    }
    check_names(&spec, &pod)?;
    spec.done()?;
    Ok(pod)
}

/// What Kubernetes knows and nothing here could do, with the reason.
fn refuse_unsupported(spec: &mut Object<'_>) -> Result<(), FieldError> {
    const NO_SCHEDULER: &str = "there is no scheduler; the pod runs on this machine";
    const NO_API: &str = "there is no API server to ask";
    spec.refuse(&[
        ("affinity", NO_SCHEDULER),
        ("ephemeralContainers", "use coraclectl exec"),
        (
            "hostAliases",
            "/etc/hosts is made by coracled; mount a file of your own over it",
        ),
        ("hostUsers", "user namespaces of pods are not there yet"),
        ("hostnameOverride", "use spec.hostname"),
        ("imagePullSecrets", NO_API),
        ("nodeName", NO_SCHEDULER),
        ("nodeSelector", NO_SCHEDULER),
        ("os", "pods are Linux pods"),
        ("overhead", "runtime classes are not supported"),
        ("preemptionPolicy", NO_SCHEDULER),
        ("priority", NO_SCHEDULER),
        ("priorityClassName", NO_SCHEDULER),
        ("readinessGates", "nothing here waits for readiness"),
        ("resourceClaims", NO_SCHEDULER),
        (
            "resources",
            "limits of the whole pod are not there yet; give them to its containers",
        ),
        ("runtimeClassName", NO_API),
        ("schedulerName", NO_SCHEDULER),
        ("schedulingGates", NO_SCHEDULER),
        ("serviceAccount", NO_API),
        ("serviceAccountName", NO_API),
        ("setHostnameAsFQDN", "there is no cluster domain"),
        ("subdomain", "there is no cluster domain"),
        ("tolerations", NO_SCHEDULER),
        ("topologySpreadConstraints", NO_SCHEDULER),
    ])?;
    // Both are about what an API server would add; without one, only "no" is true.
    for name in ["automountServiceAccountToken", "enableServiceLinks"] {
        if let Some(field) = spec.take(name)
            && field.boolean()?
        {
            return Err(field.error(Problem::Unsupported(NO_API)));
        }
    }
    Ok(())
}

fn read_volumes(spec: &mut Object<'_>) -> Result<Vec<Volume>, FieldError> {
    let mut seen = BTreeMap::new();
    let mut volumes = Vec::new();
    for item in spec.items("volumes")? {
        let volume = Volume::read(&item)?;
        item.note_unique(&mut seen, &volume.name)?;
        volumes.push(volume);
    }
    Ok(volumes)
}

fn read_containers(
    spec: &mut Object<'_>,
    list: &str,
    role: Role,
    volumes: &[Volume],
    host_network: bool,
) -> Result<Vec<Container>, FieldError> {
    let read = |item: &Field<'_>| Container::read(item, role, volumes, host_network);
    spec.items(list)?.iter().map(read).collect()
}

/// Container names are one space for both lists, and so are host ports.
fn check_names(spec: &Object<'_>, pod: &Pod) -> Result<(), FieldError> {
    let mut names = BTreeMap::new();
    let mut host_ports = BTreeMap::new();
    for container in pod.all_containers() {
        if let Some(first) = names.insert(&container.name, &container.path) {
            let problem = Problem::Twice {
                value: container.name.clone(),
                first: first.clone(),
            };
            return Err(spec.field().error(problem));
        }
        for port in container.ports.iter().filter(|port| port.host_port != 0) {
            let key = (port.host_port, port.protocol, port.host_ip.clone());
            if let Some(first) = host_ports.insert(key, &container.path) {
                let value = format!("hostPort {}", port.host_port);
                return Err(spec.field().error(Problem::Twice {
                    value,
                    first: first.clone(),
                }));
            }
        }
    }
    Ok(())
}

fn read_restart_policy(spec: &mut Object<'_>) -> Result<RestartPolicy, FieldError> {
    let choices = [
        ("Always", RestartPolicy::Always),
        ("OnFailure", RestartPolicy::OnFailure),
        ("Never", RestartPolicy::Never),
    ];
    spec.take("restartPolicy")
        .map_or(Ok(RestartPolicy::Always), |field| field.choice(&choices))
}

fn read_share_process_namespace(spec: &mut Object<'_>, host_pid: bool) -> Result<bool, FieldError> {
    let Some(field) = spec.take("shareProcessNamespace") else {
        return Ok(false);
    };
    let share = field.boolean()?;
    if share && host_pid {
        return Err(field.error(Problem::Rule("cannot be true together with spec.hostPID")));
    }
    Ok(share)
}

fn read_dns_policy(field: &Field<'_>) -> Result<DnsPolicy, FieldError> {
    field.choice(&[
        ("ClusterFirst", DnsPolicy::Host),
        ("ClusterFirstWithHostNet", DnsPolicy::Host),
        ("Default", DnsPolicy::Host),
        ("None", DnsPolicy::None),
    ])
}

fn read_dns_config(field: &Field<'_>) -> Result<DnsConfig, FieldError> {
    let mut object = field.object()?;
    let mut config = DnsConfig::default();
    for item in object.items("nameservers")? {
        let text = item.string()?;
        if text.parse::<std::net::IpAddr>().is_err() {
            return Err(item.invalid(&text, "is not an IP address"));
        }
        config.nameservers.push(text);
    }
    for item in object.items("searches")? {
        config.searches.push(one_word(&item)?);
    }
    for item in object.items("options")? {
        let mut option = item.object()?;
        let name = one_word(&option.need("name")?)?;
        let value = option.take("value").map(|field| one_word(&field)).transpose()?;
        option.done()?;
        config
            .options
            .push(value.map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
    }
    object.done()?;
    Ok(config)
}

/// Words of resolv.conf end at white space; one with white space inside would add others.
fn one_word(field: &Field<'_>) -> Result<String, FieldError> {
    let text = field.string()?;
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(field.invalid(&text, "must be one word"));
    }
    Ok(text)
}

/// A year: more is a mistake, and sums of such times cannot overflow.
const MAX_SECONDS: i64 = 366 * 24 * 3600;

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

//! One container: an entry of `spec.containers` or `spec.initContainers`.

use super::env::EnvVar;
use super::field::{Field, FieldError, Object, Problem};
use super::metadata::label;
use super::quantity;
use super::security_context::ContainerSecurity;
use super::volume::{Volume, VolumeMount};

/// One checked container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// As `spec.containers[0]`, for messages.
    pub(crate) path: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) image_pull_policy: ImagePullPolicy,
    /// An init container that keeps running beside the others (`restartPolicy: Always`).
    pub(crate) sidecar: bool,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) env: Vec<EnvVar>,
    pub(crate) ports: Vec<Port>,
    pub(crate) volume_mounts: Vec<VolumeMount>,
    pub(crate) resources: Resources,
    pub(crate) security: ContainerSecurity,
    pub(crate) tty: bool,
    /// Where the container finds the file for its last words.
    pub(crate) termination_message_path: String,
}

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) container_port: u16,
    /// 0: not reachable from the host's addresses.
    pub(crate) host_port: u16,
    pub(crate) host_ip: Option<String>,
    pub(crate) protocol: Protocol,
}

/// `ports[].protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// `resources`: thousandths of a CPU and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) cpu_limit: Option<i64>,
    pub(crate) cpu_request: Option<i64>,
    pub(crate) memory_limit: Option<i64>,
    pub(crate) memory_request: Option<i64>,
}

/// Which list a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Init,
    Main,
}

impl Container {
    pub(super) fn read(
        field: &Field<'_>,
        role: Role,
        volumes: &[Volume],
        host_network: bool,
    ) -> Result<Container, FieldError> {
        let mut object = field.object()?;
        refuse_unsupported(&mut object)?;
        let image_field = object.need("image")?;
        let image = image_field.string()?;
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(image_field.invalid(&image, "is not an image reference"));
        }
        let container = Container {
            path: field.path().to_owned(),
            name: label(&object.need("name")?)?,
            image_pull_policy: read_pull_policy(&mut object, &image)?,
            image,
            sidecar: read_sidecar(&mut object, role)?,
            command: object.strings("command")?,
            args: object.strings("args")?,
            working_dir: read_path(&mut object, "workingDir")?,
            env: EnvVar::read_all(&mut object)?,
            ports: read_ports(&mut object, host_network)?,
            volume_mounts: VolumeMount::read_all(&mut object, volumes)?,
            resources: object
                .take("resources")
                .map_or_else(|| Ok(Resources::default()), |field| Resources::read(&field))?,
            security: object.take("securityContext").map_or_else(
                || Ok(ContainerSecurity::default()),
                |field| ContainerSecurity::read(&field),
            )?,
            tty: object.boolean("tty")?,
            termination_message_path: read_path(&mut object, "terminationMessagePath")?
                .unwrap_or_else(|| "/dev/termination-log".to_owned()),
        };
        object.done()?;
        Ok(container)
    }
}

impl Resources {
    fn read(field: &Field<'_>) -> Result<Resources, FieldError> {
        let mut object = field.object()?;
        object.refuse(&[("claims", "device claims need a scheduler")])?;
        let (cpu_limit, memory_limit) = read_amounts(&mut object, "limits")?;
        let (cpu_request, memory_request) = read_amounts(&mut object, "requests")?;
        object.done()?;
        for (request, limit) in [(cpu_request, cpu_limit), (memory_request, memory_limit)] {
            if let (Some(request), Some(limit)) = (request, limit)
                && request > limit
            {
                return Err(field.error(Problem::Rule("requests more than its limit")));
            }
        }
        Ok(Resources {
            cpu_limit,
            cpu_request,
            memory_limit,
            memory_request,
        })
    }
}

fn refuse_unsupported(object: &mut Object<'_>) -> Result<(), FieldError> {
    const PROBES: &str = "probes are a kubelet's work; coraclectl does not run them";
    const NO_API: &str = "there is no API server to ask";
    object.refuse(&[
        ("envFrom", NO_API),
        (
            "lifecycle",
            "hooks are a kubelet's work; coraclectl does not run them",
        ),
        ("resizePolicy", "resources are not changed while the pod runs"),
        ("restartPolicyRules", "use restartPolicy"),
        ("stdin", "nothing would be attached to it"),
        ("stdinOnce", "nothing would be attached to it"),
        ("volumeDevices", "volumes are emptyDir or hostPath"),
    ])?;
    // An empty probe is a probe, too.
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(field) = object.take(name) {
            return Err(field.error(Problem::Unsupported(PROBES)));
        }
    }
    if let Some(policy) = object.take("terminationMessagePolicy")
        && policy.string()? != "File"
    {
        return Err(policy.error(Problem::Unsupported("the message is read from the file only")));
    }
    Ok(())
}

/// Without a policy, an image named `:latest` (or not tagged at all) is looked for again each time.
fn read_pull_policy(object: &mut Object<'_>, image: &str) -> Result<ImagePullPolicy, FieldError> {
    if let Some(field) = object.take("imagePullPolicy") {
        return field.choice(&[
            ("Always", ImagePullPolicy::Always),
            ("IfNotPresent", ImagePullPolicy::IfNotPresent),
            ("Never", ImagePullPolicy::Never),
        ]);
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    let latest = !image.contains('@') && (!name.contains(':') || name.ends_with(":latest"));
    Ok(if latest {
        ImagePullPolicy::Always
    } else {
        ImagePullPolicy::IfNotPresent
    })
}

fn read_sidecar(object: &mut Object<'_>, role: Role) -> Result<bool, FieldError> {
    let Some(field) = object.take("restartPolicy") else {
        return Ok(false);
    };
    match role {
        Role::Init => field.choice(&[("Always", true)]),
        Role::Main => Err(field.error(Problem::Unsupported(
            "a policy of its own is for init containers; use spec.restartPolicy",
        ))),
    }
}

fn read_path(object: &mut Object<'_>, name: &str) -> Result<Option<String>, FieldError> {
    let Some(field) = object.take(name) else {
        return Ok(None);
    };
    let path = field.string()?;
    if !path.starts_with('/') {
        return Err(field.invalid(&path, "must be an absolute path"));
    }
    Ok(Some(path))
}

fn read_ports(object: &mut Object<'_>, host_network: bool) -> Result<Vec<Port>, FieldError> {
    object
        .items("ports")?
        .iter()
        .map(|item| read_port(item, host_network))
        .collect()
}

fn read_port(field: &Field<'_>, host_network: bool) -> Result<Port, FieldError> {
    let mut object = field.object()?;
    if let Some(name) = object.take("name") {
        // Only a Service would use the name; that it is one is checked.
        label(&name)?;
    }
    let container_port = read_port_number(&object.need("containerPort")?)?;
    let host_port_field = object.take("hostPort");
    let host_port = host_port_field.as_ref().map_or(Ok(0), read_port_number)?;
    if let Some(field) = host_port_field
        && host_network
        && host_port != container_port
    {
        return Err(field.error(Problem::Rule("must equal containerPort with spec.hostNetwork")));
    }
    let protocol = object.take("protocol").map_or(Ok(Protocol::Tcp), |field| {
        field.choice(&[
            ("TCP", Protocol::Tcp),
            ("UDP", Protocol::Udp),
            ("SCTP", Protocol::Sctp),
        ])
    })?;
    let host_ip = object
        .take("hostIP")
        .map(|field| read_host_ip(&field))
        .transpose()?
        .flatten();
    object.done()?;
    Ok(Port {
        container_port,
        host_port,
        host_ip,
        protocol,
    })
}

fn read_port_number(field: &Field<'_>) -> Result<u16, FieldError> {
    let number = field.integer(1, 65_535)?;
    u16::try_from(number).map_err(|_| field.invalid(&number.to_string(), "is not a port"))
}

fn read_host_ip(field: &Field<'_>) -> Result<Option<String>, FieldError> {
    let text = field.string()?;
    match text.parse::<std::net::IpAddr>() {
        _ if text.is_empty() => Ok(None),
        Ok(_) => Ok(Some(text)),
        Err(_) => Err(field.invalid(&text, "is not an IP address")),
    }
}

/// CPU and memory of `limits` or `requests`.
fn read_amounts(object: &mut Object<'_>, name: &str) -> Result<(Option<i64>, Option<i64>), FieldError> {
    let Some(field) = object.take(name) else {
        return Ok((None, None));
    };
    let mut amounts = field.object()?;
    let cpu = amounts
        .take("cpu")
        .map(|field| quantity::milli(&field))
        .transpose()?;
    let memory = amounts
        .take("memory")
        .map(|field| quantity::whole(&field))
        .transpose()?;
    for (key, field) in amounts.all() {
        if key != "cpu" && key != "memory" {
            return Err(field.error(Problem::Unsupported("only cpu and memory are limited here")));
        }
    }
    Ok((cpu, memory))
}

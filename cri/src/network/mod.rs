//! The pod's network through CNI: one configuration, one attachment (`eth0`) per pod.
//!
//! The configuration that ADD was called with is kept in the pod's record: DEL gets the same one, even after the file
//! changed. DEL is told that the namespace goes away right after, so that no plugin waits for the kernel to delete the
//! veth; whether the host's end really went is looked at afterwards (links.rs).

mod gc;
mod links;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_cni_protocol::{
    Attachment, CallError, CallErrors, Caller, CniResult, ConfList, LoadError, ResultError,
};
use coracle_cri_api::runtime_v1::{PodSandboxConfig, Protocol};
pub(crate) use links::HostLinks;
use serde_json::{Map, Value, json};
use status::LastStatus;

use crate::config::Config;
use crate::error::chain;
use crate::store::SandboxRecord;

const INTERFACE: &str = "eth0";
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(120);
/// For what is only asked, or can be done another time: nobody waits long for it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The caller of the plugins.
#[derive(Debug)]
pub(crate) struct Network {
    caller: Caller,
    conf_dir: PathBuf,
    last_status: LastStatus,
}

/// Why a pod has no network, or still has one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("network of sandbox {id}")]
    Add { id: String, source: CallError },
    #[error("network of sandbox {id}")]
    Del { id: String, source: CallErrors },
    #[error("network {network:?}")]
    Status { network: String, source: CallError },
    #[error("network {network:?}: remove what is left of containers that are gone")]
    Gc { network: String, source: CallErrors },
    #[error("recorded network of sandbox {id}")]
    RecordedList { id: String, source: LoadError },
    #[error("recorded result of the network of sandbox {id}: not JSON")]
    RecordedJson { id: String, source: serde_json::Error },
    #[error("recorded result of the network of sandbox {id}")]
    RecordedResult { id: String, source: ResultError },
    #[error("the network of sandbox {id} came without an address")]
    NoAddress { id: String },
    #[error("the task that calls the plugins was ended")]
    Join,
}

/// What ADD gave a pod.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// The result, as DEL wants it again.
    pub(crate) result: String,
    pub(crate) ips: Vec<String>,
}

impl Network {
    /// Nothing is read yet.
    pub(crate) fn new(config: &Config) -> Network {
        let caller = Caller::new(vec![config.cni_bin_dir.clone()]).timeout(PLUGIN_TIMEOUT);
        Network {
            caller,
            conf_dir: config.cni_conf_dir.clone(),
            last_status: LastStatus::default(),
        }
    }

    /// The configuration for new pods, as text for the record.
    pub(crate) fn load(&self) -> Result<String, NetworkError> {
        Ok(ConfList::load_dir(&self.conf_dir)?.to_json().to_string())
    }

    /// Fails when a new pod would get no network now, as far as configuration and plugins say.
    pub(crate) async fn status(&self) -> Result<(), Arc<NetworkError>> {
        let list = ConfList::load_dir(&self.conf_dir).map_err(|error| Arc::new(error.into()))?;
        let caller = self.caller.clone().timeout(SHORT_TIMEOUT);
        self.last_status.of(&caller, list).await
    }

    /// Has the plugins remove what they hold for anybody but these sandboxes. Not beside [`Network::attach`]: what is
    /// attached meanwhile would be taken for left over.
    pub(crate) async fn gc(&self, records: Vec<SandboxRecord>) -> Result<(), NetworkError> {
        let list = match ConfList::load_dir(&self.conf_dir) {
            // Status says so, for as long as it is so.
            Err(LoadError::None(_)) => return Ok(()),
            list => list?,
        };
        let caller = self.caller.clone().timeout(SHORT_TIMEOUT);
        blocking(move || {
            let valid = gc::valid(&list, &records);
            caller.gc(&list, &valid).map_err(|source| NetworkError::Gc {
                network: list.name().to_owned(),
                source,
            })
        })
        .await
    }

    /// ADD. When it fails, nothing of it is left.
    pub(crate) async fn attach(&self, record: &SandboxRecord) -> Result<Attached, NetworkError> {
        let (caller, record) = (self.caller.clone(), record.clone());
        blocking(move || attach(&caller, &record)).await
    }

    /// DEL; a second one is a success.
    pub(crate) async fn detach(&self, record: &SandboxRecord) -> Result<(), NetworkError> {
        let (caller, record) = (self.caller.clone(), record.clone());
        blocking(move || detach(&caller, &record)).await
    }
}

fn attach(caller: &Caller, record: &SandboxRecord) -> Result<Attached, NetworkError> {
    let list = list(record)?;
    let result = caller
        .add(&list, &attachment(record))
        .map_err(|source| NetworkError::Add {
            id: record.id.clone(),
            source,
        })?;
    let ips: Vec<String> = result
        .ips
        .iter()
        .map(|ip| ip.address.addr().to_string())
        .collect();
    if ips.is_empty() {
        detach(caller, record)?;
        return Err(NetworkError::NoAddress {
            id: record.id.clone(),
        });
    }
    Ok(Attached {
        result: result.to_json(list.version()).to_string(),
        ips,
    })
}

fn detach(caller: &Caller, record: &SandboxRecord) -> Result<(), NetworkError> {
    let list = list(record)?;
    let previous = previous(record)?;
    let skipped = caller
        .del(&list, &attachment(record), previous.as_ref(), true)
        .map_err(|source| NetworkError::Del {
            id: record.id.clone(),
            source,
        })?;
    for plugin in &skipped {
        tracing::warn!(sandbox = record.id, error = %chain(plugin), "a plugin was not told that the pod is gone");
    }
    Ok(())
}

fn list(record: &SandboxRecord) -> Result<ConfList, NetworkError> {
    ConfList::parse(record.network.as_bytes()).map_err(|source| NetworkError::RecordedList {
        id: record.id.clone(),
        source,
    })
}

fn previous(record: &SandboxRecord) -> Result<Option<CniResult>, NetworkError> {
    if record.cni_result.is_empty() {
        return Ok(None);
    }
    let id = || record.id.clone();
    let value: Value = serde_json::from_str(&record.cni_result)
        .map_err(|source| NetworkError::RecordedJson { id: id(), source })?;
    CniResult::parse(&value)
        .map(Some)
        .map_err(|source| NetworkError::RecordedResult { id: id(), source })
}

fn attachment(record: &SandboxRecord) -> Attachment {
    // After a reboot, or when the shim died, there is no namespace: DEL goes by the container id then.
    let netns = PathBuf::from(&record.netns_path);
    Attachment {
        container_id: record.id.clone(),
        netns: netns.exists().then_some(netns),
        ifname: INTERFACE.to_owned(),
        args: args(record),
        capabilities: capabilities(&record.config),
    }
}

/// What the kubelet's runtimes tell every plugin.
fn args(record: &SandboxRecord) -> Vec<(String, String)> {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    [
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", metadata.namespace),
        ("K8S_POD_NAME", metadata.name),
        ("K8S_POD_INFRA_CONTAINER_ID", record.id.clone()),
        ("K8S_POD_UID", metadata.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

fn capabilities(config: &PodSandboxConfig) -> Map<String, Value> {
    let mut capabilities = Map::new();
    let ports: Vec<Value> = config
        .port_mappings
        .iter()
        .filter(|port| port.host_port > 0)
        .map(|port| {
            let protocol = match port.protocol() {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            };
            json!({ "hostPort": port.host_port, "containerPort": port.container_port, "protocol": protocol, "hostIP": port.host_ip })
        })
        .collect();
    if !ports.is_empty() {
        capabilities.insert("portMappings".to_owned(), ports.into());
    }
    if let Some(dns) = &config.dns_config {
        let dns = json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options });
        capabilities.insert("dns".to_owned(), dns);
    }
    capabilities
}

async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(call)
        .await
        .map_err(|_| NetworkError::Join)?
}

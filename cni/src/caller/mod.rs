//! The caller's side: runs the plugins of a network for an attachment.
//!
//! ```text
//!  ADD    plugin 1 --result--> plugin 2 --result--> ... --result--> caller (and its cache)
//!  DEL    ... plugin 2, plugin 1: the reverse order, each with the final result of ADD; goes on after errors
//! ```
//!
//! Everything blocks; a plugin that does not end in time is killed.

mod cache;
mod exec;

pub use exec::{CallError, Program};

use crate::conf_list::ConfList;
use crate::config::{LEGACY_ATTACHMENTS, NetworkConfig, VALID_ATTACHMENTS, ValidAttachment};
use crate::result::CniResult;
use crate::version::Version;
use cache::Cache;
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a plugin may run when the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Tells Coracle's plugins on DEL that the namespace, and with it the veth, is removed right after.
pub const NETNS_GOES_AWAY: &str = "CORACLE_NETNS_GOES_AWAY";

/// A container's connection to a network.
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    /// The container.
    pub container_id: String,
    /// Path of its network namespace; on DEL it may be gone or unknown.
    pub netns: Option<PathBuf>,
    /// Name of the interface in the container.
    pub ifname: String,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// Values for the capabilities that plugins declare, by name (`portMappings`, `bandwidth` ...).
    pub capabilities: Map<String, Value>,
}

/// Runs plugins.
#[derive(Debug, Clone)]
pub struct Caller {
    bin_dirs: Vec<PathBuf>,
    timeout: Duration,
    cache: Option<Cache>,
}

/// Several calls failed; all were made.
#[derive(Debug)]
pub struct CallErrors(pub Vec<CallError>);

impl fmt::Display for CallErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|error| crate::error::chain(error)).collect();
        f.write_str(&texts.join("; "))
    }
}

impl std::error::Error for CallErrors {}

impl Caller {
    /// A caller that looks for programs in these directories, first match wins.
    pub fn new(bin_dirs: Vec<PathBuf>) -> Self {
        Self {
            bin_dirs,
            timeout: DEFAULT_TIMEOUT,
            cache: None,
        }
    }

    /// How long each plugin may run; then it is killed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Keeps results in `dir/results` in libcni's format (its own directory is `/var/lib/cni`).
    #[must_use]
    pub fn cache(mut self, dir: PathBuf) -> Self {
        self.cache = Some(Cache::new(dir));
        self
    }

    /// Attaches. When a plugin fails, DEL is called for the whole list, so that nothing is left.
    pub fn add(&self, list: &ConfList, attachment: &Attachment) -> Result<CniResult, CallError> {
        let added = self.add_all(list, attachment);
        let error = match added {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        // A failed chain has no result: each plugin must find what it made by the attachment's name.
        match self.del_all(list, attachment, None, false) {
            Ok(()) => Err(error),
            Err(undo) => Err(CallError::Undo {
                error: Box::new(error),
                undo: Box::new(undo),
            }),
        }
    }

    /// Detaches, last plugin first. Goes on after errors and reports them all; repeating is fine.
    ///
    /// Without `result` the cached one is used, if there is a cache. `netns_goes_away` says that the caller removes
    /// the network namespace right after: Coracle's plugins then leave the deletion of the veth to that.
    pub fn del(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        result: Option<&CniResult>,
        netns_goes_away: bool,
    ) -> Result<(), CallErrors> {
        let cached = match (&self.cache, result) {
            // A cache that cannot be read must not stop a DEL: plugins find their things by name.
            (Some(cache), None) => cache.read(list.name(), attachment).ok().flatten(),
            _ => None,
        };
        self.del_all(list, attachment, result.or(cached.as_ref()), netns_goes_away)?;
        match &self.cache {
            Some(cache) => cache
                .remove(list.name(), attachment)
                .map_err(|error| CallErrors(vec![error])),
            None => Ok(()),
        }
    }

    /// Asks each plugin whether the attachment is as ADD left it.
    pub fn check(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        result: &CniResult,
    ) -> Result<(), CallError> {
        if !list.version().has_check() {
            return Err(CallError::Version {
                command: "CHECK",
                version: list.version(),
            });
        }
        if list.disables_check() {
            return Ok(());
        }
        list.plugins().iter().try_for_each(|plugin| {
            let config = request(list, plugin, Some(attachment), Some(result));
            self.call(plugin, &self.environment("CHECK", Some(attachment)), &config)
                .map(drop)
        })
    }

    /// Removes everything of the network that belongs to none of the valid attachments.
    ///
    /// Cached attachments get a DEL in any version; the command GC exists from 1.1.0 on.
    pub fn gc(&self, list: &ConfList, valid: &[ValidAttachment]) -> Result<(), CallErrors> {
        if list.disables_gc() {
            return Ok(());
        }
        let mut errors = Vec::new();
        for stale in self.stale(list, valid, &mut errors) {
            errors.extend(
                self.del(list, &stale, None, false)
                    .err()
                    .into_iter()
                    .flat_map(|all| all.0),
            );
        }
        if list.version().has_gc() {
            for plugin in list.plugins() {
                let mut config = request(list, plugin, None, None);
                config.insert(VALID_ATTACHMENTS, json!(valid));
                // libcni sets the older name too.
                config.insert(LEGACY_ATTACHMENTS, json!(valid));
                errors.extend(self.call(plugin, &self.environment("GC", None), &config).err());
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(CallErrors(errors))
        }
    }

    /// Asks each plugin whether ADD would work now. Before 1.1.0 nothing is asked.
    pub fn status(&self, list: &ConfList) -> Result<(), CallError> {
        if !list.version().has_gc() {
            return Ok(());
        }
        list.plugins().iter().try_for_each(|plugin| {
            let config = request(list, plugin, None, None);
            self.call(plugin, &self.environment("STATUS", None), &config)
                .map(drop)
        })
    }

    /// Fails when a plugin's program is missing or does not speak the list's version.
    pub fn validate(&self, list: &ConfList) -> Result<(), CallError> {
        for plugin in list.plugins() {
            let kind = plugin.kind().unwrap_or_default();
            let probe =
                NetworkConfig::from_map(Map::from_iter([("cniVersion".to_owned(), list.version().into())]));
            let answer = self
                .call(plugin, &self.environment("VERSION", None), &probe)?
                .unwrap_or_default();
            let known = answer.get("supportedVersions").and_then(Value::as_array);
            if !known.is_some_and(|known| known.contains(&list.version().into())) {
                return Err(CallError::Unsupported {
                    plugin: kind.to_owned(),
                    version: list.version(),
                });
            }
        }
        Ok(())
    }

    fn add_all(&self, list: &ConfList, attachment: &Attachment) -> Result<CniResult, CallError> {
        let mut last: Option<CniResult> = None;
        for plugin in list.plugins() {
            let config = request(list, plugin, Some(attachment), last.as_ref());
            let answer = self.call(plugin, &self.environment("ADD", Some(attachment)), &config)?;
            let kind = || plugin.kind().unwrap_or_default().to_owned();
            let answer = answer.ok_or_else(|| CallError::NoResult { plugin: kind() })?;
            let result = CniResult::parse(&answer);
            last = Some(result.map_err(|source| CallError::Result {
                plugin: kind(),
                source,
            })?);
        }
        let result = last.unwrap_or_default();
        if let Some(cache) = &self.cache {
            cache.write(list, attachment, &result)?;
        }
        Ok(result)
    }

    fn del_all(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        result: Option<&CniResult>,
        netns_goes_away: bool,
    ) -> Result<(), CallErrors> {
        let mut environment = self.environment("DEL", Some(attachment));
        if netns_goes_away {
            environment.push((NETNS_GOES_AWAY.to_owned(), "1".to_owned()));
        }
        let result = result.filter(|_| list.version() >= Version::V0_4_0);
        let errors: Vec<_> = (list.plugins().iter().rev())
            .filter_map(|plugin| {
                self.call(
                    plugin,
                    &environment,
                    &request(list, plugin, Some(attachment), result),
                )
                .err()
            })
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(CallErrors(errors))
        }
    }

    fn stale(
        &self,
        list: &ConfList,
        valid: &[ValidAttachment],
        errors: &mut Vec<CallError>,
    ) -> Vec<Attachment> {
        let Some(cache) = &self.cache else {
            return Vec::new();
        };
        match cache.attachments(list.name()) {
            Ok(mut all) => {
                all.retain(|one| {
                    !valid
                        .iter()
                        .any(|keep| keep.container_id == one.container_id && keep.ifname == one.ifname)
                });
                all
            }
            Err(error) => {
                errors.push(error);
                Vec::new()
            }
        }
    }

    fn call(
        &self,
        plugin: &NetworkConfig,
        environment: &[(String, String)],
        config: &NetworkConfig,
    ) -> Result<Option<Value>, CallError> {
        Program::find(plugin.kind().unwrap_or_default(), &self.bin_dirs)?.call(
            environment,
            config,
            self.timeout,
        )
    }

    fn environment(&self, command: &str, attachment: Option<&Attachment>) -> Vec<(String, String)> {
        let dirs: Vec<_> = self.bin_dirs.iter().map(|dir| dir.to_string_lossy()).collect();
        let nothing = Attachment::default();
        let attachment = attachment.unwrap_or(&nothing);
        let netns = attachment.netns.as_deref().unwrap_or_else(|| "".as_ref());
        let args: Vec<_> = attachment
            .args
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let pairs = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", attachment.container_id.clone()),
            ("CNI_NETNS", netns.to_string_lossy().into_owned()),
            ("CNI_IFNAME", attachment.ifname.clone()),
            ("CNI_ARGS", args.join(";")),
            ("CNI_PATH", dirs.join(":")),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

/// What a plugin gets on its standard input (specification, section 3, "Deriving request configuration").
fn request(
    list: &ConfList,
    plugin: &NetworkConfig,
    attachment: Option<&Attachment>,
    result: Option<&CniResult>,
) -> NetworkConfig {
    let mut config = plugin.clone();
    config.insert("name", Value::from(list.name()));
    config.insert("cniVersion", list.version().into());
    let wanted: Map<_, _> = attachment
        .iter()
        .flat_map(|attachment| &attachment.capabilities)
        .filter(|(name, _)| plugin.has_capability(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !wanted.is_empty() {
        config.insert("runtimeConfig", Value::Object(wanted));
    }
    if let Some(result) = result {
        config.insert("prevResult", result.to_json(list.version()));
    }
    config
}

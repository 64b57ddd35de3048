//! The caller's side: runs the plugins of a network for an attachment.
//!
//! ```text
//!  ADD    plugin 1 --result--> plugin 2 --result--> ... --result--> caller
//!  DEL    ... plugin 2, plugin 1: the reverse order, each with the final result of ADD; goes on after errors
//! ```
//!
//! Everything blocks; a plugin that does not end in time is killed.

mod error;
mod exchange;
mod program;

pub use error::{CallError, CallErrors};
pub use program::Program;

use crate::conf_list::ConfList;
use crate::config::{LEGACY_ATTACHMENTS, NetworkConfig, VALID_ATTACHMENTS, ValidAttachment};
use crate::result::CniResult;
use crate::version::Version;
use serde_json::{Map, Value, json};
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
}

impl Caller {
    /// A caller that looks for programs in these directories, first match wins.
    pub fn new(bin_dirs: Vec<PathBuf>) -> Self {
        Self {
            bin_dirs,
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// How long each plugin may run; then it is killed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Attaches. When a plugin fails, DEL is called for it and those before it, so that nothing is left.
    pub fn add(&self, list: &ConfList, attachment: &Attachment) -> Result<CniResult, CallError> {
        let mut started = Vec::new();
        let error = match self.add_all(list, attachment, &mut started) {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        // A failed chain has no result: each plugin must find what it made by the attachment's name.
        let undone = self.del_each(
            list,
            &started,
            &self.environment("DEL", Some(attachment)),
            attachment,
            None,
        );
        match undone {
            Ok(_) => Err(error),
            Err(undo) => Err(CallError::Undo {
                undo,
                source: Box::new(error),
            }),
        }
    }

    /// Detaches, last plugin first. Goes on after errors and reports them all; repeating is fine.
    ///
    /// A plugin that is not installed is passed over, for nobody could ever ask it: these are returned, so that the
    /// caller can say so. The same goes for one that cannot be started when there is no result, so that its ADD never
    /// ended.
    ///
    /// `netns_goes_away` says that the caller removes the network namespace right after: Coracle's plugins then leave the
    /// deletion of the veth to that.
    pub fn del(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        result: Option<&CniResult>,
        netns_goes_away: bool,
    ) -> Result<Vec<CallError>, CallErrors> {
        let plugins: Vec<_> = list.plugins().iter().collect();
        let mut environment = self.environment("DEL", Some(attachment));
        if netns_goes_away {
            environment.push((NETNS_GOES_AWAY.to_owned(), "1".to_owned()));
        }
        self.del_each(list, &plugins, &environment, attachment, result)
    }

    /// Removes everything of the network that belongs to none of the valid attachments: those of all containers that
    /// are attached under the network's name, also by earlier configurations of it. Goes on after errors and reports
    /// them all.
    ///
    /// The command exists from 1.1.0 on; before, nothing is asked.
    pub fn gc(&self, list: &ConfList, valid: &[ValidAttachment]) -> Result<(), CallErrors> {
        if list.disables_gc() || !list.version().has_gc() {
            return Ok(());
        }
        let errors = list.plugins().iter().filter_map(|plugin| {
            let mut config = request(list, plugin, None, None);
            config.insert(VALID_ATTACHMENTS, json!(valid));
            // libcni sets the older name too.
            config.insert(LEGACY_ATTACHMENTS, json!(valid));
            self.call(plugin, &self.environment("GC", None), &config).err()
        });
        all(errors.collect())
    }

    /// Fails when ADD could not work now: a program is missing, or a plugin says so.
    ///
    /// The command exists from 1.1.0 on; before, it is only looked for the programs.
    pub fn status(&self, list: &ConfList) -> Result<(), CallError> {
        for plugin in list.plugins() {
            let program = self.program(plugin)?;
            if list.version().has_gc() {
                let config = request(list, plugin, None, None);
                program.call(&self.environment("STATUS", None), &config, self.timeout)?;
            }
        }
        Ok(())
    }

    /// `started` gets the plugins that were started: what they may have made is to be taken back.
    fn add_all<'a>(
        &self,
        list: &'a ConfList,
        attachment: &Attachment,
        started: &mut Vec<&'a NetworkConfig>,
    ) -> Result<CniResult, CallError> {
        let mut last: Option<CniResult> = None;
        let environment = self.environment("ADD", Some(attachment));
        for plugin in list.plugins() {
            let config = request(list, plugin, Some(attachment), last.as_ref());
            let answer = self.call(plugin, &environment, &config);
            if !matches!(answer, Err(CallError::Find { .. } | CallError::Start { .. })) {
                started.push(plugin);
            }
            let kind = || plugin.kind().unwrap_or_default().to_owned();
            let answer = answer?.ok_or_else(|| CallError::NoResult { plugin: kind() })?;
            let result = CniResult::parse(&answer);
            last = Some(result.map_err(|source| CallError::Result {
                plugin: kind(),
                source,
            })?);
        }
        Ok(last.unwrap_or_default())
    }

    fn del_each(
        &self,
        list: &ConfList,
        plugins: &[&NetworkConfig],
        environment: &[(String, String)],
        attachment: &Attachment,
        result: Option<&CniResult>,
    ) -> Result<Vec<CallError>, CallErrors> {
        let prev = result.filter(|_| list.version() >= Version::V0_4_0);
        let (mut skipped, mut errors) = (Vec::new(), Vec::new());
        for plugin in plugins.iter().rev() {
            let config = request(list, plugin, Some(attachment), prev);
            match self.call(plugin, environment, &config) {
                Ok(_) => {}
                Err(error @ CallError::Find { .. }) => skipped.push(error),
                Err(error @ CallError::Start { .. }) if result.is_none() => skipped.push(error),
                Err(error) => errors.push(error),
            }
        }
        all(errors).map(|()| skipped)
    }

    fn program(&self, plugin: &NetworkConfig) -> Result<Program, CallError> {
        Program::find(plugin.kind().unwrap_or_default(), &self.bin_dirs)
    }

    fn call(
        &self,
        plugin: &NetworkConfig,
        environment: &[(String, String)],
        config: &NetworkConfig,
    ) -> Result<Option<Value>, CallError> {
        self.program(plugin)?.call(environment, config, self.timeout)
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

fn all(errors: Vec<CallError>) -> Result<(), CallErrors> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(CallErrors(errors))
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

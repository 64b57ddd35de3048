//! What runs, as whom, where and with which environment.

use std::path::Path;

use coracle_cri_api::runtime_v1::{ContainerConfig, LinuxContainerSecurityContext};
use serde_json::{Value, json};

use super::{PlanError, Request, capabilities, invalid, set};

/// As in Docker and every runtime since.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the image says about its process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ImageDefaults<'a> {
    pub(crate) entrypoint: &'a [String],
    pub(crate) cmd: &'a [String],
    pub(crate) env: &'a [String],
    pub(crate) working_dir: &'a str,
    pub(crate) stop_signal: Option<&'a str>,
    /// VOLUME paths as written.
    pub(crate) volumes: &'a [String],
}

pub(super) fn plan(
    request: &Request<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Value, PlanError> {
    let config = request.config;
    let capabilities = capabilities::plan(security, request.host)?;
    let mut process = json!({
        "terminal": config.tty,
        "user": {
            "uid": request.identity.uid,
            "gid": request.identity.gid,
            "additionalGids": request.identity.groups,
        },
        "args": args(config, &request.image)?,
        "env": env(request)?,
        "cwd": working_directory(config, &request.image)?,
        "capabilities": capabilities,
        "noNewPrivileges": security.no_new_privs,
    });
    set(
        &mut process,
        "oomScoreAdj",
        oom_score_adj(request)?.map(Value::from),
    );
    Ok(process)
}

/// `command` replaces ENTRYPOINT, `args` CMD; a command without args runs without the image's CMD.
fn args(config: &ContainerConfig, image: &ImageDefaults<'_>) -> Result<Vec<String>, PlanError> {
    // Builders write `ENTRYPOINT [""]` for none; every runtime reads it so.
    let entrypoint = match image.entrypoint {
        [only] if only.is_empty() => &[],
        entrypoint => entrypoint,
    };
    let (command, args): (&[String], &[String]) = match (config.command.as_slice(), config.args.as_slice()) {
        ([], []) => (entrypoint, image.cmd),
        ([], args) => (entrypoint, args),
        (command, args) => (command, args),
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.first().is_none_or(String::is_empty) {
        return Err(PlanError::NoCommand);
    }
    match all.iter().find(|arg| arg.contains('\0')) {
        Some(arg) => Err(invalid(
            "config.command",
            arg,
            "a NUL cannot be passed to a program",
        )),
        None => Ok(all),
    }
}

/// PATH, HOME, HOSTNAME, TERM; over them the image's; over them the container's.
fn env(request: &Request<'_>) -> Result<Vec<String>, PlanError> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", request.hostname)];
    if request.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in request.image.env {
        put_of_image(&mut env, entry, request.id);
    }
    for (index, entry) in request.config.envs.iter().enumerate() {
        let field = || format!("config.envs[{index}]");
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            return Err(invalid(
                &field(),
                &entry.key,
                "not a name of an environment variable",
            ));
        }
        let value = std::str::from_utf8(&entry.value)
            .ok()
            .filter(|value| !value.contains('\0'))
            .ok_or_else(|| invalid(&field(), &entry.key, "the value is not UTF-8 text without NUL"))?;
        put(&mut env, format!("{}={value}", entry.key));
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", request.identity.home));
    }
    Ok(env)
}

/// An image's entry that is no `NAME=value` takes the variable of that name away, as in containerd.
fn put_of_image(env: &mut Vec<String>, entry: &str, container: &str) {
    let is_pair = entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    if is_pair && !entry.contains('\0') {
        put(env, entry.to_owned());
        return;
    }
    tracing::warn!(
        container,
        entry,
        "the image's environment: not of the form NAME=value, left out"
    );
    env.retain(|other| other.split('=').next() != Some(entry));
}

/// Replaces the variable of the same name.
fn put(env: &mut Vec<String>, entry: String) {
    let name = entry.split('=').next().unwrap_or_default();
    let same = |other: &&mut String| other.split('=').next() == Some(name);
    match env.iter_mut().find(same) {
        Some(other) => *other = entry,
        None => env.push(entry),
    }
}

fn working_directory(config: &ContainerConfig, image: &ImageDefaults<'_>) -> Result<String, PlanError> {
    match (config.working_dir.as_str(), image.working_dir) {
        ("", "") => Ok("/".to_owned()),
        // An image's WORKDIR can be relative; it means: to the root.
        ("", of_image) => Ok(Path::new("/").join(of_image).display().to_string()),
        (asked, _) if asked.starts_with('/') => Ok(asked.to_owned()),
        (asked, _) => Err(invalid("config.working_dir", asked, "not an absolute path")),
    }
}

/// Without CAP_SYS_RESOURCE the value cannot be lowered below the daemon's own (proc_pid_oom_score_adj(5)).
fn oom_score_adj(request: &Request<'_>) -> Result<Option<i64>, PlanError> {
    let linux = request.config.linux.as_ref();
    let Some(resources) = linux.and_then(|linux| linux.resources.as_ref()) else {
        return Ok(None);
    };
    let (asked, least) = (resources.oom_score_adj, request.host.least_oom_score_adj);
    if !(-1000..=1000).contains(&asked) {
        return Err(invalid(
            "config.linux.resources.oom_score_adj",
            &asked.to_string(),
            "not between -1000 and 1000",
        ));
    }
    if asked < least {
        tracing::info!(
            container = request.id,
            asked,
            given = least,
            "oom_score_adj cannot be lowered so far"
        );
    }
    Ok(Some(asked.max(least)))
}

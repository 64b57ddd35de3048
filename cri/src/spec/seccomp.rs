//! Which seccomp profile a container runs under.

use coracle_cri_api::runtime_v1::security_profile::ProfileType;
use coracle_cri_api::runtime_v1::{LinuxContainerSecurityContext, SecurityProfile};
use oci_spec::runtime::LinuxSeccomp;
use serde_json::Value;

use super::{PlanError, Request, capabilities, default_seccomp, invalid};
use crate::config::UnsetSeccompProfile;

const FIELD: &str = "config.linux.security_context.seccomp";
const OLD_FIELD: &str = "config.linux.security_context.seccomp_profile_path";

enum Profile {
    Default,
    Unconfined,
    File(String),
}

pub(super) fn plan(
    security: &LinuxContainerSecurityContext,
    request: &Request<'_>,
) -> Result<Option<Value>, PlanError> {
    check_apparmor(security, request)?;
    if security.privileged {
        return Ok(None);
    }
    match profile(security, request.unset_seccomp_profile)? {
        Profile::Unconfined => Ok(None),
        Profile::Default => Ok(Some(default_seccomp::profile(&capabilities::names(
            security,
            request.host,
        )?))),
        Profile::File(path) => load(&path).map(Some),
    }
}

/// The newer field wins over the older string.
fn profile(
    security: &LinuxContainerSecurityContext,
    unset: UnsetSeccompProfile,
) -> Result<Profile, PlanError> {
    if let Some(asked) = &security.seccomp {
        return match profile_type(FIELD, asked)? {
            ProfileType::RuntimeDefault => Ok(Profile::Default),
            ProfileType::Unconfined => Ok(Profile::Unconfined),
            ProfileType::Localhost => Ok(Profile::File(asked.localhost_ref.clone())),
        };
    }
    match security.seccomp_profile_path.as_str() {
        "" if unset == UnsetSeccompProfile::Unconfined => Ok(Profile::Unconfined),
        "" | "runtime/default" | "docker/default" => Ok(Profile::Default),
        "unconfined" => Ok(Profile::Unconfined),
        other => match other.strip_prefix("localhost/") {
            Some(path) => Ok(Profile::File(path.to_owned())),
            None => Err(invalid(
                OLD_FIELD,
                other,
                "runtime/default, unconfined or localhost/PATH",
            )),
        },
    }
}

/// A type that is not known is not the default one.
fn profile_type(field: &str, profile: &SecurityProfile) -> Result<ProfileType, PlanError> {
    let number = profile.profile_type;
    ProfileType::try_from(number).map_err(|_| {
        invalid(
            &format!("{field}.profile_type"),
            &number.to_string(),
            "no such type of profile",
        )
    })
}

fn load(path: &str) -> Result<Value, PlanError> {
    if !path.starts_with('/') {
        return Err(invalid(FIELD, path, "not the absolute path of a profile"));
    }
    let read = |source| PlanError::Read {
        field: FIELD,
        path: path.to_owned(),
        source,
    };
    // Reading anything else, a FIFO for example, may never end.
    if !std::fs::metadata(path).map_err(read)?.is_file() {
        return Err(invalid(FIELD, path, "not a file"));
    }
    let text = std::fs::read(path).map_err(read)?;
    // Through the type, so that a wrong file is an error here and not a container that does not start.
    let profile: LinuxSeccomp =
        serde_json::from_slice(&text).map_err(|source| PlanError::Json { field: FIELD, source })?;
    serde_json::to_value(profile).map_err(|source| PlanError::Json { field: FIELD, source })
}

/// A named profile that the host cannot load must not be dropped in silence.
fn check_apparmor(security: &LinuxContainerSecurityContext, request: &Request<'_>) -> Result<(), PlanError> {
    let field = "config.linux.security_context.apparmor";
    let asked = security
        .apparmor
        .as_ref()
        .map(|profile| profile_type(field, profile))
        .transpose()?;
    let named = asked == Some(ProfileType::Localhost) || security.apparmor_profile.starts_with("localhost/");
    if !named || security.privileged {
        return Ok(());
    }
    if request.host.apparmor {
        return Err(PlanError::Unsupported {
            field: field.to_owned(),
        });
    }
    Err(invalid(field, "Localhost", "this host has no AppArmor"))
}

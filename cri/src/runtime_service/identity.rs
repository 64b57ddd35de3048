//! Who a container runs as: the request's user, else the image's.

use coracle_cri_api::runtime_v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};
use coracle_images::user::{self, User};
use coracle_images::{Image, Store};

use super::Failure;
use crate::spec::Identity;

const USER: &str = "config.linux.security_context.run_as_user";
const USERNAME: &str = "config.linux.security_context.run_as_username";
const GROUP: &str = "config.linux.security_context.run_as_group";
const IMAGES_USER: &str = "USER of the image";
const POLICY: &str = "config.linux.security_context.supplemental_groups_policy";
const GROUPS: &str = "config.linux.security_context.supplemental_groups";

pub(super) fn resolve(
    store: &Store,
    image: &Image,
    security: &LinuxContainerSecurityContext,
) -> Result<Identity, Failure> {
    let user = user(store, image, security)?;
    let mut groups = vec![user.gid];
    let policy = security.supplemental_groups_policy;
    let policy = SupplementalGroupsPolicy::try_from(policy)
        .map_err(|_| invalid(POLICY, &policy.to_string(), "no such policy"))?;
    if policy == SupplementalGroupsPolicy::Merge {
        groups.extend(&user.groups);
    }
    for group in &security.supplemental_groups {
        groups.push(number(GROUPS, *group)?);
    }
    let mut seen = std::collections::HashSet::new();
    groups.retain(|group| seen.insert(*group));
    Ok(Identity {
        uid: user.uid,
        gid: user.gid,
        groups,
        home: user.home,
    })
}

fn user(store: &Store, image: &Image, security: &LinuxContainerSecurityContext) -> Result<User, Failure> {
    let group = security
        .run_as_group
        .as_ref()
        .map(|group| number(GROUP, group.value))
        .transpose()?;
    let name = security.run_as_username.as_str();
    let mut user = match (&security.run_as_user, name) {
        (Some(_), name) if !name.is_empty() => {
            return Err(invalid(USERNAME, name, "run_as_user is set too"));
        }
        (Some(uid), _) => {
            let resolved = user::resolve_ids(store, image, number(USER, uid.value)?, group);
            return resolved.map_err(|source| Failure::User { field: USER, source });
        }
        (None, "") => match group {
            Some(group) => {
                let wants = "set without run_as_user and run_as_username";
                return Err(invalid(GROUP, &group.to_string(), wants));
            }
            None => by_name(store, image, IMAGES_USER, image.user())?,
        },
        (None, name) => by_name(store, image, USERNAME, name)?,
    };
    if let Some(group) = group {
        user.gid = group;
    }
    Ok(user)
}

fn by_name(store: &Store, image: &Image, field: &'static str, name: &str) -> Result<User, Failure> {
    user::resolve(store, image, name).map_err(|source| Failure::User { field, source })
}

fn number(field: &'static str, value: i64) -> Result<u32, Failure> {
    // The highest number means "no change" to the kernel (setresuid(2)).
    u32::try_from(value)
        .ok()
        .filter(|number| *number < u32::MAX)
        .ok_or_else(|| invalid(field, &value.to_string(), "not an id between 0 and 4294967294"))
}

fn invalid(field: &'static str, value: &str, wants: &'static str) -> Failure {
    Failure::Invalid {
        field,
        value: value.to_owned(),
        wants,
    }
}

//! `securityContext` of the pod and of a container.

use std::collections::BTreeMap;

use super::field::{Field, FieldError, Object, Problem};

/// `spec.securityContext`; what a container does not say itself comes from here.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodSecurity {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_group: Option<i64>,
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) supplemental_groups: Vec<i64>,
    /// Groups the image's /etc/group gives the user are not added.
    pub(crate) strict_groups: bool,
    /// Owns the emptyDir volumes and is a group of every process.
    pub(crate) fs_group: Option<i64>,
    pub(crate) sysctls: BTreeMap<String, String>,
    pub(crate) seccomp: Option<SeccompProfile>,
}

/// A container's `securityContext`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerSecurity {
    pub(crate) run_as_user: Option<i64>,
    pub(crate) run_as_group: Option<i64>,
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) add_capabilities: Vec<String>,
    pub(crate) drop_capabilities: Vec<String>,
    pub(crate) privileged: bool,
    pub(crate) read_only_root: bool,
    /// Absent means allowed, as in Kubernetes.
    pub(crate) allow_privilege_escalation: Option<bool>,
    /// `procMount: Unmasked`.
    pub(crate) unmasked_proc: bool,
    pub(crate) seccomp: Option<SeccompProfile>,
}

/// `seccompProfile.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeccompProfile {
    RuntimeDefault,
    Unconfined,
}

impl PodSecurity {
    pub(super) fn read(field: &Field<'_>) -> Result<PodSecurity, FieldError> {
        let mut object = field.object()?;
        refuse_labels(&mut object)?;
        object.refuse(&[("seLinuxChangePolicy", "SELinux labels are not there yet")])?;
        // Only about volumes that outlive a pod, of which there are none here; checked and without effect, as in Kubernetes.
        if let Some(policy) = object.take("fsGroupChangePolicy") {
            policy.choice(&[("Always", ()), ("OnRootMismatch", ())])?;
        }
        let groups = object.items("supplementalGroups")?;
        let policy = object.take("supplementalGroupsPolicy");
        let security = PodSecurity {
            run_as_user: object.integer("runAsUser", 0, MAX_ID)?,
            run_as_group: object.integer("runAsGroup", 0, MAX_ID)?,
            run_as_non_root: object
                .take("runAsNonRoot")
                .map(|field| field.boolean())
                .transpose()?,
            supplemental_groups: groups
                .iter()
                .map(|group| group.integer(0, MAX_ID))
                .collect::<Result<_, _>>()?,
            strict_groups: policy.map_or(Ok(false), |field| {
                field.choice(&[("Merge", false), ("Strict", true)])
            })?,
            fs_group: object.integer("fsGroup", 0, MAX_ID)?,
            sysctls: read_sysctls(&mut object)?,
            seccomp: read_seccomp(&mut object)?,
        };
        object.done()?;
        Ok(security)
    }
}

impl ContainerSecurity {
    pub(super) fn read(field: &Field<'_>) -> Result<ContainerSecurity, FieldError> {
        let mut object = field.object()?;
        refuse_labels(&mut object)?;
        let escalation = object.take("allowPrivilegeEscalation");
        let proc_mount = object.take("procMount");
        let mut security = ContainerSecurity {
            run_as_user: object.integer("runAsUser", 0, MAX_ID)?,
            run_as_group: object.integer("runAsGroup", 0, MAX_ID)?,
            run_as_non_root: object
                .take("runAsNonRoot")
                .map(|field| field.boolean())
                .transpose()?,
            privileged: object.boolean("privileged")?,
            read_only_root: object.boolean("readOnlyRootFilesystem")?,
            allow_privilege_escalation: escalation.as_ref().map(Field::boolean).transpose()?,
            unmasked_proc: proc_mount.map_or(Ok(false), |field| {
                field.choice(&[("Default", false), ("Unmasked", true)])
            })?,
            seccomp: read_seccomp(&mut object)?,
            ..ContainerSecurity::default()
        };
        if let Some(field) = object.take("capabilities") {
            let mut capabilities = field.object()?;
            security.add_capabilities = read_capabilities(&mut capabilities, "add")?;
            security.drop_capabilities = read_capabilities(&mut capabilities, "drop")?;
            capabilities.done()?;
        }
        object.done()?;
        security.check_escalation(escalation)?;
        Ok(security)
    }

    /// Kubernetes refuses the combinations in which "no escalation" would not hold.
    fn check_escalation(&self, field: Option<Field<'_>>) -> Result<(), FieldError> {
        let Some(field) = field else { return Ok(()) };
        if self.allow_privilege_escalation != Some(false) {
            return Ok(());
        }
        if self.privileged {
            return Err(field.error(Problem::Rule("cannot be false together with privileged: true")));
        }
        if self
            .add_capabilities
            .iter()
            .any(|name| name == "SYS_ADMIN" || name == "CAP_SYS_ADMIN")
        {
            return Err(field.error(Problem::Rule(
                "cannot be false together with the capability SYS_ADMIN",
            )));
        }
        Ok(())
    }
}

/// Kubernetes' limit for user and group ids.
const MAX_ID: i64 = 2_147_483_647;

fn refuse_labels(object: &mut Object<'_>) -> Result<(), FieldError> {
    object.refuse(&[
        ("seLinuxOptions", "SELinux labels are not there yet"),
        ("windowsOptions", "pods are Linux pods"),
    ])?;
    let Some(field) = object.take("appArmorProfile") else {
        return Ok(());
    };
    let mut profile = field.object()?;
    let kind = profile.need("type")?;
    if kind.string()? != "Unconfined" {
        return Err(kind.error(Problem::Unsupported("AppArmor profiles are not there yet")));
    }
    profile.done()
}

fn read_capabilities(object: &mut Object<'_>, list: &str) -> Result<Vec<String>, FieldError> {
    let mut names = Vec::new();
    for item in object.items(list)? {
        let name = item.string()?;
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        {
            return Err(item.invalid(&name, "is not a capability, such as NET_ADMIN or ALL"));
        }
        names.push(name);
    }
    Ok(names)
}

fn read_sysctls(object: &mut Object<'_>) -> Result<BTreeMap<String, String>, FieldError> {
    let mut sysctls = BTreeMap::new();
    for item in object.items("sysctls")? {
        let mut sysctl = item.object()?;
        let name_field = sysctl.need("name")?;
        let name = name_field.string()?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        if name.is_empty() || !name.chars().all(allowed) || name.contains("..") {
            return Err(name_field.invalid(&name, "is not the name of a sysctl"));
        }
        sysctls.insert(name, sysctl.need("value")?.string()?);
        sysctl.done()?;
    }
    Ok(sysctls)
}

fn read_seccomp(object: &mut Object<'_>) -> Result<Option<SeccompProfile>, FieldError> {
    let Some(field) = object.take("seccompProfile") else {
        return Ok(None);
    };
    let mut profile = field.object()?;
    profile.refuse(&[("localhostProfile", "type is RuntimeDefault or Unconfined")])?;
    let kind = profile.need("type")?;
    let kind = kind.choice(&[
        ("RuntimeDefault", SeccompProfile::RuntimeDefault),
        ("Unconfined", SeccompProfile::Unconfined),
    ])?;
    profile.done()?;
    Ok(Some(kind))
}

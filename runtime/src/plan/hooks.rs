//! Hooks: checked here, run by [`crate::hooks`].

use super::PlanError;
use oci_spec::runtime::Hook;
use std::time::Duration;

/// All hooks of a container, checked.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Hooks {
    pub(crate) prestart: Vec<HookPlan>,
    pub(crate) create_runtime: Vec<HookPlan>,
    pub(crate) create_container: Vec<HookPlan>,
    pub(crate) start_container: Vec<HookPlan>,
    pub(crate) poststart: Vec<HookPlan>,
    pub(crate) poststop: Vec<HookPlan>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct HookPlan {
    /// The field it comes from, for errors.
    pub(crate) field: String,
    pub(crate) path: String,
    /// The first is the name that the program sees as its own.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<Duration>,
}

impl Hooks {
    /// Checks the hooks of a specification.
    pub(super) fn plan(hooks: Option<&oci_spec::runtime::Hooks>) -> Result<Self, PlanError> {
        let Some(hooks) = hooks else {
            return Ok(Self::default());
        };
        // Deprecated, and still what Docker and libnvidia-container before 1.14 use.
        let prestart = hooks.prestart();
        Ok(Self {
            prestart: plan_list("hooks.prestart", prestart.as_deref())?,
            create_runtime: plan_list("hooks.createRuntime", hooks.create_runtime().as_deref())?,
            create_container: plan_list("hooks.createContainer", hooks.create_container().as_deref())?,
            start_container: plan_list("hooks.startContainer", hooks.start_container().as_deref())?,
            poststart: plan_list("hooks.poststart", hooks.poststart().as_deref())?,
            poststop: plan_list("hooks.poststop", hooks.poststop().as_deref())?,
        })
    }

    /// Those that the runtime runs while the container is being created.
    pub(crate) fn of_runtime(&self) -> Vec<HookPlan> {
        self.prestart
            .iter()
            .chain(&self.create_runtime)
            .cloned()
            .collect()
    }
}

fn plan_list(field: &str, hooks: Option<&[Hook]>) -> Result<Vec<HookPlan>, PlanError> {
    let hooks = hooks.unwrap_or_default().iter().enumerate();
    hooks
        .map(|(index, hook)| plan_one(format!("{field}[{index}]"), hook))
        .collect()
}

fn plan_one(field: String, hook: &Hook) -> Result<HookPlan, PlanError> {
    let path = hook.path().to_string_lossy().into_owned();
    if !hook.path().is_absolute() {
        return Err(PlanError::invalid(
            format!("{field}.path"),
            path,
            "is not an absolute path",
        ));
    }
    let args = hook.args().clone().unwrap_or_default();
    let env = hook.env().clone().unwrap_or_default();
    if let Some(text) = args
        .iter()
        .chain(&env)
        .chain([&path])
        .find(|text| text.contains('\0'))
    {
        return Err(PlanError::invalid(field, format!("{text:?}"), "holds a NUL byte"));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => {
                return Err(PlanError::invalid(
                    format!("{field}.timeout"),
                    seconds,
                    "is not above zero",
                ));
            }
        },
    };
    let args = if args.is_empty() { vec![path.clone()] } else { args };
    Ok(HookPlan {
        field,
        path,
        args,
        env,
        timeout,
    })
}

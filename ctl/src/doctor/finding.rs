//! One line of what was found.

use serde::Serialize;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Good,
    /// Pods run, and something does not work or works badly.
    Degraded,
    /// Pods do not run.
    Broken,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Degraded => "degraded",
            State::Broken => "broken",
        }
    }
}

/// What was found; the JSON form is stable.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) state: State,
    pub(super) area: &'static str,
    pub(super) what: String,
    /// What it is, and what that means.
    pub(super) says: String,
    /// The command, or the step, that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn good(area: &'static str, what: impl Into<String>, says: impl Into<String>) -> Self {
        Self {
            state: State::Good,
            area,
            what: what.into(),
            says: says.into(),
            mend: None,
        }
    }

    pub(super) fn degraded(
        area: &'static str,
        what: impl Into<String>,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Degraded,
            mend: Some(mend.into()),
            ..Self::good(area, what, says)
        }
    }

    pub(super) fn broken(
        area: &'static str,
        what: impl Into<String>,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Broken,
            ..Self::degraded(area, what, says, mend)
        }
    }
}

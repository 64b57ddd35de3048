//! A step at which the daemon kills itself, as kill -9 by somebody else would: for the tests of its restart.

use std::str::FromStr;

use crate::error::chain;

/// `STEP:before` or `STEP:after`; STEP is a line of `coracled --list-steps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailPoint {
    step: String,
    moment: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// Why a fail point was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseFailPointError {
    #[error("fail point {0:?}: must be STEP:before or STEP:after")]
    Form(String),
    #[error("fail point {0:?}: no such step (coracled --list-steps prints them)")]
    Step(String),
}

impl FromStr for FailPoint {
    type Err = ParseFailPointError;

    fn from_str(text: &str) -> Result<FailPoint, ParseFailPointError> {
        let form = || ParseFailPointError::Form(text.to_owned());
        let (step, moment) = text.rsplit_once(':').ok_or_else(form)?;
        let moment = match moment {
            "before" => Moment::Before,
            "after" => Moment::After,
            _ => return Err(form()),
        };
        Ok(FailPoint {
            step: step.to_owned(),
            moment,
        })
    }
}

impl FailPoint {
    /// Whether the step is one of these.
    pub(crate) fn check(&self, mut steps: impl Iterator<Item = String>) -> Result<(), ParseFailPointError> {
        match steps.any(|name| name == self.step) {
            true => Ok(()),
            false => Err(ParseFailPointError::Step(self.step.clone())),
        }
    }
}

/// Kills the process here, if this is the place.
pub(super) fn before(point: Option<&FailPoint>, operation: &str, step: &str) {
    reach(point, Moment::Before, operation, step);
}

/// Kills the process here, if this is the place.
pub(super) fn after(point: Option<&FailPoint>, operation: &str, step: &str) {
    reach(point, Moment::After, operation, step);
}

fn reach(point: Option<&FailPoint>, moment: Moment, operation: &str, step: &str) {
    let Some(point) = point.filter(|point| point.moment == moment) else {
        return;
    };
    if point.step.split_once('.') != Some((operation, step)) {
        return;
    }
    tracing::warn!(step = point.step, ?moment, "fail point reached");
    if let Err(error) =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
    {
        tracing::error!(error = %chain(&error), "fail point: cannot kill myself");
    }
}

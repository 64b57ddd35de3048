//! The one way in which the daemon does anything that leaves something behind: a short list of named steps.
//!
//! ```text
//!   record -> directories -> cgroup -> shim -> pod -> network -> ready
//!      |           |           |        |       |        |  fails
//!      v           v           v        v       v        v
//!    undo  <-    undo   <-   undo <-  undo <- undo  <- undo      in reverse, never stops early
//! ```
//!
//! A step's undo is registered before the step runs, since a step can fail half-way: every undo takes "already gone" for
//! a success. That also makes the undo list the recovery of an operation that a killed daemon left half done.
//! The same runner writes a span per step and holds the fail points of the tests.

mod fail_point;
mod trace;

use std::future::Future;
use std::pin::Pin;

pub(crate) use fail_point::{FailPoint, ParseFailPointError};
pub(crate) use trace::{Trace, TraceError};

use crate::error::chain;

/// What a step or an undo returns.
pub(crate) type StepFuture<'a, E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>;
/// The body of a step or an undo, on the work in progress.
pub(crate) type StepBody<W, E> = for<'a> fn(&'a mut W) -> StepFuture<'a, E>;

/// One named step of an operation.
pub(crate) struct Step<W, E> {
    pub(crate) name: &'static str,
    pub(crate) run: StepBody<W, E>,
    /// None: the step leaves nothing behind.
    pub(crate) undo: Option<StepBody<W, E>>,
}

/// A request as a list of steps.
pub(crate) struct Operation<W: 'static, E: 'static> {
    /// The RPC's name in snake case.
    pub(crate) name: &'static str,
    pub(crate) steps: &'static [Step<W, E>],
}

/// Runs operations: undo, spans, fail points.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) trace: Trace,
    pub(crate) fail_point: Option<FailPoint>,
}

impl Runner {
    /// Runs every step; when one fails, undoes it and those before it, in reverse, and returns the step's error.
    pub(crate) async fn run<W, E: std::error::Error>(
        &self,
        operation: &Operation<W, E>,
        id: &str,
        work: &mut W,
    ) -> Result<(), E> {
        let whole = self.trace.begin(operation.name, "", id);
        for (index, step) in operation.steps.iter().enumerate() {
            if let Err(error) = self.step(operation.name, step, id, work).await {
                whole.end(false);
                self.undo_from(operation, index, id, work).await;
                return Err(error);
            }
        }
        whole.end(true);
        Ok(())
    }

    /// Undoes everything that the operation may have left behind.
    pub(crate) async fn undo<W, E: std::error::Error>(
        &self,
        operation: &Operation<W, E>,
        id: &str,
        work: &mut W,
    ) {
        if let Some(last) = operation.steps.len().checked_sub(1) {
            self.undo_from(operation, last, id, work).await;
        }
    }

    async fn step<W, E>(
        &self,
        operation: &'static str,
        step: &Step<W, E>,
        id: &str,
        work: &mut W,
    ) -> Result<(), E> {
        fail_point::before(self.fail_point.as_ref(), operation, step.name);
        let span = self.trace.begin(operation, step.name, id);
        let result = (step.run)(work).await;
        span.end(result.is_ok());
        if result.is_ok() {
            fail_point::after(self.fail_point.as_ref(), operation, step.name);
        }
        result
    }

    async fn undo_from<W, E: std::error::Error>(
        &self,
        operation: &Operation<W, E>,
        last: usize,
        id: &str,
        work: &mut W,
    ) {
        for step in operation.steps.iter().take(last + 1).rev() {
            let Some(undo) = step.undo else { continue };
            if let Err(error) = undo(work).await {
                tracing::warn!(operation = operation.name, step = step.name, id, error = %chain(&error), "undo failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Log = Vec<&'static str>;

    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error("{0} failed")]
    struct Failed(&'static str);

    const LIST: Operation<Log, Failed> = Operation {
        name: "test",
        steps: &[
            Step {
                name: "a",
                run: |w| say(w, "a"),
                undo: Some(|w| say(w, "undo a")),
            },
            Step {
                name: "b",
                run: |w| say(w, "b"),
                undo: Some(|w| fail(w, "undo b")),
            },
            Step {
                name: "c",
                run: |w| say(w, "c"),
                undo: None,
            },
            Step {
                name: "d",
                run: |w| fail(w, "d"),
                undo: Some(|w| say(w, "undo d")),
            },
            Step {
                name: "e",
                run: |w| say(w, "e"),
                undo: Some(|w| say(w, "undo e")),
            },
        ],
    };

    fn say<'a>(log: &'a mut Log, what: &'static str) -> StepFuture<'a, Failed> {
        log.push(what);
        Box::pin(async { Ok(()) })
    }

    fn fail<'a>(log: &'a mut Log, what: &'static str) -> StepFuture<'a, Failed> {
        log.push(what);
        Box::pin(async move { Err(Failed(what)) })
    }

    #[tokio::test]
    async fn a_failed_step_undoes_itself_and_those_before_in_reverse_and_a_failed_undo_does_not_stop_it() {
        let runner = Runner {
            trace: Trace::off(),
            fail_point: None,
        };
        let mut log = Log::new();
        assert_eq!(runner.run(&LIST, "x", &mut log).await, Err(Failed("d")));
        assert_eq!(log, ["a", "b", "c", "d", "undo d", "undo b", "undo a"]);
    }

    #[tokio::test]
    async fn undo_covers_the_whole_list() {
        let runner = Runner {
            trace: Trace::off(),
            fail_point: None,
        };
        let mut log = Log::new();
        runner.undo(&LIST, "x", &mut log).await;
        assert_eq!(log, ["undo e", "undo d", "undo b", "undo a"]);
    }
}

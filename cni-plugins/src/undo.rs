//! What a failed ADD takes back, newest first; a step that fails does not keep the others from running.

use crate::failure::{Failure, Outcome};

/// Steps that take back what was made.
#[derive(Default)]
pub(crate) struct Undo<'a>(Vec<Step<'a>>);

type Step<'a> = (&'static str, Box<dyn FnOnce() -> Outcome<()> + 'a>);

impl<'a> Undo<'a> {
    /// Registers how to take back what was just made, or is about to be.
    pub(crate) fn push(&mut self, name: &'static str, step: impl FnOnce() -> Outcome<()> + 'a) {
        self.0.push((name, Box::new(step)));
    }
}

/// Does the work; when it fails, takes back what it registered and reports what could not be taken back too.
pub(crate) fn or_undo<'a, T>(work: impl FnOnce(&mut Undo<'a>) -> Outcome<T>) -> Outcome<T> {
    let mut undo = Undo::default();
    let Failure(error) = match work(&mut undo) {
        Ok(done) => return Ok(done),
        Err(failure) => failure,
    };
    let mut details = error.details.clone();
    for (name, step) in undo.0.into_iter().rev() {
        if let Err(Failure(failed)) = step() {
            let separator = if details.is_empty() { "" } else { "; " };
            details.push_str(&format!("{separator}undo {name}: {}", failed.msg));
        }
    }
    Err(Failure(error.with_details(details)))
}

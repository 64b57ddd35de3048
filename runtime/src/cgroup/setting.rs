//! What a field of `linux.resources` becomes: values for control files, written in order.

/// All that is to be written, and what is said about it in the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) steps: Vec<Step>,
    /// Fields that this kernel no longer has, with the reason.
    pub(super) warnings: Vec<String>,
}

/// One thing to write, in the order of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// One file.
    Set(Setting),
    /// Two files whose values limit each other: when the first is refused, the second is written before it.
    Both(Setting, Setting),
}

/// A value for a control file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    /// The field of the specification, for errors.
    pub(super) field: &'static str,
    /// Names of the file over the kernels' history; the first that exists is written.
    pub(super) files: Vec<String>,
    pub(super) value: String,
    pub(super) if_missing: IfMissing,
}

/// What it means when the kernel has none of a setting's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// The limit cannot be honoured.
    Fail,
    /// Nothing is lost (the limit says what holds without it); only said in the log.
    Warn,
}

impl Setting {
    pub(super) fn new(
        controller: &'static str,
        field: &'static str,
        file: &str,
        value: impl ToString,
    ) -> Self {
        let files = vec![file.to_owned()];
        Self {
            controller,
            field,
            files,
            value: value.to_string(),
            if_missing: IfMissing::Fail,
        }
    }

    /// Another name of the file, tried after the ones before.
    pub(super) fn or(mut self, file: &str) -> Self {
        self.files.push(file.to_owned());
        self
    }
}

impl Settings {
    pub(super) fn set(
        &mut self,
        controller: &'static str,
        field: &'static str,
        file: &str,
        value: impl ToString,
    ) {
        self.steps
            .push(Step::Set(Setting::new(controller, field, file, value)));
    }
}

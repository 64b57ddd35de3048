//! The log: one line per event, in the two formats of runc, which container engines read.

use super::CliError;
use clap::ValueEnum;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// `time="..." level=error msg="..."`.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Where events go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Standard error without one.
    file: Option<File>,
    format: Format,
    debug: bool,
}

impl Log {
    pub(crate) fn open(path: Option<&Path>, format: Format, debug: bool) -> Result<Self, CliError> {
        let open = |path: &Path| {
            let file = File::options().append(true).create(true).open(path);
            file.map_err(|source| CliError::OpenLog {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            format,
            debug,
        })
    }

    /// The end of a command that failed. It also goes to standard error, for whoever sits there.
    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            eprintln!("{message}");
        }
    }

    /// Something could not be done as asked.
    pub(crate) fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    /// Something for whoever looks for an error.
    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        #[derive(Serialize)]
        struct Line<'a> {
            level: &'a str,
            msg: &'a str,
            time: &'a str,
        }
        let time = coracle_runtime::state::rfc3339(SystemTime::now());
        let line = match self.format {
            Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
            Format::Json => {
                let line = serde_json::to_string(&Line {
                    level,
                    msg: message,
                    time: &time,
                });
                format!("{}\n", line.unwrap_or_default())
            }
        };
        // A log that cannot be written has nowhere to say so.
        let _ = match &self.file {
            Some(file) => { file }.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

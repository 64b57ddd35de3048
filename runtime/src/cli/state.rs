//! `state`: prints what is known about a container.

use super::{CliError, Global};
use clap::{Arg, ArgMatches, Command};
use coracle_runtime::ContainerId;
use coracle_runtime::state::Status;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

pub(super) fn command() -> Command {
    Command::new("state")
        .about("Prints the state of a container")
        .defer(|command| command.arg(Arg::new("id").value_name("CONTAINER").required(true)))
}

/// Fields and order of runc.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: Status,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a String, &'a String>,
    owner: &'a str,
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let id: ContainerId = args.get_one::<String>("id").map_or("", String::as_str).parse()?;
    let record = global.store.load(&id)?;
    let status = record.status(&global.store.dir(&id))?;
    let state = State {
        oci_version: &record.oci_version,
        id: &record.id,
        pid: if status == Status::Stopped { 0 } else { record.pid },
        status,
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        created: &record.created,
        annotations: record.annotations.iter().collect(),
        owner: "",
    };
    let mut text = serde_json::to_vec_pretty(&state).map_err(|error| CliError::Print(error.into()))?;
    text.push(b'\n');
    std::io::stdout().write_all(&text).map_err(CliError::Print)?;
    Ok(0)
}

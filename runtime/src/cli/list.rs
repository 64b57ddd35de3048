//! `list`: all containers of this `--root`.

use super::error::chain;
use super::{CliError, Global};
use clap::{Arg, ArgAction, ArgMatches, Command};
use coracle_runtime::ContainerId;
use coracle_runtime::features::OCI_VERSION;
use coracle_runtime::state::{Status, StoreError, rfc3339};
use serde::Serialize;
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

pub(super) fn command() -> Command {
    Command::new("list")
        .about("List the containers of this --root")
        .args([
            Arg::new("format")
                .long("format")
                .short('f')
                .value_name("FORMAT")
                .value_parser(["table", "json"])
                .default_value("table")
                .help("table or json"),
            Arg::new("quiet")
                .long("quiet")
                .short('q')
                .action(ArgAction::SetTrue)
                .help("Only the names"),
        ])
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let ids = global.store.list()?;
    let quiet = args.get_flag("quiet");
    let json = args
        .get_one::<String>("format")
        .is_some_and(|format| format == "json");
    let text = if quiet {
        ids.iter().map(|id| format!("{id}\n")).collect()
    } else {
        let rows: Vec<Row> = ids.iter().filter_map(|id| row_or_log(global, id)).collect();
        if json {
            format!("{}\n", serde_json::to_string(&rows).unwrap_or_default())
        } else {
            table(&rows)
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(CliError::Print)?;
    Ok(0)
}

/// One container, with the keys of runc.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: HashMap<String, String>,
    owner: String,
}

/// A broken one must not hide the others.
fn row_or_log(global: &Global, id: &ContainerId) -> Option<Row> {
    match row(global, id) {
        Ok(row) => Some(row),
        Err(CliError::Store(StoreError::Missing(_))) => half_made_row(global, id),
        Err(error) => {
            global.log.warn(&format!("container {id}: {}", chain(&error)));
            None
        }
    }
}

fn row(global: &Global, id: &ContainerId) -> Result<Row, CliError> {
    let record = global.store.load(id)?;
    let dir = global.store.dir(id);
    let status = record.status(&dir)?;
    let owner = std::fs::metadata(&dir).map_or(0, |found| found.uid());
    Ok(Row {
        oci_version: record.oci_version,
        id: record.id,
        pid: if status == Status::Stopped { 0 } else { record.pid },
        status,
        bundle: record.bundle,
        rootfs: record.rootfs,
        created: record.created,
        annotations: record.annotations,
        owner: user_name(owner),
    })
}

/// One that has no record is being made, or its maker was killed: `delete --force` ends it. Being removed, it is gone.
fn half_made_row(global: &Global, id: &ContainerId) -> Option<Row> {
    let half = global.store.half_made(id)?;
    let found = std::fs::metadata(global.store.dir(id)).ok()?;
    Some(Row {
        oci_version: OCI_VERSION.to_owned(),
        id: id.to_string(),
        pid: 0,
        status: Status::Creating,
        bundle: half.bundle.unwrap_or_default(),
        rootfs: PathBuf::new(),
        created: found.modified().map(rfc3339).unwrap_or_default(),
        annotations: HashMap::new(),
        owner: user_name(found.uid()),
    })
}

/// Read from the file: the name service of a static program knows no other.
fn user_name(uid: u32) -> String {
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let mut entries = passwd.lines().map(|line| line.split(':'));
    let name = entries.find_map(|mut entry| {
        let name = entry.next()?;
        (entry.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns of at least 12, three blanks between them.
fn table(rows: &[Row]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let cells = |row: &Row| {
        let bundle = row.bundle.display().to_string();
        [
            row.id.clone(),
            row.pid.to_string(),
            row.status.to_string(),
            bundle,
            row.created.clone(),
            row.owner.clone(),
        ]
    };
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].len() + 3)
            .max()
            .unwrap_or(0)
            .max(12)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let render = |line: &[String; 6]| {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}{}\n", padded.collect::<String>(), line[5])
    };
    lines.iter().map(render).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = Row {
            oci_version: "1.0.2".into(),
            id: "a-rather-long-name".into(),
            pid: 7,
            status: Status::Running,
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".into(),
            annotations: HashMap::new(),
            owner: "root".into(),
        };
        let text = table(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("PID"), lines[1].find("7 "));
        assert_eq!(lines[0].find("OWNER"), lines[1].find("root"));
    }

    #[test]
    fn the_first_user_is_root() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_294_967_294), "#4294967294");
    }
}

//! `spec`: a config.json to start from, with the defaults that runc's has.

use super::{CliError, Global};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) fn command() -> Command {
    Command::new("spec")
        .about("Write a config.json to start from")
        .args([
            Arg::new("bundle")
                .long("bundle")
                .short('b')
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("The bundle's directory; default: the current one"),
            Arg::new("rootless")
                .long("rootless")
                .action(ArgAction::SetTrue)
                .help("For a user other than root"),
        ])
}

pub(super) fn run(_: &Global, args: &ArgMatches) -> Result<u8, CliError> {
    let bundle = args
        .get_one::<PathBuf>("bundle")
        .map_or_else(|| Path::new("."), PathBuf::as_path);
    let path = bundle.join("config.json");
    let text = if args.get_flag("rootless") {
        rootless()?
    } else {
        DEFAULT.to_owned()
    };
    let failed = |source| CliError::WriteSpec {
        path: path.clone(),
        source,
    };
    // An existing one is somebody's work.
    let mut file = File::create_new(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(0)
}

const DEFAULT: &str = include_str!("default_config.json");

/// What a user without privileges cannot have is taken out: cgroup limits, a network of its own (nobody would connect
/// it), a new sysfs, the group of terminals; what makes the rest possible, a user namespace, is added.
fn rootless() -> Result<String, CliError> {
    let mut config: Value = serde_json::from_str(DEFAULT).map_err(CliError::Template)?;
    let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
    let linux = &mut config["linux"];
    linux["uidMappings"] = map(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = map(rustix::process::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        match mount["destination"].as_str() {
            Some("/dev/pts") => without_group(mount),
            Some("/sys") => {
                let options = json!(["rbind", "nosuid", "noexec", "nodev", "ro"]);
                *mount =
                    json!({ "destination": "/sys", "type": "none", "source": "/sys", "options": options });
            }
            _ => {}
        }
    }
    Ok(format!("{config:#}\n"))
}

fn without_group(mount: &mut Value) {
    if let Some(options) = mount["options"].as_array_mut() {
        options.retain(|option| !option.as_str().is_some_and(|option| option.starts_with("gid=")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;

    #[test]
    fn both_are_valid_configurations() {
        for text in [DEFAULT.to_owned(), rootless().unwrap()] {
            let spec: Spec = serde_json::from_str(&text).unwrap();
            assert_eq!(spec.version(), coracle_runtime::features::OCI_VERSION);
        }
    }
}

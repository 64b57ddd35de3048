//! Network configuration: the file that the daemon takes, and the programs it names.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Places;
use super::finding::Finding;

const AREA: &str = "cni";

pub(super) fn look(places: &Places) -> Vec<Finding> {
    let what = "configuration";
    let directory = places.cni_conf_dir.display();
    let Some(file) = first(&places.cni_conf_dir) else {
        let says = format!(
            "no .conflist, .conf or .json in {directory}: pods with a network of their own are refused"
        );
        let mend = format!("coracle-cni install makes the plugins; put a configuration into {directory}");
        return vec![Finding::broken(AREA, what, says, mend)];
    };
    let parsed = std::fs::read(&file).map(|text| serde_json::from_slice::<Value>(&text));
    let configuration = match parsed {
        Ok(Ok(configuration)) => configuration,
        Ok(Err(error)) => {
            let says = format!("{}: {error}", file.display());
            return vec![Finding::broken(
                AREA,
                what,
                says,
                "correct the file: it is the first by name, and the one that is used",
            )];
        }
        Err(error) => {
            let says = format!("{}: {error}", file.display());
            return vec![Finding::broken(AREA, what, says, "make it readable")];
        }
    };
    let mut findings = vec![Finding::good(AREA, what, file.display().to_string())];
    findings.extend(
        programs(&configuration)
            .into_iter()
            .map(|name| program(&places.cni_bin_dir, &name)),
    );
    findings
}

/// By name, as every runtime chooses.
fn first(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).ok()?;
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let known = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("conflist" | "conf" | "json"))
    };
    files.filter(known).min()
}

/// The plugins of a list or of a single configuration, and of their address management.
fn programs(configuration: &Value) -> Vec<String> {
    let single = [configuration.clone()];
    let plugins = configuration
        .get("plugins")
        .and_then(Value::as_array)
        .map_or(&single[..], Vec::as_slice);
    let mut names = Vec::new();
    for plugin in plugins {
        let ipam = plugin.get("ipam");
        for kind in [plugin.get("type"), ipam.and_then(|ipam| ipam.get("type"))] {
            let name = kind.and_then(Value::as_str).map(str::to_owned);
            names.extend(name.filter(|name| !names.contains(name)));
        }
    }
    names
}

fn program(directory: &Path, name: &str) -> Finding {
    let what = format!("plugin {name}");
    let path = directory.join(name);
    // A name with a slash would be looked for elsewhere.
    let runs = !name.contains('/')
        && rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok()
        && path.is_file();
    if runs {
        return Finding::good(AREA, what, path.display().to_string());
    }
    let says = format!(
        "{} is not a program: every pod of this network is refused",
        path.display()
    );
    let mend = format!(
        "install it, or take it out of the configuration (ours: coracle-cni install {})",
        directory.display()
    );
    Finding::broken(AREA, what, says, mend)
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::state_of;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_first_file_counts_and_its_programs_are_looked_for() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places {
            cni_conf_dir: directory.path().join("net.d"),
            cni_bin_dir: directory.path().join("bin"),
            ..Places::default()
        };
        assert_eq!(state_of(&look(&places), "configuration"), State::Broken);
        for path in [&places.cni_conf_dir, &places.cni_bin_dir] {
            std::fs::create_dir(path).unwrap();
        }
        assert_eq!(state_of(&look(&places), "configuration"), State::Broken);
        let write = |name: &str, text: &str| std::fs::write(places.cni_conf_dir.join(name), text).unwrap();
        write("00-notes.txt", "not a configuration");
        write("20.conflist", "{");
        write(
            "10.conflist",
            r#"{"plugins":[{"type":"bridge","ipam":{"type":"host-local"}},{"type":"nosuch"}]}"#,
        );
        for name in ["bridge", "host-local"] {
            let program = places.cni_bin_dir.join(name);
            std::fs::write(&program, "").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let findings = look(&places);
        assert_eq!(state_of(&findings, "configuration"), State::Good);
        assert_eq!(state_of(&findings, "plugin bridge"), State::Good);
        assert_eq!(state_of(&findings, "plugin host-local"), State::Good);
        assert_eq!(state_of(&findings, "plugin nosuch"), State::Broken);
        std::fs::remove_file(places.cni_conf_dir.join("10.conflist")).unwrap();
        assert_eq!(state_of(&look(&places), "configuration"), State::Broken);
    }
}

//! `linux.resources.devices` for the v1 devices controller.
//!
//! The kernel applies rules in the order they are written: one for all devices sets the default and forgets the
//! rest. Every container starts from "nothing", then come the rules of the specification, then the devices each
//! container may use (the list of runc: it must hold, or /dev/null would not work).

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::cgroup::SetupError;

const FIELD: &str = "linux.resources.devices";

/// The checked rules.
#[derive(Clone, Debug)]
pub(in crate::cgroup) struct Devices {
    pub(in crate::cgroup) rules: Vec<Rule>,
    /// The specification denies something itself, so that a host without the controller cannot honour it.
    pub(in crate::cgroup) asked: bool,
}

/// One write to `devices.allow` or `devices.deny`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cgroup) struct Rule {
    pub(in crate::cgroup) allow: bool,
    pub(in crate::cgroup) line: String,
}

/// Allowed in every container: mknod of anything, the usual nodes below /dev, terminals.
const ALWAYS: &[&str] = &[
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

pub(in crate::cgroup) fn v1(devices: &[LinuxDeviceCgroup]) -> Result<Devices, SetupError> {
    let mut rules = vec![all(false)];
    for (index, device) in devices.iter().enumerate() {
        for rule in checked(index, device)? {
            if rule.line == "a" {
                rules.clear();
            }
            rules.push(rule);
        }
    }
    if rules.first() != Some(&all(true)) {
        rules.extend(ALWAYS.iter().map(|line| Rule {
            allow: true,
            line: (*line).to_owned(),
        }));
    }
    let asked = rules.first() != Some(&all(true)) && devices.iter().any(|device| !device.allow());
    Ok(Devices { rules, asked })
}

fn all(allow: bool) -> Rule {
    Rule {
        allow,
        line: "a".to_owned(),
    }
}

fn checked(index: usize, device: &LinuxDeviceCgroup) -> Result<Vec<Rule>, SetupError> {
    let refuse = |what: &str, reason| SetupError::Value {
        field: FIELD,
        value: format!("[{index}].{what}"),
        reason,
    };
    let access = device.access().as_deref().unwrap_or_default();
    if access.contains(|c| !"rwm".contains(c)) {
        return Err(refuse("access", "a combination of r, w and m"));
    }
    let access = if access.is_empty() { "rwm" } else { access };
    let number = |what: &str, number: Option<i64>| match number {
        None | Some(-1) => Ok("*".to_owned()),
        Some(number) if number >= 0 => Ok(number.to_string()),
        Some(_) => Err(refuse(what, "a device number, or -1 for all")),
    };
    let (major, minor) = (number("major", device.major())?, number("minor", device.minor())?);
    let kinds: &[char] = match device.typ().unwrap_or_default() {
        LinuxDeviceType::C | LinuxDeviceType::U => &['c'],
        LinuxDeviceType::B => &['b'],
        LinuxDeviceType::P => return Err(refuse("type", "a, b or c: a pipe is not a device")),
        LinuxDeviceType::A => &['c', 'b'],
    };
    let every_access = "rwm".chars().all(|c| access.contains(c));
    if kinds.len() == 2 && major == "*" && minor == "*" && every_access {
        return Ok(vec![all(device.allow())]);
    }
    let line = |kind: &char| Rule {
        allow: device.allow(),
        line: format!("{kind} {major}:{minor} {access}"),
    };
    Ok(kinds.iter().map(line).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Vec<String>, String> {
        let rules = v1(&serde_json::from_str::<Vec<_>>(json).unwrap()).map_err(|error| error.to_string())?;
        let show = |rule: Rule| format!("{}{}", if rule.allow { '+' } else { '-' }, rule.line);
        Ok(rules
            .rules
            .into_iter()
            .map(show)
            .filter(|line| !ALWAYS.contains(&&line[1..]))
            .collect())
    }

    #[test]
    fn the_default_is_to_deny() {
        assert_eq!(planned("[]").unwrap(), ["-a"]);
        assert_eq!(planned(r#"[{"allow": false, "access": "rwm"}]"#).unwrap(), ["-a"]);
        assert!(
            v1(&[])
                .unwrap()
                .rules
                .iter()
                .any(|rule| rule.line == "c 1:3 rwm" && rule.allow)
        );
    }

    #[test]
    fn a_rule_for_everything_forgets_what_came_before() {
        let json = r#"[{"allow": true, "type": "c", "major": 10, "access": "rw"}, {"allow": true, "access": "rwm"}]"#;
        assert_eq!(planned(json).unwrap(), ["+a"]);
        assert_eq!(
            v1(&serde_json::from_str::<Vec<_>>(json).unwrap())
                .unwrap()
                .rules
                .len(),
            1
        );
        let json = r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]"#;
        assert_eq!(planned(json).unwrap(), ["-a", "+c 10:229 rw"]);
    }

    #[test]
    fn all_types_with_a_number_are_both_types() {
        assert_eq!(
            planned(r#"[{"allow": true, "type": "a", "major": 8, "access": "r"}]"#).unwrap(),
            ["-a", "+c 8:* r", "+b 8:* r"]
        );
    }

    #[test]
    fn bad_rules_are_refused() {
        for json in [r#"[{"access": "x"}]"#, r#"[{"major": -2}]"#, r#"[{"type": "p"}]"#] {
            assert!(
                planned(json).unwrap_err().contains("linux.resources.devices"),
                "{json}"
            );
        }
    }
}

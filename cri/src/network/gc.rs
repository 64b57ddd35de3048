//! CNI's GC: what plugins still hold for containers that are gone is removed, from version 1.1.0 of a network on
//! (specification, section 2, "GC").

use coracle_cni_protocol::{ConfList, ValidAttachment};

use super::INTERFACE;
use crate::store::SandboxRecord;

/// The attachments of this network that stay. A record that cannot be read counts: nothing is taken away on a guess.
pub(super) fn valid(list: &ConfList, records: &[SandboxRecord]) -> Vec<ValidAttachment> {
    let is_of_list = |record: &&SandboxRecord| {
        ConfList::parse(record.network.as_bytes()).map_or(true, |recorded| recorded.name() == list.name())
    };
    let attached = records.iter().filter(|record| record.attached);
    attached
        .filter(is_of_list)
        .map(|record| ValidAttachment {
            container_id: record.id.clone(),
            ifname: INTERFACE.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Network;
    use super::*;
    use crate::config::Config;

    fn record(id: &str, network: &str, attached: bool) -> SandboxRecord {
        SandboxRecord {
            id: id.to_owned(),
            network: network.to_owned(),
            attached,
            ..SandboxRecord::default()
        }
    }

    fn list(name: &str) -> String {
        format!(r#"{{"cniVersion":"1.1.0","name":"{name}","plugins":[{{"type":"keeper"}}]}}"#)
    }

    #[tokio::test]
    async fn plugins_are_told_what_is_still_attached_to_their_network() {
        let directory = tempfile::tempdir().unwrap();
        let plugin = directory.path().join("keeper");
        let script = format!(
            "#!/bin/sh\n[ $CNI_COMMAND = GC ] && cat > {}/told\n",
            directory.path().display()
        );
        std::fs::write(&plugin, script).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(directory.path().join("1.conflist"), list("mine")).unwrap();
        let network = Network::new(&Config {
            cni_conf_dir: directory.path().to_owned(),
            cni_bin_dir: directory.path().to_owned(),
            ..Config::default()
        });
        let records = vec![
            record("lives", &list("mine"), true),
            record("given-back", &list("mine"), false),
            record("elsewhere", &list("other"), true),
            record("unreadable", "{", true),
        ];
        network.gc(records).await.unwrap();
        let told = std::fs::read_to_string(directory.path().join("told")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let kept = told["cni.dev/valid-attachments"].as_array().unwrap();
        let kept: Vec<_> = kept
            .iter()
            .map(|one| one["containerID"].as_str().unwrap())
            .collect();
        assert_eq!(kept, ["lives", "unreadable"]);
    }
}

//! The daemon: whether it answers, and what it says of itself.

use coracle_cri_api::runtime_v1::StatusResponse;
use serde_json::Value;

use super::Places;
use super::finding::Finding;
use crate::client::Client;
use crate::error::chain;

const AREA: &str = "daemon";

/// What the daemon says, and where its files are.
pub(super) async fn look(client: &Client) -> (Vec<Finding>, Places) {
    match client.status().await {
        Ok(status) => {
            let places = status
                .info
                .get("config")
                .and_then(|text| serde_json::from_str::<Value>(text).ok());
            let places = places.map_or_else(Places::default, |config| Places::of_config(&config));
            (conditions(&status), places)
        }
        Err(error) => {
            let mend = "start coracled; its own error says more";
            (
                vec![Finding::broken(AREA, "answers", chain(&error), mend)],
                Places::default(),
            )
        }
    }
}

fn conditions(status: &StatusResponse) -> Vec<Finding> {
    let mut findings = vec![Finding::good(AREA, "answers", "yes")];
    for condition in status.status.iter().flat_map(|status| &status.conditions) {
        findings.push(match condition.status {
            true => Finding::good(AREA, condition.r#type.clone(), "yes"),
            false => Finding::broken(
                AREA,
                condition.r#type.clone(),
                condition.message.clone(),
                "see what it names; the daemon looks again by itself",
            ),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::state_of;
    use super::*;
    use coracle_cri_api::runtime_v1::{RuntimeCondition, RuntimeStatus};

    #[test]
    fn a_condition_that_is_not_met_is_broken_with_its_message() {
        let condition = |kind: &str, status, message: &str| RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            message: message.to_owned(),
            ..RuntimeCondition::default()
        };
        let conditions = vec![
            condition("RuntimeReady", true, ""),
            condition("NetworkReady", false, "no configuration"),
        ];
        let findings = super::conditions(&StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            ..StatusResponse::default()
        });
        assert_eq!(state_of(&findings, "RuntimeReady"), State::Good);
        assert_eq!(state_of(&findings, "NetworkReady"), State::Broken);
        assert!(findings.iter().any(|finding| finding.says == "no configuration"));
    }
}

//! CNI's STATUS: whether ADD would work now, asked of the plugins of networks from version 1.1.0 on (specification,
//! section 2, "STATUS").
//!
//! The kubelet asks for the runtime's condition every few seconds, and each question would start every plugin: an answer
//! holds for a while, as long as the configuration is the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_cni_protocol::{Caller, ConfList};
use tokio::sync::Mutex;

use super::{NetworkError, blocking};

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(10);

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct LastStatus(Mutex<Option<Answer>>);

#[derive(Debug)]
struct Answer {
    at: Instant,
    list: ConfList,
    status: Result<(), Arc<NetworkError>>,
}

impl LastStatus {
    /// Asks, unless the last answer still holds. Whoever comes meanwhile waits for the same answer.
    pub(super) async fn of(&self, caller: &Caller, list: ConfList) -> Result<(), Arc<NetworkError>> {
        let mut last = self.0.lock().await;
        let holds = |answer: &&Answer| answer.at.elapsed() < HOLDS && answer.list == list;
        if let Some(answer) = last.as_ref().filter(holds) {
            return answer.status.clone();
        }
        let (caller, asked) = (caller.clone(), list.clone());
        let status = blocking(move || {
            caller.status(&asked).map_err(|source| NetworkError::Status {
                network: asked.name().to_owned(),
                source,
            })
        });
        let status = status.await.map_err(Arc::new);
        *last = Some(Answer {
            at: Instant::now(),
            list,
            status: status.clone(),
        });
        status
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::error::chain;

    const DOWN: &str = r#"{"cniVersion":"1.1.0","code":50,"msg":"the fabric is down"}"#;

    fn list(version: &str, extra: &str) -> ConfList {
        let text = format!(
            r#"{{"cniVersion":"{version}","name":"x","plugins":[{{"type":"fabric"}}],"extra":"{extra}"}}"#
        );
        ConfList::parse(text.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_plugin_that_says_no_makes_the_network_unready_and_is_not_asked_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let plugin = directory.path().join("fabric");
        let script = format!(
            "#!/bin/sh\ncd {}\necho $CNI_COMMAND >> asked\n[ -e up ] || {{ echo '{DOWN}'; exit 1; }}\n",
            directory.path().display()
        );
        std::fs::write(&plugin, script).unwrap();
        std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
        let caller = Caller::new(vec![directory.path().to_owned()]);
        let asked = || std::fs::read_to_string(directory.path().join("asked")).unwrap_or_default();
        let last = LastStatus::default();

        last.of(&caller, list("1.0.0", "")).await.unwrap();
        assert_eq!(asked(), "", "the command is of version 1.1.0");
        for _ in 0..3 {
            let fault = last.of(&caller, list("1.1.0", "")).await.unwrap_err();
            let text = chain(&*fault);
            assert!(
                text.starts_with("network \"x\": plugin fabric: the fabric is down"),
                "{text}"
            );
        }
        assert_eq!(asked(), "STATUS\n");
        std::fs::write(directory.path().join("up"), "").unwrap();
        last.of(&caller, list("1.1.0", "changed")).await.unwrap();
        assert_eq!(asked(), "STATUS\nSTATUS\n", "another configuration is asked for");
    }
}

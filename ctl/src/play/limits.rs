//! Limits a kubelet enforces by looking now and then: the size of disk volumes and the pod's deadline.

use std::path::PathBuf;
use std::time::Duration;

use coracle_linux::tree;

use super::super::plan::{PodPlan, VolumeKind};
use super::super::table;

/// Why a pod must be ended, and how much time its containers get.
#[derive(Debug)]
pub(super) struct Exceeded {
    pub(super) reason: String,
    pub(super) grace: Duration,
}

/// Returns once the pod must be ended; never while it may go on.
pub(super) async fn exceeded(plan: &PodPlan) -> Exceeded {
    tokio::select! {
        // A pod that fills the disk gets one second, whatever its own period says.
        reason = volume_exceeded(limited_volumes(plan)) => Exceeded { reason, grace: plan.grace.min(EVICTION_GRACE) },
        reason = deadline_exceeded(plan.deadline) => Exceeded { reason, grace: plan.grace },
    }
}

/// The kubelet's grace for an eviction at once.
const EVICTION_GRACE: Duration = Duration::from_secs(1);

/// The kubelet's interval.
const INTERVAL: Duration = Duration::from_secs(10);
/// Entries a second: measuring must not compete with the pod.
const PACE: u32 = 50_000;

#[derive(Debug)]
struct Limited {
    name: String,
    path: PathBuf,
    bytes: u64,
}

fn limited_volumes(plan: &PodPlan) -> Vec<Limited> {
    let limited = |volume: &super::super::plan::VolumePlan| match volume.kind {
        VolumeKind::Directory { limit: Some(bytes) } => Some(Limited {
            name: volume.name.clone(),
            path: volume.path.clone(),
            bytes,
        }),
        // The file system of a memory volume is as large as its limit.
        _ => None,
    };
    plan.volumes.iter().filter_map(limited).collect()
}

async fn volume_exceeded(volumes: Vec<Limited>) -> String {
    if volumes.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        for volume in &volumes {
            let path = volume.path.clone();
            // A tree that cannot be measured now is measured again next time.
            if let Ok(Ok(used)) = tokio::task::spawn_blocking(move || tree::measure(&path, PACE)).await
                && used.bytes > volume.bytes
            {
                let (used, limit) = (table::size(used.bytes), table::size(volume.bytes));
                return format!(
                    "evicted: volume {:?} holds {used}, more than its sizeLimit of {limit}",
                    volume.name
                );
            }
        }
    }
}

async fn deadline_exceeded(deadline: Option<Duration>) -> String {
    let Some(deadline) = deadline else {
        return std::future::pending().await;
    };
    tokio::time::sleep(deadline).await;
    format!(
        "it has run longer than its activeDeadlineSeconds of {}",
        deadline.as_secs()
    )
}

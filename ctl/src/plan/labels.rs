//! The labels and annotations by which a played pod is known.

use crate::manifest::Pod;

use super::Place;

/// The label of every pod that coraclectl plays.
pub(crate) const PLAYED_LABEL: &str = "coraclectl.play";
/// The annotation with the grace period in seconds, for `down`.
pub(crate) const GRACE_ANNOTATION: &str = "coraclectl.grace-period-seconds";

/// The labels a kubelet sets, which tools look for, and ours.
pub(super) fn of_pod(pod: &Pod, place: &Place) -> [(String, String); 4] {
    [
        ("io.kubernetes.pod.name".to_owned(), pod.metadata.name.clone()),
        (
            "io.kubernetes.pod.namespace".to_owned(),
            pod.metadata.namespace.clone(),
        ),
        ("io.kubernetes.pod.uid".to_owned(), place.uid.clone()),
        (PLAYED_LABEL.to_owned(), "true".to_owned()),
    ]
}

//! Label selectors of the list filters.

use std::collections::HashMap;

/// Whether every pair of the selector is among the labels.
pub(super) fn matches(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

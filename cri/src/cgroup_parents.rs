//! The pods' parent cgroups that the daemon made, and who uses them.
//!
//! A request may name a parent of its own. Where it exists (the kubelet makes its own) it belongs to whoever made it; where
//! it does not, it and the missing ones above it are ours, for as long as a pod uses them: pods can share them, and the last
//! one to leave takes them away.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cgroup::Hierarchies;

/// By path, the ids of the sandboxes below it. Locked while cgroups are looked at or removed, so that none goes between a
/// new user's look and its claim.
#[derive(Debug, Default)]
pub(crate) struct CgroupParents(Mutex<HashMap<String, BTreeSet<String>>>);

impl CgroupParents {
    /// What is ours of `parent` and the cgroups above it, outermost first: what is not there yet, and what is there for
    /// another pod of ours.
    pub(crate) fn claim(&self, hierarchies: Hierarchies, parent: &str, sandbox: &str) -> Vec<String> {
        let mut all = self.lock();
        let owned: Vec<String> = ancestors(parent)
            .filter(|path| all.contains_key(*path) || !hierarchies.exists(path))
            .map(str::to_owned)
            .collect();
        for path in &owned {
            all.entry(path.clone()).or_default().insert(sandbox.to_owned());
        }
        owned
    }

    /// The sandbox of an earlier daemon uses these.
    pub(crate) fn claim_again(&self, owned: &[String], sandbox: &str) {
        let mut all = self.lock();
        for path in owned {
            all.entry(path.clone()).or_default().insert(sandbox.to_owned());
        }
    }

    /// The sandbox has left them: those that nobody else uses are removed, if they are empty. Can be repeated.
    pub(crate) fn release(&self, hierarchies: Hierarchies, owned: &[String], sandbox: &str) {
        let mut all = self.lock();
        for path in owned.iter().rev() {
            if let Some(users) = all.get_mut(path) {
                users.remove(sandbox);
                if !users.is_empty() {
                    continue;
                }
                all.remove(path);
            }
            hierarchies.remove_if_empty(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<String>>> {
        // A panic elsewhere leaves every set whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `/a/b` is `/a`, then `/a/b`.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.char_indices().skip(1).filter(|(_, letter)| *letter == '/');
    ends.map(|(end, _)| end)
        .chain([path.len()])
        .map(|end| &path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pod_takes_away_what_was_made_and_nothing_else() {
        let hierarchies = Hierarchies::discover().unwrap();
        let root = format!("/coracle-cri-parents-{}", std::process::id());
        let (shared, foreign) = (format!("{root}/a"), format!("{root}/foreign"));
        if !hierarchies.make(&foreign) {
            eprintln!("skipped: cgroups cannot be made here");
            return;
        }
        let parents = CgroupParents::default();
        assert_eq!(parents.claim(hierarchies, &foreign, "first"), [""; 0]);
        let first = parents.claim(hierarchies, &shared, "first");
        assert_eq!(first, std::slice::from_ref(&shared));
        assert!(hierarchies.make(&shared));
        let second = parents.claim(hierarchies, &format!("{shared}/b"), "second");
        assert_eq!(second, [shared.clone(), format!("{shared}/b")]);
        assert!(hierarchies.make(&format!("{shared}/b")));

        parents.release(hierarchies, &first, "first");
        assert!(hierarchies.exists(&shared), "the second uses it");
        parents.release(hierarchies, &second, "second");
        assert!(!hierarchies.exists(&shared));
        assert!(hierarchies.exists(&foreign));

        // Another has made it since: it is not ours by having been.
        assert!(hierarchies.make(&shared));
        assert_eq!(parents.claim(hierarchies, &shared, "third"), [""; 0]);
        hierarchies.end(&root).unwrap();
    }

    #[test]
    fn ancestors_are_named_outermost_first() {
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(ancestors("/a").collect::<Vec<_>>(), ["/a"]);
    }
}

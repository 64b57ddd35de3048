//! How long a container that ends waits before it runs again: the kubelet's rule.

use std::time::{Duration, Instant};

/// The waiting time of one container. The first restart comes at once, the next after 10 s, then twice as long each
/// time, at most 5 minutes; counted from the end of the container. It starts anew after 10 minutes without a restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    /// The time to wait after the next end, and when it was set.
    next: Option<(Duration, Instant)>,
}

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

impl Backoff {
    /// The container ended at `ended`: when it may run again.
    pub(super) fn restart_at(&mut self, ended: Instant) -> Instant {
        match self.next {
            Some((wait, set)) if ended.saturating_duration_since(set) <= LONGEST * 2 => {
                let at = ended + wait;
                self.next = Some(((wait * 2).min(LONGEST), at));
                at
            }
            _ => {
                self.next = Some((FIRST, ended));
                ended
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_start_anew_after_a_quiet_time() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let mut ended = start;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let at = backoff.restart_at(ended);
            waits.push((at - ended).as_secs());
            ended = at + Duration::from_secs(1);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let quiet = ended + Duration::from_secs(601);
        assert_eq!(backoff.restart_at(quiet), quiet);
    }
}

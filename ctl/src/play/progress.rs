//! Which container of a pod runs next: pure decisions on what has happened so far.
//!
//! ```text
//!           start                     ended, goes on
//! Waiting ---------> Running --------------------------> Waiting (not before ...)
//!                       | ended for good
//!                       v
//!                     Ended
//! ```

use std::time::Instant;

use super::super::manifest::RestartPolicy;
use super::backoff::Backoff;

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running.
    Sidecar,
    Main,
}

/// Where one container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting {
        not_before: Instant,
    },
    Running {
        id: String,
    },
    /// For good, with this exit code.
    Ended {
        code: i32,
    },
}

/// One container's way through the pod's life.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) role: Role,
    pub(super) phase: Phase,
    /// How often it has been started.
    pub(super) starts: u32,
    backoff: Backoff,
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Start the container with this index.
    Start(usize),
    /// Nothing to do before something happens.
    Wait,
    Finished(End),
}

/// How a pod ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    Failed,
}

impl Slot {
    pub(super) fn new(role: Role, now: Instant) -> Slot {
        Slot {
            role,
            phase: Phase::Waiting { not_before: now },
            starts: 0,
            backoff: Backoff::default(),
        }
    }

    /// It ran and ended; it goes on or not as the policy says. Some time when it will be started again.
    pub(super) fn ended(&mut self, code: i32, policy: RestartPolicy, now: Instant) -> Option<Instant> {
        let again = match (self.role, policy) {
            (Role::Sidecar, _) | (Role::Main, RestartPolicy::Always) => true,
            (Role::Init | Role::Main, RestartPolicy::Never) => false,
            (Role::Init, _) | (Role::Main, RestartPolicy::OnFailure) => code != 0,
        };
        if !again {
            self.phase = Phase::Ended { code };
            return None;
        }
        let not_before = self.backoff.restart_at(now);
        self.phase = Phase::Waiting { not_before };
        Some(not_before)
    }

    fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Waiting { not_before } if not_before <= now)
    }
}

/// Decides on slots in the order of the manifest, init containers first.
pub(super) fn next(slots: &[Slot], now: Instant) -> Next {
    let mut ready = true;
    for (index, slot) in slots.iter().enumerate() {
        match (slot.role, &slot.phase) {
            (Role::Init, Phase::Ended { code: 0 }) => {}
            (Role::Init, Phase::Ended { .. }) => return Next::Finished(End::Failed),
            (Role::Init, Phase::Waiting { .. }) if ready && slot.is_due(now) => return Next::Start(index),
            // Later containers wait for this one, earlier sidecars do not.
            (Role::Init, _) => ready = false,
            (Role::Sidecar | Role::Main, _) if ready && slot.is_due(now) => return Next::Start(index),
            // A sidecar that has run once does not hold up the others while it waits to run again.
            (Role::Sidecar, _) if slot.starts == 0 => ready = false,
            (Role::Sidecar | Role::Main, _) => {}
        }
    }
    let mains = || slots.iter().filter(|slot| slot.role == Role::Main);
    if !mains().all(|slot| matches!(slot.phase, Phase::Ended { .. })) {
        return Next::Wait;
    }
    let failed = mains().any(|slot| !matches!(slot.phase, Phase::Ended { code: 0 }));
    Next::Finished(if failed { End::Failed } else { End::Succeeded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn slots(roles: &[Role], now: Instant) -> Vec<Slot> {
        roles.iter().map(|role| Slot::new(*role, now)).collect()
    }

    fn start(slots: &mut [Slot], index: usize) {
        slots[index].phase = Phase::Running {
            id: index.to_string(),
        };
        slots[index].starts += 1;
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_sidecars_stay() {
        let now = Instant::now();
        let mut slots = slots(
            &[Role::Init, Role::Sidecar, Role::Init, Role::Main, Role::Main],
            now,
        );
        for (index, ends) in [(0, true), (1, false), (2, true)] {
            assert_eq!(next(&slots, now), Next::Start(index));
            start(&mut slots, index);
            if ends {
                assert_eq!(next(&slots, now), Next::Wait);
                assert_eq!(slots[index].ended(0, RestartPolicy::Always, now), None);
            }
        }
        for index in [3, 4] {
            assert_eq!(next(&slots, now), Next::Start(index));
            start(&mut slots, index);
        }
        assert_eq!(next(&slots, now), Next::Wait);
        // A sidecar is started again whatever the policy, and holds nobody up.
        assert!(slots[1].ended(0, RestartPolicy::Never, now).is_some());
        assert_eq!(next(&slots, now), Next::Start(1));
    }

    #[test]
    fn a_failed_init_container_is_tried_again_or_ends_the_pod() {
        let now = Instant::now();
        for policy in [RestartPolicy::Always, RestartPolicy::OnFailure] {
            let mut slots = slots(&[Role::Init, Role::Main], now);
            start(&mut slots, 0);
            slots[0].ended(1, policy, now);
            assert_eq!(next(&slots, now), Next::Start(0));
            start(&mut slots, 0);
            slots[0].ended(1, policy, now);
            assert_eq!(next(&slots, now), Next::Wait, "10 s of back-off");
            assert_eq!(next(&slots, now + Duration::from_secs(10)), Next::Start(0));
        }
        let mut slots = slots(&[Role::Init, Role::Main], now);
        start(&mut slots, 0);
        slots[0].ended(1, RestartPolicy::Never, now);
        assert_eq!(next(&slots, now), Next::Finished(End::Failed));
    }

    #[test]
    fn the_policy_decides_whether_a_main_container_runs_again() {
        let now = Instant::now();
        let cases = [
            (RestartPolicy::Always, 0, Next::Start(0)),
            (RestartPolicy::Always, 1, Next::Start(0)),
            (RestartPolicy::OnFailure, 0, Next::Finished(End::Succeeded)),
            (RestartPolicy::OnFailure, 1, Next::Start(0)),
            (RestartPolicy::Never, 0, Next::Finished(End::Succeeded)),
            (RestartPolicy::Never, 1, Next::Finished(End::Failed)),
        ];
        for (policy, code, wanted) in cases {
            let mut slots = slots(&[Role::Main], now);
            start(&mut slots, 0);
            slots[0].ended(code, policy, now);
            assert_eq!(next(&slots, now), wanted, "{policy:?} {code}");
        }
    }

    #[test]
    fn a_pod_ends_when_all_its_main_containers_have() {
        let now = Instant::now();
        let mut slots = slots(&[Role::Sidecar, Role::Main, Role::Main], now);
        for index in 0..3 {
            start(&mut slots, index);
        }
        slots[1].ended(3, RestartPolicy::Never, now);
        assert_eq!(next(&slots, now), Next::Wait);
        slots[2].ended(0, RestartPolicy::Never, now);
        assert_eq!(next(&slots, now), Next::Finished(End::Failed));
    }
}

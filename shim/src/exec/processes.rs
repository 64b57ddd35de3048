//! Ending a command with all it has started.
//!
//! A command is the first process of a session of its own (setsid(2)). Of the processes in the container's cgroup those
//! are its that are in this session or descend from one that is. A process that has left the session and lost its parent
//! is the container's: it asked to live on.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Duration;

use coracle_linux::cgroup::Cgroup;
use coracle_linux::pidfd::{self, Signal};
use rustix::process::Pid;

/// Kills the command `first` and what belongs to it; again, until a look finds nothing that runs.
pub(super) async fn kill(first: Pid, cgroup: &Cgroup) {
    let mut pause = Duration::from_micros(200);
    for _ in 0..ROUNDS {
        let found = belonging(first, &cgroup.procs().unwrap_or_default());
        if found.is_empty() {
            return;
        }
        for pid in found {
            if let Ok(process) = pidfd::open(pid) {
                let _ = pidfd::send_signal(process.as_fd(), Signal::KILL);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Those of `all` that belong to the command and have not ended.
fn belonging(first: Pid, all: &[Pid]) -> Vec<Pid> {
    let stats: Vec<(Pid, Stat)> = all
        .iter()
        .filter_map(|pid| Some((*pid, Stat::read(*pid)?)))
        .collect();
    let mut ours = BTreeSet::from([first.as_raw_nonzero().get()]);
    loop {
        let before = ours.len();
        for (pid, stat) in &stats {
            if ours.contains(&stat.parent) || stat.session == first.as_raw_nonzero().get() {
                ours.insert(pid.as_raw_nonzero().get());
            }
        }
        if ours.len() == before {
            break;
        }
    }
    let alive = stats
        .into_iter()
        .filter(|(_, stat)| !stat.dead)
        .map(|(pid, _)| pid);
    alive
        .filter(|pid| ours.contains(&pid.as_raw_nonzero().get()))
        .collect()
}

#[derive(Debug, PartialEq)]
struct Stat {
    dead: bool,
    parent: i32,
    session: i32,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
    }

    /// proc_pid_stat(5): the name, in parentheses, may hold anything; then state, parent, group, session.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        Some(Self {
            dead: matches!(state, "Z" | "X"),
            parent,
            session,
        })
    }
}

/// Looks before it is given up; the last ones are 20 ms apart.
const ROUNDS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pass_for_other_fields() {
        let stat = Stat::parse("42 (a) R 1 1 1 (b) S 7 8 9 0 -1").unwrap();
        assert_eq!(
            stat,
            Stat {
                dead: false,
                parent: 7,
                session: 9
            }
        );
    }
}

//! The person's wish to stop: the first Ctrl-C (or SIGTERM, SIGHUP) stops, the second kills.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How much of an end is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Run,
    Stop,
    Kill,
}

/// Tells when a level is reached; clones tell the same.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Level>);

impl Stop {
    /// Listens for signals from now on.
    pub(crate) fn listen() -> io::Result<Stop> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let nohup = ignores_hangup()?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, receiver) = watch::channel(Level::Run);
        tokio::spawn(async move {
            for level in [Level::Stop, Level::Kill] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv(), if !nohup => {}
                }
                // Nobody listens any more: the pods are gone.
                if sender.send(level).is_err() {
                    return;
                }
            }
            // The last value stays readable as long as the sender lives.
            sender.closed().await;
        });
        Ok(Stop(receiver))
    }

    /// Returns once `level` or more is wished for.
    pub(crate) async fn reached(&mut self, level: Level) {
        if self.0.wait_for(|now| *now >= level).await.is_err() {
            // The listener is gone, so nothing more can be wished for.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the caller had it ignored, as nohup(1) does: it stays without meaning then.
fn ignores_hangup() -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap_or_default();
    // Bit 0 is signal 1.
    Ok(u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 != 0))
}
